"""Text from outside made fit to stand in a message."""


def printable(name: str, limit: int = 120) -> str:
    """A name from outside, safe and short enough to print: control characters escaped, the middle left out."""
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)
    return text if len(text) <= limit else f"{text[: limit // 2]}...{text[-limit // 2 + 3 :]}"


def one_line(error: Exception, limit: int = 200) -> str:
    """What a library says of a damaged file."""
    return printable(" ".join(f"{error or type(error).__name__}".split()), limit)
