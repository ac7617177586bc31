"""Makes training/dataset/embedded/noto-emoji-32.zip from the npm package emoji-datasource-google 16.0.0.

    npm pack emoji-datasource-google@16.0.0
    python -m training.conversion.noto_emoji --package=emoji-datasource-google-16.0.0.tgz --dest=noto-emoji-32.zip

Same package, same bytes (with the same Pillow version).
"""

import hashlib
import io
import json
import tarfile
from typing import Any

import click
import numpy as np
from PIL import Image

import dnnlib.cli
from dnnlib.errors import UserError
from training.conversion.destination import open_destination
from training.conversion.png import SMALL, encode_png

SIZE = 32  # pixels
_PICTURES = "package/img/google/64/"
_DROPPED_CATEGORY = "Component"  # five swatches of skin colour


def emoji_list(package: tarfile.TarFile) -> list[dict[str, Any]]:
    """The emoji to use, in Unicode's order. Skin tones are variations inside an entry, so they never come up."""
    entries = json.loads(_member(package, "package/emoji.json"))
    chosen = [e for e in entries if e["has_img_google"] and e["category"] != _DROPPED_CATEGORY]
    return sorted(chosen, key=lambda e: (e["sort_order"], e["unified"]))


def to_pixels(data: bytes) -> np.ndarray:
    """A PNG with transparency -> uint8 [32, 32, 3] over white.

    The mean over pixel blocks (box) is what a display shows of it at half size, and adds no ringing at edges.
    """
    picture = Image.open(io.BytesIO(data)).convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    flat = Image.alpha_composite(white, picture).convert("RGB")
    return np.asarray(flat.resize((SIZE, SIZE), Image.Resampling.BOX))


@click.command(cls=dnnlib.cli.Command)
@click.option("--package", help="emoji-datasource-google-16.0.0.tgz", type=dnnlib.cli.PATH, required=True)
@click.option("--dest", help="The zip to write", type=dnnlib.cli.PATH, required=True)
def main(package: str, dest: str) -> None:
    """Makes the embedded emoji data set from its npm package."""
    try:
        with tarfile.open(package) as tar:
            count, dropped, classes = _convert(tar, dest)
    except (OSError, tarfile.TarError, KeyError) as e:
        raise UserError(f"{package} is not the npm package emoji-datasource-google: {e}") from e
    click.echo(f"{count} emoji in {dest}, {dropped} pixel-identical ones dropped")
    for number, name in enumerate(classes):
        click.echo(f"  class {number}: {name}")


def _convert(tar: tarfile.TarFile, dest: str) -> tuple[int, int, list[str]]:
    emoji = emoji_list(tar)
    classes = list(dict.fromkeys(e["category"] for e in emoji))  # in Unicode's order
    pictures = {m.name: m for m in tar.getmembers() if m.name.startswith(_PICTURES)}
    seen: set[bytes] = set()
    with open_destination(dest) as out:
        out.classes = classes
        for entry in emoji:
            pixels = to_pixels(_read(tar, pictures[_PICTURES + entry["image"]]))
            key = hashlib.sha256(pixels.tobytes()).digest()
            if key not in seen:
                seen.add(key)
                out.add(encode_png(pixels, SMALL), classes.index(entry["category"]))
    return len(seen), len(emoji) - len(seen), classes


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    return _read(tar, tar.getmember(name))


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    content = tar.extractfile(member)
    if content is None:
        raise KeyError(member.name)
    return content.read()


if __name__ == "__main__":
    main()
