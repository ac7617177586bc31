"""Compares how recipes learn: `python benchmarks/learning.py CANDIDATES.txt --minutes=10 --seeds=0,1,2`.

Every candidate trains for the same processor time, so that what is dear per image has to pay for itself. A line of the
file is a name, a preset and `--set` assignments, separated by blanks; `{kimg}` stands for the length that the
candidate gets, which a short trial measures:

    rp  demo  loss.kind=relativistic  loss.gamma={"start":1,"end":0.1,"kimg":{kimg}}

Without a precision in its settings a candidate trains in float32. Prints KID and coverage of 2,000 samples over
processor minutes, and at the end the mean and the range over the seeds.
With --out, every row is appended to a .jsonl file as it comes, the networks lie beside it, and runs that the file holds
already are not repeated.
"""

import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import click
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from dnnlib.cli import INTS, PATH, Command
from dnnlib.errors import UserError
from dnnlib.files import append, read_jsonl
from metrics import compute_metrics
from training import networks
from training.config import TrainingConfig
from training.dataset import ImageDataset
from training.options import check_config, resolve
from training.training_loop import Trainer

FIGURES = {  # metric -> its figure that is shown
    "kid2k_mobilenetv2": "kid2k_mobilenetv2",
    "cov2k_mobilenetv2": "cov2k_mobilenetv2_coverage",
    "kid2k_lite0": "kid2k_lite0",
    "cov2k_lite0": "cov2k_lite0_coverage",
}
TRIAL_STEPS = 48  # whole cycles of all lazy phases


@dataclass(frozen=True)
class Candidate:
    """One recipe to try."""

    name: str
    preset: str
    settings: tuple[str, ...]

    def config(self, kimg: float, seed: int) -> tuple[TrainingConfig, ImageDataset]:
        """Its configuration for a training of so many thousand images."""
        settings = [s.replace("{kimg}", f"{kimg:.3f}") for s in self.settings]
        cfg, dataset = resolve(self.preset, 1, {"seed": seed, "kimg": kimg}, settings)
        assert dataset is not None
        check_config(cfg)
        return cfg, dataset


def read_candidates(file: Path) -> list[Candidate]:
    """The candidates of a file; `#` begins a comment. UserError for a line without a preset."""
    found = []
    for number, line in enumerate(file.read_text().splitlines(), 1):
        words = line.partition("#")[0].split()
        if len(words) == 1:
            raise UserError(f"{file}, line {number}: a candidate is a name, a preset and settings")
        if words:
            found.append(Candidate(words[0], words[1], tuple(words[2:])))
    return found


def affordable_kimg(candidate: Candidate, minutes: float) -> float:
    """Thousands of images that `minutes` of processor time train."""
    cfg, dataset = candidate.config(1, 0)
    trainer = Trainer(cfg, dataset, torch.device("cpu"))
    for _ in range(2):
        trainer.step()
    trainer.step_count = 0
    start = time.process_time()
    for _ in range(TRIAL_STEPS):
        trainer.step()
    return minutes * 60 / (time.process_time() - start) * TRIAL_STEPS * cfg.batch / 1000


def learn(candidate: Candidate, kimg: float, seed: int, points: int) -> Iterator[tuple[dict, Trainer]]:
    """Trains, and measures `points` times at equal distances; measuring is not counted."""
    cfg, dataset = candidate.config(kimg, seed)
    trainer = Trainer(cfg, dataset, torch.device("cpu"))
    spent = 0.0
    for point in range(1, points + 1):
        start = time.process_time()
        while trainer.nimg < kimg * 1000 * point / points:
            trainer.step()
        spent += time.process_time() - start
        results = compute_metrics(list(FIGURES), trainer.G_ema, dataset.unmirrored())
        row = {"name": candidate.name, "seed": seed, "minutes": spent / 60, "kimg": trainer.nimg / 1000}
        row |= {"point": point, "points": points, "settings": [candidate.preset, *candidate.settings]}
        yield row | {name: value for r in results for name, value in r.results.items()}, trainer


def keep(trainer: Trainer, out: Path, row: dict) -> None:
    """The row in the file of results, and the network so far beside it."""
    append(out, json.dumps(row) + "\n")
    networks.save(out.with_name(f"{row['name']}-{row['seed']}.pkl"), {"G_ema": trainer.G_ema}, trainer.cfg)


def line(row: dict) -> str:
    """A row of the table."""
    figures = "  ".join(f"{row[m]:8.3f}" for m in FIGURES.values())
    return f"{row['name']:24} {row['seed']!s:>5} {row['minutes']:6.1f} {row['kimg']:7.1f}  {figures}"


def summary(rows: Sequence[dict]) -> Iterator[str]:
    """Mean and range over the seeds at the end of each candidate's training."""
    ends: dict[str, list[dict]] = defaultdict(list)
    for row in rows:
        if row["point"] == row["points"]:
            ends[row["name"]].append(row)
    first = next(iter(FIGURES.values()))
    for name, runs in sorted(ends.items(), key=lambda item: mean(r[first] for r in item[1])):
        spread = [[r[m] for r in runs] for m in FIGURES.values()]
        figures = "  ".join(f"{mean(v):.3f} ({min(v):.3f}-{max(v):.3f})" for v in spread)
        yield f"{name:24} {len(runs)} seeds  {figures}"


@click.command(cls=Command)
@click.argument("file", type=PATH)
@click.option("--minutes", default=10.0, show_default=True, help="Processor time of each training")
@click.option("--kimg", type=float, help="Length of each training in thousands of images, in place of --minutes")
@click.option("--seeds", type=INTS, default="0", show_default=True, help="Random seeds, comma-separated")
@click.option("--points", default=3, show_default=True, help="Measurements along each training")
@click.option("--threads", default=1, show_default=True, help="Of torch")
@click.option("--only", default="", help="Candidates to run, comma-separated  [default: all]")
@click.option("--out", type=PATH, help="Results are appended to this .jsonl file")
def main(
    file: str,
    minutes: float,
    kimg: float | None,
    seeds: list[int],
    points: int,
    threads: int,
    only: str,
    out: str | None,
) -> None:
    """Train the candidates of FILE for equal processor time and print what they have learned."""
    torch.set_num_threads(threads)
    results = Path(out) if out else None
    rows = read_jsonl(results) if results and results.exists() else []
    candidates = [c for c in read_candidates(Path(file)) if not only or c.name in only.split(",")]
    click.echo(f"{'candidate':24} {'seed':>5} {'min':>6} {'kimg':>7}    KID m    cov m    KID l    cov l")
    for candidate in candidates:
        todo = [s for s in seeds if not any(r["name"] == candidate.name and r["seed"] == s for r in rows)]
        if not todo:
            continue
        length = kimg or affordable_kimg(candidate, minutes)
        for seed in todo:
            for row, trainer in learn(candidate, length, seed, points):
                click.echo(line(row))
                rows.append(row)
                if results:
                    keep(trainer, results, row)
    for text in summary(rows):
        click.echo(text)


if __name__ == "__main__":
    main()
