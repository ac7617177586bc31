"""How a run was started: a line of starts.jsonl for each time, with the command and the version of the code."""

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

from dnnlib.files import append

STARTS_FILE = "starts.jsonl"


def note_start(folder: Path) -> None:
    """Appends what this process was called with. Raises WriteError."""
    script = Path(sys.argv[0])
    program = ["python", sys.argv[0]] if script.suffix == ".py" else [script.name]
    command = shlex.join([*program, *sys.argv[1:]])
    line = {"when": time.strftime("%Y-%m-%d %H:%M:%S"), "command": command, "version": version()}
    append(folder / STARTS_FILE, json.dumps(line) + "\n")


def version() -> str:
    """The commit of the checkout that runs, with a + where files differ from it; elsewhere the package's version."""
    here = Path(__file__).parents[2]
    try:
        git = ["git", "-C", str(here)]
        top = subprocess.run([*git, "rev-parse", "--show-toplevel"], capture_output=True, text=True, timeout=10)
        if top.returncode == 0 and Path(top.stdout.strip()) == here:
            describe = [*git, "describe", "--always", "--dirty=+"]
            said = subprocess.run(describe, capture_output=True, text=True, timeout=10)
            if said.returncode == 0:
                return f"commit {said.stdout.strip()}"
    except (OSError, subprocess.SubprocessError):
        pass
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return f"version {installed('styleloom')}"
    except PackageNotFoundError:
        return "version unknown"
