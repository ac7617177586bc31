"""One download by HTTP: with a bar, checked for its length, and continued where an earlier one was cut off."""

import contextlib
import os
from pathlib import Path
from typing import Any, BinaryIO

import requests

from dnnlib.errors import UserError
from dnnlib.files import WriteError
from dnnlib.progress import tqdm

_CHUNK = 1 << 16  # what is lost at most when a connection breaks
_TIMEOUT = 30  # seconds without a byte
_MOST_TAG = 1000  # bytes of an ETag


def download(url: str, part: Path, destination: Path) -> None:
    """The content of `url` as the file `part`. What an earlier call left there is continued, if the server says that
    its file is still the same (by a strong ETag); otherwise nothing is left after a failure.

    Raises UserError, naming `destination` as the place for a file that is fetched by other means; WriteError.
    """
    tag_file = part.with_name(f"{part.name}.etag")
    try:
        known, offset = _left_there(part, tag_file)
        headers = {"Range": f"bytes={offset}-", "If-Range": known} if offset else {}
        with requests.get(url, stream=True, timeout=_TIMEOUT, headers=headers) as response:
            response.raise_for_status()
            if response.status_code != requests.codes.partial_content:
                offset = 0
            _remember(response, tag_file)
            with open(part, "ab" if offset else "wb") as file:
                _receive(response, file, offset, destination.name)
    except requests.RequestException as e:
        if not tag_file.exists():
            part.unlink(missing_ok=True)
        reason = f"HTTP {e.response.status_code}" if e.response is not None else type(e).__name__
        again = "; the same command goes on from there" if part.exists() else ""
        raise UserError(
            f"cannot download {url} ({reason}){again}; without a connection, put the file at {destination} yourself"
        ) from e
    except OSError as e:
        raise WriteError(destination, e) from e
    tag_file.unlink(missing_ok=True)


def _left_there(part: Path, tag_file: Path) -> tuple[str, int]:
    """The ETag and the size of what an earlier download left; size 0 where there is nothing to go on from."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        tag = tag_file.read_bytes()[:_MOST_TAG].decode("ascii")
        if tag and tag.isprintable() and not part.is_symlink():
            return tag, part.stat().st_size
    return "", 0


def _remember(response: requests.Response, tag_file: Path) -> None:
    """Keeps the ETag of a file that can be continued; a weak one promises no equal bytes."""
    tag = response.headers.get("ETag", "")
    if tag.startswith('"') and "Content-Encoding" not in response.headers and tag.isascii() and len(tag) < _MOST_TAG:
        tag_file.write_text(tag, encoding="ascii")
    else:
        tag_file.unlink(missing_ok=True)


def _receive(response: requests.Response, file: BinaryIO, offset: int, name: str) -> None:
    """Writes the body; one shorter than its announced length is an error, not a short file."""
    announced = response.headers.get("Content-Length")
    is_plain = response.headers.get("Content-Encoding", "identity") == "identity"
    total = offset + int(announced) if announced is not None and is_plain else None
    received = offset
    options: dict[str, Any] = {"unit": "B", "unit_scale": True, "unit_divisor": 1024, "disable": None, "leave": False}
    with tqdm(total=total, initial=offset, desc=name, **options) as bar:
        for chunk in response.iter_content(_CHUNK):
            file.write(chunk)
            received += len(chunk)
            bar.update(len(chunk))
    file.flush()
    os.fsync(file.fileno())
    if total is not None and received != total:
        raise requests.ConnectionError(f"{received} of {total} bytes arrived")
