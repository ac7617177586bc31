"""dnnlib.cache: a download is complete and verified, or it does not exist."""

import functools
import hashlib
import http.server
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from dnnlib import UserError, cache

BODY = bytes(range(256)) * 5000
SHA = hashlib.sha256(BODY).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    hits: list[str] = []
    starts: list[int] = []

    def do_GET(self):
        Handler.hits.append(self.path)
        if self.path.startswith("/missing"):
            self.send_error(404)
            return
        if self.path.startswith(("/tagged", "/changed")):
            self.send_part()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY[: len(BODY) // 2] if self.path.startswith("/cut") else BODY)

    def send_part(self):
        """A file with an ETag, whose first sending breaks off in the middle."""
        tag = '"v2"' if self.path.startswith("/changed") and len(Handler.hits) > 1 else '"v1"'
        ranged = self.headers.get("Range")
        asked = int(ranged[6:-1]) if ranged and self.headers.get("If-Range") == tag else 0
        Handler.starts.append(asked)
        self.send_response(206 if asked else 200)
        self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(BODY) - asked))
        self.end_headers()
        self.wfile.write(BODY[asked : len(BODY) // 2 if len(Handler.hits) == 1 else None])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    Handler.hits, Handler.starts = [], []
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=functools.partial(httpd.serve_forever, poll_interval=0.01), daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()


def files(folder):
    return sorted(p.name for p in folder.rglob("*") if p.is_file())


def test_downloads_once_and_keeps_the_published_name(server, tmp_path):
    first = cache.fetch(f"{server}/models/net.pkl?dl=1", SHA, tmp_path)
    second = cache.fetch(f"{server}/models/net.pkl?dl=1", SHA, tmp_path)
    assert first == second
    assert first.name == "net.pkl"
    assert first.read_bytes() == BODY
    assert Handler.hits == ["/models/net.pkl?dl=1"]


def test_two_addresses_with_one_file_name_do_not_collide(server, tmp_path):
    assert cache.fetch(f"{server}/a/net.pkl", cache_dir=tmp_path) != cache.fetch(f"{server}/b/net.pkl", None, tmp_path)


def test_wrong_checksum_leaves_nothing(server, tmp_path):
    with pytest.raises(UserError, match="wrong SHA-256"):
        cache.fetch(f"{server}/net.pkl", "0" * 64, tmp_path)
    assert files(tmp_path) == []


def test_a_cached_file_that_was_damaged_is_fetched_again(server, tmp_path):
    path = cache.fetch(f"{server}/net.pkl", SHA, tmp_path)
    path.write_bytes(BODY[:-1])
    assert cache.fetch(f"{server}/net.pkl", SHA, tmp_path).read_bytes() == BODY


@pytest.mark.parametrize(("page", "reason"), [("missing.bin", "HTTP 404"), ("cut.bin", "cannot download")])
def test_failed_downloads_are_one_line_and_leave_nothing(server, tmp_path, page, reason):
    with pytest.raises(UserError, match=reason) as e:
        cache.fetch(f"{server}/{page}", None, tmp_path)
    assert "\n" not in str(e.value)
    assert files(tmp_path) == []


@pytest.mark.parametrize(("name", "start"), [("tagged.bin", len(BODY) // 2 - 2**16), ("changed.bin", 0)])
def test_a_download_goes_on_where_it_was_cut_off(server, tmp_path, name, start):
    """By bytes of one and the same file: a server with another one sends it from the beginning."""
    with pytest.raises(UserError, match="the same command goes on from there"):
        cache.fetch(f"{server}/{name}", SHA, tmp_path)
    assert not cache.cached_path(f"{server}/{name}", tmp_path).exists()
    path = cache.fetch(f"{server}/{name}", SHA, tmp_path)
    assert path.read_bytes() == BODY
    assert Handler.starts[0] == 0
    assert start <= Handler.starts[1] <= (len(BODY) // 2 if start else 0)
    assert files(tmp_path) == [name]


def test_processes_fetch_one_file_once(server, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: cache.fetch(f"{server}/net.pkl", SHA, tmp_path), range(4)))
    assert len(set(found)) == 1
    assert found[0].read_bytes() == BODY
    assert len(Handler.hits) == 1


def test_offline_names_the_place_for_the_file(tmp_path):
    url = "http://127.0.0.1:9/net.pkl"  # the discard port: nothing listens
    with pytest.raises(UserError, match="cannot download") as e:
        cache.fetch(url, None, tmp_path)
    assert str(cache.cached_path(url, tmp_path)) in str(e.value)


def test_file_put_there_by_hand_is_used_offline(tmp_path):
    url = "http://127.0.0.1:9/net.pkl"
    path = cache.cached_path(url, tmp_path)
    path.parent.mkdir(parents=True)
    path.write_bytes(BODY)
    assert cache.fetch(url, SHA, tmp_path) == path


def test_cache_root_order(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv(cache.CACHE_VARIABLE, raising=False)
    assert cache.cache_root() == tmp_path / "xdg" / "styleloom"
    monkeypatch.setenv(cache.CACHE_VARIABLE, str(tmp_path / "own"))
    assert cache.cache_root() == tmp_path / "own"
    assert cache.cache_root(tmp_path) == tmp_path


def test_is_url():
    assert cache.is_url("https://example.org/a.pkl")
    assert not cache.is_url("runs/a.pkl")
    assert not cache.is_url("C:\\a.pkl")
