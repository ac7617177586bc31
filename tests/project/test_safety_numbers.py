"""docs/safety.md states its limits as numbers: those of the code."""

import re
from pathlib import Path

import pytest
import torch

from dnnlib import config, files
from torch_utils import meta_init
from torch_utils.files import forms, safe_pickle, torch_files
from training.conversion.sources import mnist, parquet, tar_access
from training.dataset import labels, pictures, zip_reader
from training.run import optimizer_state, state_checks
from training.sampling import seeds

PAGE = Path(__file__).parents[2] / "docs" / "safety.md"
MIB = 2**20

STATED = {
    "at most {:,} instructions": safe_pickle.MAX_OPCODES,
    "within one file together {:,}": safe_pickle.MAX_PICKLES * safe_pickle.MAX_OPCODES,
    "containers nest {} deep": safe_pickle.MAX_DEPTH,
    "integers have {} bytes": safe_pickle.MAX_INTEGER_BYTES,
    "keys {:,} characters": safe_pickle.MAX_NAME,
    "tensors {} dimensions": torch_files._MAX_SIDES,
    "up to **{} times the file's size": safe_pickle.EXPANSION,
    "size plus {} MiB**": safe_pickle.ALLOWANCE // MIB,
    "A safetensors header has at most {} MiB": forms.MAX_HEADER // MIB,
    "a zip file of torch's {:,} entries": torch_files._MAX_ENTRIES,
    "lists have at most {:,} entries": config.MAX_LENGTH,
    "texts {:,} characters": config.MAX_TEXT,
    "`--projected-w` takes unpack to at most {} MiB": seeds.MAX_PROJECTED // MIB,
    "`training_options.json` has at most {} MiB": files.MAX_JSON // MIB,
    "file of more than {} MiB counts as absent": files.MAX_LINES_FILE // MIB,
    "the first {:,} lines are read": files.MAX_LINES,
    "lists have at most {:,} entries, names": state_checks.MAX_NAMED,
    "more than {:,} pixels are left out": pictures.MAX_PIXELS,
    "JPEGs of more than {} scans": pictures.MAX_SCANS,
    "A file in one may have {} MiB": zip_reader.MEMBER_LIMIT // MIB,
    "one in a tar {} MiB": tar_access.HEADER_LIMIT // MIB,
    "files {:,} pixels a side": mnist._MAX_SIDE,
    "unpacks to more than {} MiB": parquet._FREE_BYTES // MIB,
    "and {} times its size is refused": parquet._RATIO,
    "JSON of at most {} MiB": labels._BYTES // MIB,
    "plus {} KiB for each picture": labels._BYTES_AN_IMAGE // 1024,
    "classes are numbers below {:,}": labels.CLASS_LIMIT,
}


def stated() -> str:
    return " ".join(PAGE.read_text(encoding="utf-8").split())


@pytest.mark.parametrize("phrase", list(STATED))
def test_a_limit_is_stated_as_it_is(phrase):
    assert phrase.format(STATED[phrase]) in stated()


def test_the_ranges_of_a_config_are_stated():
    layers, side = (hint.__metadata__[0].high for hint in (config.Layers, config.Side))
    assert f"layers up to {layers:,}, sides and channels up to {side:,}, classes up to {2**20:,}" in stated()
    assert config.MAX_NUMBER == 2**53 == optimizer_state.MAX_STEP == state_checks.MAX_COUNT
    assert "finite, at most 2^53" in stated()
    assert "counts from 0 to 2^53" in stated()


def test_the_size_of_a_network_is_bounded_as_stated():
    found = re.search(r"ask for (\d+) times the numbers .* plus ([\d,]+)\. A safe", stated())
    factor, more = (int(number.replace(",", "")) for number in found.groups())
    assert meta_init._Construction({"x": torch.zeros(30)}, blank=True).elements_left == 30 * factor + more


def test_nine_formats():
    assert len(pictures.FORMATS) == 9
    assert "nine formats only" in stated()
