"""Locks between processes. They end with the process that holds them, however it ends, and work on Windows too."""

import contextlib
import errno
import logging
import os
from pathlib import Path

from filelock import FileLock, Timeout

from dnnlib.errors import UserError
from dnnlib.files import StrPath, WriteError

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_log = logging.getLogger(__name__)


class Lock:
    """A held lock, which is the file `path` while it is held. Also a context manager."""

    def __init__(self, path: StrPath, taken: str | None) -> None:
        """Takes the lock; where another process holds it, waits, or with `taken` raises UserError of that message.

        Raises WriteError if the file can't be made. A file system without locks (some network drives) gets along
        without, with a line in the log.
        """
        self._path = Path(path)
        timeout = -1 if taken is None else 0
        self._lock: FileLock | None = FileLock(path, timeout=timeout, fallback_to_soft=False, thread_local=False)
        if self._path.is_symlink():
            raise WriteError(path, "it is a link")
        try:
            self._lock.acquire()
        except Timeout:
            raise UserError(taken or "") from None
        except (NotImplementedError, OSError) as e:
            if isinstance(e, OSError) and e.errno not in _NO_LOCKS:
                raise WriteError(path, e) from e
            _log.info("no file lock on %s (%s)", path, e)
            self._lock = None

    def release(self) -> None:
        """Gives the lock up and removes its file. Nothing happens if that was done before."""
        if self._lock is None:
            return
        if os.name == "posix":  # who has opened it meanwhile finds out that it has no name any more, and tries again
            with contextlib.suppress(OSError):
                self._path.unlink()
        self._lock.release()
        self._lock = None

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()
