"""Ctrl-C while a metric runs: one line, status 130, and no half of anything."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.dataset_samples import pictures, png

ROOT = Path(__file__).parents[2]

# A detector of which every batch takes long, as Inception's does on a CPU.
SLOW = r"""
import os
import time
import torch
from metrics.detectors import DetectorInfo, register_detector

class Slow(torch.nn.Module):
    resize_mode = "none"

    def forward(self, images, outputs):
        os.write(1, b"measuring\n")
        time.sleep(60)

register_detector(DetectorInfo(
    name="slow", version="1", outputs=("features",), input_size=8, resize_mode="none", licence="MIT", source="a test",
    build=lambda path, mode: Slow(), file_name="slow.txt", file_mb=0,
))
"""


def command(folder: Path, *more: str) -> list[str]:
    (folder / "slow.py").write_text(SLOW)
    (folder / "slow.txt").write_text("weights")
    (folder / "images").mkdir()
    for i, pixels in enumerate(pictures(8, 8, 8)):
        (folder / "images" / f"{i}.png").write_bytes(png(pixels))
    job = ["--metrics=kid1k_slow", "--baseline=mean"]
    job += [f"--detector=slow={folder}/slow.txt", f"--import={folder}/slow.py"]
    return [sys.executable, "calc_metrics.py", *job, f"--data={folder}/images", f"--outdir={folder}", *more]


@pytest.mark.parametrize("gpus", [1, 2])
def test_a_metric_is_interrupted_at_once(gpus, tmp_path):
    process = subprocess.Popen(
        command(tmp_path, f"--gpus={gpus}"),
        cwd=ROOT,
        env=os.environ | {"STYLELOOM_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a group of its own, which gets Ctrl-C as a terminal's would
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    for _ in range(gpus):
        assert process.stdout.readline() == "measuring\n"
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.strip() == "interrupted; the same command again starts from the beginning"
    assert out == ""
    assert not list(tmp_path.rglob("*.part"))
    assert not list(tmp_path.glob("metric-*"))
