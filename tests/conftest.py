"""Shared by all tests: the checkout on the path, one thread of work per core, a fixed seed before each test."""

import os
import platform
import re
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
os.environ["STYLELOOM_PRECISION"] = "float32"  # of runs that leave it open, on any processor


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Detectors that cost nothing, a cache of their own, and metrics that other tests don't see."""
    from support.metric_toys import register_toys

    from dnnlib import cache
    from metrics import names
    from metrics.detectors import registry

    monkeypatch.setenv(cache.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(registry, "_DETECTORS", dict(registry._DETECTORS))
    monkeypatch.setattr(names, "KNOWN", dict(names.KNOWN))
    register_toys(tmp_path)
    registry._build.cache_clear()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int) -> None:
    """What the machine is, when something failed: numbers differ between processors."""
    if exitstatus:
        settings = {
            name: value for name, value in os.environ.items() if re.search(r"_ISA$|CAPABILITY$|_NUM_THREADS$", name)
        }
        cpuinfo = Path("/proc/cpuinfo")
        found = re.search(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else None
        terminalreporter.section("machine")
        terminalreporter.line(
            f"{found[1] if found else platform.machine()}, {os.cpu_count()} cores, "
            f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
            f"Python {platform.python_version()}, {settings or 'no settings of instruction sets or threads'}"
        )
