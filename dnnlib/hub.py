"""Files of the Hugging Face Hub by address: `hf://owner/name[@revision][/file]`.

They lie in the cache of the Hub's own programs ($HF_HOME); the library resumes and checks downloads. $HF_ENDPOINT names
another server, as for those programs.
"""

import contextlib
import os
import re
import urllib.parse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from dnnlib.errors import UserError
from dnnlib.progress import tqdm

RepoType = Literal["model", "dataset"]
SCHEME = "hf://"
_ADDRESS = re.compile(r"hf://(?:(datasets|models)/)?([\w.-]+/[\w.-]+)(?:@([^/]+))?(?:/(.+))?")
_CONVERTED = "refs/convert/parquet"  # where the Hub keeps tables that it made of data sets in other forms
_SHOWN = 8  # names that a message lists
_TOKEN = re.compile(r"hf_\w+")


@dataclass(frozen=True)
class Address:
    """A repository, and perhaps a file in it."""

    kind: RepoType
    repo: str
    revision: str | None
    file: str | None


def is_hub(path: str | os.PathLike[str]) -> bool:
    """Whether the text is an address on the Hub."""
    return str(path).startswith(SCHEME)


def parse(text: str, kind: RepoType) -> Address:
    """An address that names a repository of this kind. UserError for what is none."""
    match = _ADDRESS.fullmatch(text.rstrip("/"))
    if match is None or ".." in text:
        raise UserError(f"{text}: an address on the Hub reads hf://owner/name or hf://owner/name/file")
    prefix, repo, revision, file = match.groups()
    if prefix is not None and prefix != f"{kind}s":
        raise UserError(f"{text} names one of the Hub's {prefix}; a {kind} is wanted here")
    return Address(kind, repo, None if revision is None else urllib.parse.unquote(revision), file)


def fetch(text: str, kind: RepoType, suffixes: Sequence[str], may_download: bool = True) -> Path:
    """The local path of a file on the Hub, downloaded at the first use. Where the address names none, that of the only
    file with one of the suffixes, or of the newest snapshot of a training.

    UserError if there is no such file, repository or connection; without one, what was downloaded before is found, and
    only that if nothing may be downloaded.
    """
    address = parse(text, kind)
    hub = library(text)
    file = address.file or _only_file(hub, text, address, suffixes)
    return _download(hub, text, address, file, may_download)


def fetch_tables(text: str) -> Path:
    """The folder of a data set's Parquet tables, downloaded; those that the Hub made itself where it has no others.

    Where the address names a file, the path of that. UserError as `fetch`.
    """
    address = parse(text, "dataset")
    hub = library(text)
    if address.file is not None:
        return fetch(text, "dataset", ())
    address, tables = _tables(hub, text, address)
    folders = sorted({name.rpartition("/")[0] for name in tables})
    if not tables:
        raise UserError(f"{text} holds no Parquet tables; name a file, such as {text.rstrip('/')}/pictures.zip")
    if len(folders) > 1:
        shown = ", ".join(folder or "the top" for folder in folders[:_SHOWN])
        raise UserError(f"{text} has tables in several folders ({shown}): name one file of them")
    paths = [_download(hub, text, address, name) for name in tqdm(tables, unit="table", disable=None, leave=False)]
    return paths[0].parent


def library(what: str) -> Any:
    """The package huggingface_hub; UserError where it is missing, naming what wants it."""
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as e:
        raise UserError(f"{what} needs the package huggingface_hub: pip install 'styleloom[hub]'") from e
    return huggingface_hub


def endpoint() -> str | None:
    """The server that the environment names, if it names one."""
    return os.environ.get("HF_ENDPOINT") or None


@contextlib.contextmanager
def one_line(hub: Any, text: str) -> Iterator[None]:
    """Turns what the library raises, many lines with links, into one, which never holds a token."""
    errors = hub.errors
    try:
        yield
    except (errors.GatedRepoError, errors.RepositoryNotFoundError) as e:
        raise UserError(f"{text}: there is no such repository, or it wants a token: hf auth login, or HF_TOKEN") from e
    except errors.RevisionNotFoundError as e:
        raise UserError(f"{text}: the repository has no such revision") from e
    except errors.LocalEntryNotFoundError as e:
        raise UserError(f"cannot download {text}: there is no connection, and it was not downloaded before") from e
    except errors.EntryNotFoundError as e:
        raise UserError(f"{text}: the repository has no such file") from e
    except (errors.HfHubHTTPError, errors.HFValidationError, ConnectionError, OSError) as e:
        raise UserError(f"{text}: {type(e).__name__}: {without_tokens(str(e))}") from e
    except Exception as e:
        if type(e).__module__.partition(".")[0] not in ("httpx", "httpx2", "httpcore"):
            raise
        raise UserError(f"cannot reach the Hub for {text}: {type(e).__name__}: {without_tokens(str(e))}") from e


def without_tokens(text: str) -> str:
    """The first line of a message, with whatever looks like a token left out."""
    return _TOKEN.sub("hf_...", text.strip().partition("\n")[0])[:200]


def _download(hub: Any, text: str, address: Address, file: str, may_download: bool = True) -> Path:
    place = {"repo_type": address.kind, "revision": address.revision, "endpoint": endpoint()}
    with one_line(hub, text):
        return Path(hub.hf_hub_download(address.repo, file, **place, local_files_only=not may_download))


def _tables(hub: Any, text: str, address: Address) -> tuple[Address, list[str]]:
    """The names of the tables, and the revision that has them."""
    found = sorted(name for name in _files(hub, text, address) if name.endswith(".parquet"))
    if found or address.revision is not None:
        return address, found
    converted = replace(address, revision=_CONVERTED)
    try:
        return converted, sorted(name for name in _files(hub, text, converted) if name.endswith(".parquet"))
    except UserError as e:
        if not isinstance(e.__cause__, hub.errors.RevisionNotFoundError):
            raise
        return address, []


def _only_file(hub: Any, text: str, address: Address, suffixes: Sequence[str]) -> str:
    found = [name for name in _files(hub, text, address) if name.endswith(tuple(suffixes))]
    snapshots = [name for name in found if re.fullmatch(r"network-snapshot-\d+\.pkl", name.rpartition("/")[2])]
    if snapshots and len(snapshots) == len(found):
        return max(snapshots, key=lambda name: (len(name), name))
    if len(found) != 1:
        names = ", ".join(sorted(found)[:_SHOWN]) if found else f"no file that ends in {', '.join(suffixes)}"
        raise UserError(f"{text} holds {names}; name the file: {text.rstrip('/')}/FILE")
    return found[0]


def _files(hub: Any, text: str, address: Address) -> list[str]:
    """The names of a repository's files; without a connection, of those that were downloaded before."""
    try:
        with one_line(hub, text):
            return list(
                hub.HfApi(endpoint=endpoint()).list_repo_files(
                    address.repo, repo_type=address.kind, revision=address.revision
                )
            )
    except UserError as e:
        if isinstance(e.__cause__, (hub.errors.RepositoryNotFoundError, hub.errors.RevisionNotFoundError)):
            raise
        try:
            folder = Path(
                hub.snapshot_download(
                    address.repo, repo_type=address.kind, revision=address.revision, local_files_only=True
                )
            )
        except hub.errors.LocalEntryNotFoundError:
            raise e from None
        return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
