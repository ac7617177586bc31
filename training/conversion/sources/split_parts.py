"""Sources that consist of named parts, such as train and test."""

from dnnlib.errors import UserError


def choose_parts(wanted: str | None, default: str, known: tuple[str, ...]) -> list[str]:
    """`train+test` -> ["train", "test"]. Raises UserError if a part isn't known or comes twice."""
    parts = (wanted or default).split("+")
    unknown = [part for part in parts if part not in known]
    if unknown or len(set(parts)) != len(parts):
        raise UserError(f"--split={wanted}: this source has the parts {', '.join(known)}; join several by +")
    return parts
