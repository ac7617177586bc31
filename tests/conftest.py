"""Shared by all tests: the checkout on the path, one thread of work per core, a fixed seed before each test."""

import os
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
if "PYTEST_XDIST_WORKER" in os.environ:
    # One worker per core: threads of several workers would only wait for each other, and so would their children's.
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
