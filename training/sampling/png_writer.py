"""Encodes and writes pictures in a process of its own, so that this Python's work doesn't hold up the network's.

Started by `bulk.py` with the folder as argument; reads records from its standard input until that ends, be it because
the sender was killed: index, height, width, channels as four little-endian uint32, then the pixels. Imports no torch.
"""

import signal
import struct
import sys
from pathlib import Path

import numpy as np

from dnnlib.errors import UserError
from dnnlib.files import write_file
from training.conversion.png import encode_png, image_name

HEADER = struct.Struct("<4I")


def main(folder: Path) -> None:
    """Until the end of the input. A record that is cut off is dropped."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the sender, whose end ends this
    source = sys.stdin.buffer
    while len(header := source.read(HEADER.size)) == HEADER.size:
        index, height, width, channels = HEADER.unpack(header)
        data = source.read(height * width * channels)
        if len(data) < height * width * channels:
            return
        path = folder / image_name(index)
        path.parent.mkdir(exist_ok=True)
        picture = np.frombuffer(data, np.uint8).reshape(height, width, channels)
        write_file(path, encode_png(picture), durable=False)  # each on its own would wait for the disk


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except UserError as e:
        sys.exit(str(e))
    except OSError as e:
        sys.exit(e.strerror or str(e))
