"""Kills runs during their snapshots and lets them go on:
`python tests/support/scripts/kill_runs.py SEED COUNT FOLDER [PROCESSES]`. With 2 processes, one of them is killed.

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

from support.tiny_runs import everything, ranks_train_in, recipe
from torch_utils import distributed
from training.session import Session

torch.set_num_threads(1)
_WRITERS = ("persistence.py", "checkpoint.py", "run_folder.py", "page.py", "session.py", "recorder.py", "files.py")
SNAPSHOTS = 4  # of the run: at the start and at the end of each of 3 ticks


class Lines:
    """Counts the lines that run within snapshot number `snapshot` (None: each); at line `fatal` the process dies."""

    def __init__(self, snapshot: int | None, fatal: int | None):
        self.snapshot, self.fatal, self.count, self._seen = snapshot, fatal, 0, -1
        self.counts: list[int] = []  # of each snapshot

    def install(self) -> "Lines":
        lines, original = self, Session.snapshot

        def snapshot(session: Session) -> None:
            lines._seen += 1
            if lines.snapshot not in (None, lines._seen):
                return original(session)
            lines.count = 0
            sys.settrace(lines._trace)
            try:
                return original(session)
            finally:
                sys.settrace(None)
                lines.counts.append(lines.count)

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


def ranks(folder: Path, lines: list[Lines]) -> None:
    """What each process of a run does; `lines` are for each of them."""
    mine = lines[distributed.rank()].install()
    cfg = recipe("ada", f"gpus={len(lines)}", "ema.posthoc=[0.05,0.1]")
    found = everything(ranks_train_in(folder, cfg))
    if distributed.rank() == 0:
        torch.save(found, folder / "end.pt")
    (folder / f"lines{distributed.rank()}.json").write_text(json.dumps(mine.counts))


def run(folder: Path, lines: list[Lines]) -> None:
    distributed.run(ranks, (folder, lines), len(lines))


def differences(a: Path, b: Path) -> list[str]:
    one, other = torch.load(a / "end.pt"), torch.load(b / "end.pt")
    found = [k for k in one.keys() | other.keys() if k not in one or k not in other or not one[k].equal(other[k])]
    ticks = [json.loads(line)["Progress/tick"]["mean"] for line in (b / "stats.jsonl").read_text().splitlines()]
    if ticks != [0, 1, 2, 3]:
        found.append(f"stats.jsonl has ticks {ticks}")
    averages = [{path.name: path.read_bytes() for path in folder.glob("ema-*")} for folder in (a, b)]
    if averages[0] != averages[1] or len(averages[0]) != 2 * (
        SNAPSHOTS - 1
    ):  # at the start there is nothing to average
        found.append("the stored averages")
    if list(b.glob(".*.part")):
        found.append("a temporary file is left")
    return found


def main(seed: int, count: int, work: Path, processes: int = 1) -> int:
    work.mkdir(parents=True, exist_ok=True)
    assert in_child(run, work / "reference", [Lines(None, None) for _ in range(processes)]) == 0
    counts = [json.loads((work / "reference" / f"lines{rank}.json").read_text()) for rank in range(processes)]
    rnd = random.Random(seed)
    failures = 0
    for i in range(count):
        folder, snapshot, rank = work / f"run{i}", rnd.randrange(SNAPSHOTS), rnd.randrange(processes)
        lines = counts[rank][snapshot]  # at the start there are no averages to store
        fatal = rnd.randint(1, lines)
        status = in_child(run, folder, [Lines(snapshot, fatal if r == rank else None) for r in range(processes)])
        status_after = in_child(run, folder, [Lines(-2, None) for _ in range(processes)])
        wrong = differences(work / "reference", folder) if status_after == 0 else ["it did not go on"]
        print(
            f"run {i}: process {rank}, snapshot {snapshot}, line {fatal} of {lines}: status {status}, "
            f"{wrong or 'equal'}",
            flush=True,
        )
        failures += bool(wrong) or status != (-signal.SIGKILL if processes == 1 else 1)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), *map(int, sys.argv[4:])))
