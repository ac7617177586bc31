"""The two exceptions that mean "the user can mend this"; every front end shows them as one line, exit status 2."""

import errno

_MENDABLE = {  # errors of files and disks -> what to do
    errno.ENOSPC: "free some, or choose another place",
    errno.EDQUOT: "free some, or choose another place",
    errno.EFBIG: "choose another place",
    errno.EROFS: "choose another place",
    errno.EACCES: "choose another place, or mend its permissions",
    errno.EPERM: "choose another place, or mend its permissions",
    errno.ENOENT: "make the folder, or correct the path",
    errno.ENOTDIR: "correct the path",
    errno.EISDIR: "correct the path",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EIO: "look at the disk",
}


class UserError(Exception):
    """Bad input. The message is one line: what is wrong and what to do about it."""


class ConfigError(UserError):
    """A config field that does not exist, or a value that does not fit its field."""


def disk_error(error: OSError) -> UserError | None:
    """What a file or disk refused, as one line; None for errors of another kind, which are no user's matter."""
    if error.errno not in _MENDABLE:
        return None
    what = f"{error.filename}: " if error.filename else "while writing: "
    return UserError(f"{what}{error.strerror}; {_MENDABLE[error.errno]}")
