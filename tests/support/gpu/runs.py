"""Training on a device by the program that users run."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from support.gpu.steps import Setting, require
from training import networks

ROOT = Path(__file__).parents[3]
TINY = ("--g_dict=8,8", "--set=G.channel_base=128", "--set=D.channels=[8,8,8]", "--batch=8")
VARIANTS = {
    "float32": (),
    "bfloat16": ("--precision=bfloat16",),
    "float16": ("--precision=float16",),
    "compile": ("--compile=1",),
    "nhwc": ("--nhwc=1",),
}


def train(
    setting: Setting, name: str, *options: str, kimg: float | None = None, torchrun: bool = False
) -> dict[str, Any]:
    """Trains `demo` in a folder of its own -> seconds per kimg, peak memory and the run folder."""
    outdir = setting.work / name
    length = kimg or (0.016 if setting.is_small else 2)
    common = ["--cfg=demo", f"--outdir={outdir}", f"--kimg={length}", "--metrics=none", f"--tick={length / 2}"]
    tiny = TINY if setting.is_small else ()
    starter = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1"] if torchrun else []
    command = [sys.executable, *starter, str(ROOT / "train.py"), *common, *tiny, *options]
    hidden = {} if setting.device.type == "cuda" else {"CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **hidden})
    require(result.returncode == 0, f"{name}: {(result.stderr.strip().splitlines() or ['?'])[-1][:200]}")
    return measured(run_folder(outdir))


def run_folder(outdir: Path) -> Path:
    """The newest run in a folder of runs."""
    return max(path for path in outdir.iterdir() if path.is_dir())


def measured(run: Path) -> dict[str, Any]:
    """What the last line of a run's statistics says."""
    last = json.loads((run / "stats.jsonl").read_text().splitlines()[-1])
    values = {name: entry["mean"] for name, entry in last.items() if isinstance(entry, dict)}
    losses = [value for name, value in values.items() if name.startswith("Loss/")]
    require(bool(losses) and all(value == value for value in losses), f"{run.parent.name}: a loss is not a number")
    return {
        "run": str(run),
        "sec/kimg": round(values["Timing/sec_per_kimg"], 2),
        "peak GiB": round(values["Resources/peak_gpu_mem_gb"], 2),
    }


def variants(setting: Setting) -> dict[str, Any]:
    """2 kimg of `demo` with every precision, compiled, and channels last."""
    names = ("bfloat16",) if setting.is_small else tuple(VARIANTS)
    return {name: train(setting, name, "--gpus=1", *VARIANTS[name]) for name in names}


def final_network(run: str) -> dict[str, torch.Tensor]:
    """The generator that a run ended with."""
    newest = max(Path(run).glob("network-snapshot-*.pkl"), key=lambda path: path.stat().st_mtime)
    return networks.load(newest)["G"].state_dict()


def resume(setting: Setting) -> dict[str, Any]:
    """Half a run and its continuation against a whole one, and the whole one against itself: how far bits differ."""
    whole, again = (final_network(train(setting, n, "--gpus=1")["run"]) for n in ("whole", "again"))
    half = 0.008 if setting.is_small else 1
    first = train(setting, "halves", "--gpus=1", kimg=half)["run"]
    command = [sys.executable, str(ROOT / "train.py"), f"--resume={first}", f"--kimg={2 * half}"]
    result = subprocess.run(command, capture_output=True, text=True)
    require(result.returncode == 0, f"resume: {(result.stderr.strip().splitlines() or ['?'])[-1][:200]}")
    found = {"continued": difference(whole, final_network(first)), "repeated": difference(whole, again)}
    limit = max(2 * found["repeated"], 1e-2)
    require(found["continued"] <= limit, f"a continued run ends {found['continued']:.2g} from a whole one")
    return {"largest relative difference": found}


def difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """The largest over the tensors: |a - b| / |a|. 0: the same bits."""
    norms = ((float((a[k].double() - b[k].double()).norm()), float(a[k].double().norm())) for k in a)
    return max(d / max(n, 1e-12) for d, n in norms)


def processes(setting: Setting) -> dict[str, Any]:
    """All GPUs together (on a CPU two processes) against one: NCCL's group, and the same training. A single GPU is a
    group of one, started by torchrun."""
    count = 2 if setting.device.type == "cpu" else torch.cuda.device_count()
    same = ("--batch-gpu=4", f"--batch={4 * count}")
    one = final_network(train(setting, "one", "--gpus=1", *same)["run"])
    groups = {"torchrun": train(setting, "group", *same, torchrun=True)}
    if count > 1:
        groups["many"] = train(setting, "many", f"--gpus={count}", *same)
    found = {name: difference(one, final_network(group["run"])) for name, group in groups.items()}
    for name, far in found.items():
        require(
            far < 1e-2, f"{name}: {count if name == 'many' else 1} processes end {far:.2g} from one without a group"
        )
    return {"processes": count, "sec/kimg": {n: g["sec/kimg"] for n, g in groups.items()}, "from one process": found}
