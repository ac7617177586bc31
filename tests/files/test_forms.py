"""Which form a file has: no length of a safetensors header may look like something else."""

import json
import struct

import pytest
import safetensors.torch
import torch

from dnnlib.errors import UserError
from torch_utils.files.forms import form_of
from training import networks
from training.augment.pipe import PRESETS, AugmentPipe
from training.networks import files


def test_our_safetensors_load_at_every_length_of_the_header(tmp_path):
    """256 files whose headers differ in length, through all remainders that the first byte can show."""
    seen = set()
    for i in range(2100):
        path = tmp_path / "x.safetensors"
        if i < 256 * 8 and len(seen) < 32:  # the library pads headers to multiples of 8
            networks.save(path, {"augment_pipe": AugmentPipe(PRESETS["bgc"])}, provenance={"note": "x" * i})
            (length,) = struct.unpack("<Q", path.read_bytes()[:8])
            if length % 256 not in seen:
                seen.add(length % 256)
                assert files.read(path).provenance["note"] == "x" * i
    assert len(seen) == 32
    assert 0x80 in seen


def header(length: int) -> bytes:
    text = json.dumps({"__metadata__": {"a": ""}})
    return (text + " " * (length - len(text))).encode()


@pytest.mark.parametrize("high", [0, 2, 3, 4, 5])
def test_all_256_remainders_and_all_pickle_protocols_in_the_second_byte(high):
    for low in range(256):
        length = (high << 8) + low
        if length < 40:
            length += 1 << 16
        assert form_of(struct.pack("<Q", length) + header(length)) == "safetensors"


def test_a_header_that_begins_as_a_zip_file_or_a_stream_of_torch_does():
    length = int.from_bytes(b"PK\x03\x04", "little")
    assert length > 16 * 2**20, "so long a header is not read, and the file not taken for one"
    safetensors_of_someone_else = safetensors.torch.save({"a": torch.zeros(3)}, {"x": "y"})
    assert form_of(safetensors_of_someone_else) == "safetensors"


@pytest.mark.parametrize("low", [0x80, 0x28])
def test_a_damaged_safetensors_file_is_called_so(low, tmp_path):
    for second in (0, 2, 4):
        length = (1 << 16) + (second << 8) + low
        data = bytearray(struct.pack("<Q", length) + header(length))
        data[30] = 0xFF
        (tmp_path / "x").write_bytes(data)
        with pytest.raises(UserError, match="is damaged"):
            files.read(tmp_path / "x")
