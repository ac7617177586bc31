"""The two exceptions that mean "the user can mend this"; every front end shows them as one line, exit status 2."""


class UserError(Exception):
    """Bad input. The message is one line: what is wrong and what to do about it."""


class ConfigError(UserError):
    """A config field that does not exist, or a value that does not fit its field."""
