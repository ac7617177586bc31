"""The pictures that come with the project: 32x32 emoji, in noto-emoji-32.zip; where from, the text beside it says."""

import os
from pathlib import Path

EMBEDDED = str(Path(__file__).with_name("noto-emoji-32.zip"))
_IN_THE_CHECKOUT = "datasets/noto-emoji-32.zip"  # the name that commands, and files of earlier versions, know it by


def located(path: str) -> str:
    """`path`, or the embedded pictures where it names them and nothing is there: their name works in any folder."""
    return EMBEDDED if path == _IN_THE_CHECKOUT and not os.path.exists(path) else path
