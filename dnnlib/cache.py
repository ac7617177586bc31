"""Downloads that happen once: a URL becomes a local file, checked by SHA-256 and never left half written."""

import hashlib
import os
import stat
import tempfile
import urllib.parse
from pathlib import Path

from dnnlib import hub
from dnnlib.download import download
from dnnlib.errors import UserError
from dnnlib.files import PART, sync_folder
from dnnlib.locks import Lock

CACHE_VARIABLE = "STYLELOOM_CACHE"
NETWORK_SUFFIXES = (".safetensors", ".pkl", ".pt")  # of what is fetched from the Hub where no file is named
_CHUNK = 1 << 20


def cache_root(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """The cache folder: `cache_dir`, else $STYLELOOM_CACHE, else `styleloom` in the user's cache folder."""
    if cache_dir is not None:
        return Path(cache_dir).expanduser()
    if os.environ.get(CACHE_VARIABLE):
        return Path(os.environ[CACHE_VARIABLE]).expanduser()
    return user_cache() / "styleloom"


def user_cache() -> Path:
    """$XDG_CACHE_HOME, else ~/.cache, else, where there is no home or it can't be written, a folder of this user's own
    under the temporary ones. UserError if somebody else has put something there."""
    configured = os.environ.get("XDG_CACHE_HOME")
    if configured:
        return Path(configured).expanduser()
    home = os.path.expanduser("~")
    if os.path.isabs(home) and _can_be_written(Path(home, ".cache")):
        return Path(home, ".cache")
    own = Path(tempfile.gettempdir(), f"styleloom-cache-{os.geteuid()}")
    try:
        own.mkdir(mode=0o700, exist_ok=True)
        found = own.lstat()
    except OSError as e:
        raise UserError(f"no folder for the cache: {own}: {e.strerror}; set XDG_CACHE_HOME to a writable one") from e
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        # What lies in a cache is run, so nobody else may have had a hand in it.
        raise UserError(f"no folder for the cache: {own} is not yours alone; set XDG_CACHE_HOME to a writable one")
    return own


def _can_be_written(folder: Path) -> bool:
    there = next(p for p in (folder, *folder.parents) if p.exists())
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def is_url(path_or_url: str | os.PathLike[str]) -> bool:
    """Whether the text is an address, of http(s) or on the Hugging Face Hub, rather than a local path."""
    return urllib.parse.urlparse(str(path_or_url)).scheme in ("http", "https") or hub.is_hub(path_or_url)


def fetch(url: str, sha256: str | None = None, cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Local path of a URL's content, downloaded on first use into `downloads/` of the cache folder. The networks of the
    Hugging Face Hub (hf://owner/name) lie in its own cache.

    With `sha256` (hex) the content is verified, whether it was just downloaded or lay in the cache; a cached file
    that no longer matches is fetched again. The file appears under its final name only when it is complete.
    Raises UserError if the address can't be reached (offline) or the content is not what was expected.
    """
    if hub.is_hub(url):
        return hub.fetch(url, "model", NETWORK_SUFFIXES)
    path = cached_path(url, cache_dir)
    if path.is_file() and (sha256 is None or file_sha256(path) == sha256):
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UserError(
            f"cannot keep {url} at {path}: {e.strerror or e}; set {CACHE_VARIABLE} to another folder"
        ) from e
    with Lock(path.with_name(f".{path.name}.lock"), taken=None):
        if path.is_file() and (sha256 is None or file_sha256(path) == sha256):
            return path  # another process has fetched it meanwhile
        part = path.with_name(f".{path.name}{PART}")
        download(url, part, destination=path)
        if sha256 is not None and (digest := file_sha256(part)) != sha256:
            part.unlink()
            raise UserError(f"{url}: wrong SHA-256 {digest}, expected {sha256}; the file is not kept")
        os.replace(part, path)
        sync_folder(path.parent)
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
