"""Runs the commands of the pages as they stand, in this process and with small sizes.

A train.py command first resolves as written (`--dry-run`); then, unless its block is marked so, it trains for one step
with networks cut down by `--set`, and its network takes the name that the full length would have given.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from torch.distributed.run import get_args_parser

import calc_metrics
import dataset_tool
import generate
import train
import training.networks.__main__
import training.sampling.demo
from styleloom.__main__ import COMMANDS
from support.docs import stand_ins
from support.docs.pages import ROOT
from support.docs.shell import Call, Shell

SCRIPTS: dict[str, click.Command] = {
    "train.py": train.main,
    "generate.py": generate.main,
    "calc_metrics.py": calc_metrics.main,
    "dataset_tool.py": dataset_tool.main,
    "-m training.networks": training.networks.__main__.main,
    "-m training.sampling.demo": training.sampling.demo.main,
}
INPUTS = (
    "--network",
    "--held-out",
    "--source",
    "--target",
    "--images",
    "--resume",
    "--projected-w",
    "--detector",
    "--label-file",
    "--autoencoder",
)
SMALLER = {
    "count": ["--count=8"],
    "bench": ["--seconds=0"],
    "walk": ["--frames=1"],
    "project": ["--steps=2"],
    "explore": ["--port=0", "--no-open"],
}  # what generate.py's commands get besides what is written
SBATCH = ("job-name", "nodes", "ntasks-per-node", "gpus-per-node", "cpus-per-task", "mem", "time", "signal", "output",
          "requeue", "open-mode", "partition", "account")  # fmt: skip
SLURM = {
    "SLURM_NNODES": "2",
    "SLURM_JOB_ID": "7",
    "SLURM_JOB_NODELIST": "node[1-2]",
    "SLURM_NODEID": "0",
    "SLURM_GPUS_ON_NODE": "8",
    "SLURM_CPUS_PER_TASK": "16",
}


class Runner:
    """Runs one page's commands in a folder of their own, which files and variables of its blocks accumulate in."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, processes: tuple[str, ...] = ()):
        self.folder = stand_ins.checkout(folder)
        (self.folder / "styleloom").symlink_to(self.folder)
        self._monkeypatch = monkeypatch
        self._in_processes = list(processes)  # scripts whose first command runs as a process
        self._commands: dict[str, Callable[[Call], str]] = {
            "python": self._python,
            "torchrun": self._torchrun,
            "styleloom": self._styleloom,
            "pip": self._pip,
            "git": self._git,
            "srun": self._srun,
            "sbatch": self._sbatch,
            "scontrol": lambda call: "node1\nnode2\n",
            "tensorboard": self._tensorboard,
        }
        self._is_dry = False
        self._shell = Shell(self.folder, self._commands, self._answer)

    def run(self, text: str, is_dry: bool) -> None:
        """A shell block. AssertionError, with what it printed, for a command that fails."""
        self._is_dry = is_dry
        self._shell.run(text)

    def _answer(self, call: Call) -> str:
        with self._monkeypatch.context() as patch:
            patch.chdir(call.folder)
            for name, value in call.env.items():
                if name.startswith(("STYLELOOM_", "CUDA_", "OMP_", "TORCH_", "WANDB_")):
                    patch.setenv(name, value)
            return self._commands[call.name](call)

    # -- python -------------------------------------------------------------------------------------------------------

    def _python(self, call: Call) -> str:
        count = 2 if call.args[0] == "-m" else 1
        script, args = " ".join(call.args[:count]), call.args[count:]
        if script == "train.py":
            return self._train(args)
        if script in SCRIPTS:
            return self._other_script(script, args)
        if script.startswith("benchmarks/"):
            return _check_words(ROOT / script, args)
        if script in ("-m pytest", "-m venv"):
            return ""
        if script == "-m torch_utils.ops":
            return _process(call)
        raise AssertionError(f"no test knows how to run: python {' '.join(call.args)}")

    def _styleloom(self, call: Call) -> str:
        name, *args = call.args
        module = COMMANDS[name][0].removeprefix("styleloom.scripts.")
        script = {"training.networks.__main__": ["-m", "training.networks"]}.get(module, [f"{module}.py"])
        return self._python(Call("python", call.folder, [*script, *args], call.env))

    def _other_script(self, script: str, args: list[str]) -> str:
        if self._is_dry and script != "dataset_tool.py":
            return parse(script, args)
        self._make_inputs(args)
        if script == "generate.py" and args and args[0] in SMALLER and "--help" not in args:
            args = [*args, *SMALLER[args[0]]]
        if script == "dataset_tool.py":
            args = [*args, "--num-workers=1"]
        if script in self._in_processes:
            self._in_processes.remove(script)
            return _process(Call("python", self.folder, [script, *args], {}))
        return invoke(script, args)

    def _make_inputs(self, args: list[str]) -> None:
        for arg in args:
            name, _, value = arg.partition("=")
            if name == "--data" and "--dry-run" not in args:
                stand_ins.make(Path(value))
            elif name in INPUTS:
                stand_ins.make(Path(value.rpartition("=")[2]))
            elif arg in _named_files(args):
                stand_ins.make(Path(arg))

    # -- train.py -----------------------------------------------------------------------------------------------------

    def _train(self, args: list[str]) -> str:
        if "--help" in args:
            return invoke("train.py", args)
        for arg in args:
            if arg.startswith("--resume=") and arg.endswith((".pkl", ".pt", ".safetensors")):
                stand_ins.make(Path(arg.partition("=")[2]))
        written = invoke("train.py", [*args, "--dry-run"])
        if self._is_dry or "--dry-run" in args or "-n" in args:
            return written
        config = json.loads(written[written.index("{") : written.rindex("}") + 1])
        said = invoke("train.py", [*args, *_cut_down(config, args)])
        run = Path(re.findall(r"^training in (.*)$", said, re.MULTILINE)[-1])
        made = sorted(run.glob("network-snapshot-*.pkl"))[-1]
        full = run / f"network-snapshot-{int(config['total_kimg']):06d}.pkl"
        if made != full:
            shutil.copy(made, full)
        return said

    def _torchrun(self, call: Call) -> str:
        asked = get_args_parser().parse_args(call.args)
        processes = int(asked.nnodes.split(":")[-1]) * int(asked.nproc_per_node)
        with self._monkeypatch.context() as patch:
            for name, value in (("RANK", 0), ("LOCAL_RANK", 0), ("WORLD_SIZE", processes), ("MASTER_ADDR", "node1")):
                patch.setenv(name, str(value))
            if asked.training_script == "train.py":
                return invoke("train.py", [*asked.training_script_args, "--dry-run"])
            return parse(asked.training_script, asked.training_script_args)

    # -- the others ---------------------------------------------------------------------------------------------------

    def _pip(self, call: Call) -> str:
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        what = " ".join(call.args)
        match = re.fullmatch(r"install (?:-e \.|\.|styleloom)(?:\[([a-z,-]+)\])?|install torch", what)
        assert match, f"no test knows: pip {what}"
        unknown = set((match[1] or "all").split(",")) - set(extras)
        assert not unknown, f"pyproject.toml has no extra {unknown}"
        return ""

    def _git(self, call: Call) -> str:
        assert call.args[0] == "clone", f"no test knows: git {' '.join(call.args)}"
        return ""

    def _tensorboard(self, call: Call) -> str:
        assert [a.partition("=")[0] for a in call.args] == ["--logdir"], call.args
        return ""

    def _srun(self, call: Call) -> str:
        first = call.args.index("torchrun")
        assert all(a.startswith("--") for a in call.args[:first]), call.args
        return self._torchrun(Call("torchrun", call.folder, call.args[first + 1 :], call.env))

    def _sbatch(self, call: Call) -> str:
        name, *args = [a for a in call.args if not a.startswith("-")]
        stand_ins.make(call.folder / name)
        text = (call.folder / name).read_text()
        for option in re.findall(r"^#SBATCH --([a-z-]+)", text, re.MULTILINE):
            assert option in SBATCH, f"{name}: no test knows #SBATCH --{option}"
        Shell(self.folder, self._commands, self._answer).run(text, SLURM, args)
        return ""


