"""Shared by all tests: the checkout on the path, one thread of work per core, a fixed seed before each test."""

import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
