"""Downloads that happen once: a URL becomes a local file, checked by SHA-256 and never left half written."""

import hashlib
import os
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import requests

from dnnlib.errors import UserError
from dnnlib.files import WriteError, atomic_path

CACHE_VARIABLE = "STYLELOOM_CACHE"
_CHUNK = 1 << 20
_TIMEOUT = 30  # seconds without a byte


def cache_root(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """The cache folder: `cache_dir`, else $STYLELOOM_CACHE, else $XDG_CACHE_HOME/styleloom, else ~/.cache/styleloom."""
    if cache_dir is not None:
        return Path(cache_dir).expanduser()
    if os.environ.get(CACHE_VARIABLE):
        return Path(os.environ[CACHE_VARIABLE]).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "styleloom"


def is_url(path_or_url: str | os.PathLike[str]) -> bool:
    """Whether the text is an http(s) address rather than a local path."""
    return urllib.parse.urlparse(str(path_or_url)).scheme in ("http", "https")


def fetch(url: str, sha256: str | None = None, cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Local path of a URL's content, downloaded on first use into `downloads/` of the cache folder.

    With `sha256` (hex) the content is verified, whether it was just downloaded or lay in the cache; a cached file
    that no longer matches is fetched again. The file appears under its final name only when it is complete.
    Raises UserError if the address can't be reached (offline) or the content is not what was expected.
    """
    path = cached_path(url, cache_dir)
    if path.is_file() and (sha256 is None or file_sha256(path) == sha256):
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise WriteError(path, e) from e
    with atomic_path(path) as part:
        digest = _download(url, part, destination=path)
        if sha256 is not None and digest != sha256:
            raise UserError(f"{url}: wrong SHA-256 {digest}, expected {sha256}; the file is not kept")
    return path


def cached_path(url: str, cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Where `fetch` keeps the content of `url`: one folder per URL, so that the file's own name stays as published."""
    name = urllib.parse.unquote(urllib.parse.urlparse(url).path.rstrip("/").rpartition("/")[2])
    safe = "".join(ch if ch.isalnum() or ch in "-_." else "_" for ch in name).lstrip(".") or "index"
    return cache_root(cache_dir) / "downloads" / hashlib.sha256(url.encode()).hexdigest()[:16] / safe


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Hex SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _download(url: str, part: Path, destination: Path) -> str:
    """Streams `url` into the file `part`; returns the hex SHA-256 of what arrived."""
    digest = hashlib.sha256()
    try:
        with requests.get(url, stream=True, timeout=_TIMEOUT) as response, open(part, "wb") as file:
            response.raise_for_status()
            for chunk in _checked_chunks(response):
                digest.update(chunk)
                file.write(chunk)
    except requests.RequestException as e:
        reason = f"HTTP {e.response.status_code}" if e.response is not None else type(e).__name__
        raise UserError(
            f"cannot download {url} ({reason}); without a connection, put the file at {destination} yourself"
        ) from e
    except OSError as e:
        raise WriteError(destination, e) from e
    return digest.hexdigest()


def _checked_chunks(response: requests.Response) -> Iterator[bytes]:
    """The body in chunks; a body shorter than its announced length is an error, not a short file."""
    announced = response.headers.get("Content-Length")
    is_plain = response.headers.get("Content-Encoding", "identity") == "identity"
    received = 0
    for chunk in response.iter_content(_CHUNK):
        received += len(chunk)
        yield chunk
    if announced is not None and is_plain and received != int(announced):
        raise requests.ConnectionError(f"{received} of {announced} bytes arrived")