def invoke(script: str, args: list[str]) -> str:
    """Runs a script in this process; AssertionError with its output unless it ends with status 0."""
    result = CliRunner().invoke(SCRIPTS[script], args)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, f"python {script} {' '.join(args)}\n{result.output}"
    return result.output


def parse(script: str, args: list[str]) -> str:
    """Checks a script's options without running it."""
    command: click.Command = SCRIPTS[script]
    if isinstance(command, click.Group) and args and args[0] in command.commands:
        command, args = command.commands[args[0]], args[1:]
    command.make_context(script, list(args), resilient_parsing="--help" in args)
    return ""


def _cut_down(config: dict, args: list[str]) -> list[str]:
    """Options that make a training one step of small networks, whatever else is written."""
    small = ["--set=metrics=[]", f"--set=total_kimg={config['batch'] / 1000}"]
    resumed = [Path(a.partition("=")[2]) for a in args if a.startswith("--resume=")]
    if resumed and resumed[0].is_dir():
        before = json.loads((resumed[0] / "training_options.json").read_text())["total_kimg"]
        return ["--set=metrics=[]", f"--set=total_kimg={before + config['batch'] / 1000}"]
    G, D = config["G"], config["D"]
    if G["kind"] in ("styleformer", "styleformer_c"):
        small += [f"--set=G.g_dict={[16] * len(G['g_dict'])}", "--set=G.depth=16"]
    if G["kind"] == "stylenat":
        side, start = G["img_resolution"][0], G["start_resolution"][0]
        small.append(f"--set=G.channels={[16] * ((side // start).bit_length())}")
    if G["kind"] in ("styleformer_c", "stylegan2"):
        small += ["--set=G.channel_base=256", "--set=G.channel_max=16"]
    if D["kind"] == "stylegan2_discriminator":
        small += ["--set=D.channel_base=256", "--set=D.channel_max=16"]
    if G["kind"] == "gat":
        small += ["--set=G.depth=4", "--set=G.width=16", "--set=G.heads=2"]
    if D["kind"] == "wavelet_discriminator":
        small.append(f"--set=D.channels={[16] * (D['img_resolution'][0].bit_length() - 3)}")
    return small


def _process(call: Call) -> str:
    done = subprocess.run(
        [sys.executable, *call.args], cwd=call.folder, capture_output=True, text=True, timeout=120,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, f"{' '.join(call.args)}\n{done.stderr}"
    return done.stdout


def _named_files(args: list[str]) -> list[str]:
    """Files that stand in a command without an option's name before them."""
    if "--compare" in args:
        return args[args.index("--compare") + 1 :][:2]
    return args[1:2] if args[0] in ("show", "verify", "convert", "card", "push") else []


def _check_words(script: Path, args: list[str]) -> str:
    """That a script which runs for long exists and knows the words it is called with."""
    source = script.read_text()
    for arg in args:
        word = arg.partition("=")[0]
        assert word in source, f"{script.name} knows no {word}"
    return ""
