"""Kills runs during their snapshots and lets them go on: `python tests/support/scripts/kill_runs.py SEED COUNT FOLDER`.

Exits with status 1 if a run that was killed ends otherwise than one that wasn't. A moment is a line of Python
counted from the start of a snapshot, so a seed always kills at the same place.
"""

import json
import os
import random
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from support.tiny_runs import everything, recipe, train_in
from training.session import Session

torch.set_num_threads(1)
_WRITERS = ("persistence.py", "checkpoint.py", "run_folder.py", "page.py", "session.py", "recorder.py", "files.py")
SNAPSHOTS = 4  # of the run: at the start and at the end of each of 3 ticks


class Lines:
    """Counts the lines that run within snapshot number `snapshot`; at line `fatal` the process dies."""

    def __init__(self, snapshot: int, fatal: int | None):
        self.snapshot, self.fatal, self.count, self._seen = snapshot, fatal, 0, -1
        self._original = Session.snapshot

    def install(self) -> "Lines":
        lines = self

        def snapshot(session: Session) -> None:
            lines._seen += 1
            if lines._seen != lines.snapshot:
                return lines._original(session)
            sys.settrace(lines._trace)
            try:
                return lines._original(session)
            finally:
                sys.settrace(None)

        Session.snapshot = snapshot  # type: ignore[method-assign]
        return self

    def _trace(self, frame: FrameType, event: str, arg: Any) -> Any:
        if not frame.f_code.co_filename.endswith(_WRITERS):
            return None  # most lines are the networks', far from any file
        if event == "line":
            self.count += 1
            if self.count == self.fatal:
                os.kill(os.getpid(), signal.SIGKILL)
        return self._trace


def in_child(work: Any, *args: Any) -> int:
    """Runs `work(*args)` in a forked process; its exit status, or minus the signal that ended it."""
    pid = os.fork()
    if pid == 0:
        try:
            work(*args)
        except BaseException as e:
            print(f"{type(e).__name__}: {e}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def reference(folder: Path) -> None:
    lines = Lines(1, None).install()
    torch.save(everything(train_in(folder, recipe("ada"))), folder / "end.pt")
    (folder / "lines.json").write_text(json.dumps(lines.count))


def killed(folder: Path, snapshot: int, fatal: int) -> None:
    Lines(snapshot, fatal).install()
    train_in(folder, recipe("ada"))


def continued(folder: Path) -> None:
    torch.save(everything(train_in(folder, recipe("ada"))), folder / "end.pt")


def differences(a: Path, b: Path) -> list[str]:
    one, other = torch.load(a / "end.pt"), torch.load(b / "end.pt")
    found = [k for k in one.keys() | other.keys() if k not in one or k not in other or not one[k].equal(other[k])]
    ticks = [json.loads(line)["Progress/tick"]["mean"] for line in (b / "stats.jsonl").read_text().splitlines()]
    if ticks != [0, 1, 2, 3]:
        found.append(f"stats.jsonl has ticks {ticks}")
    if list(b.glob(".*.part")):
        found.append("a temporary file is left")
    return found


def main(seed: int, count: int, work: Path) -> int:
    work.mkdir(parents=True, exist_ok=True)
    assert in_child(reference, work / "reference") == 0
    lines = json.loads((work / "reference" / "lines.json").read_text())
    rnd = random.Random(seed)
    failures = 0
    for i in range(count):
        folder, snapshot, fatal = work / f"run{i}", rnd.randrange(SNAPSHOTS), rnd.randint(1, lines)
        status = in_child(killed, folder, snapshot, fatal)
        status_after = in_child(continued, folder)
        wrong = differences(work / "reference", folder) if status_after == 0 else ["it did not go on"]
        print(f"run {i}: snapshot {snapshot}, line {fatal} of {lines}: status {status}, {wrong or 'equal'}", flush=True)
        failures += bool(wrong) or status != -signal.SIGKILL
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])))
