"""Many images to a folder or zip, in the layout of a data set. A run that was stopped goes on where it was."""

import json
import os
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import torch

from dnnlib.errors import UserError
from dnnlib.files import PART, atomic_file, read_json, write_file
from dnnlib.locks import Lock
from training.conversion.png import image_name
from training.dataset.zip_writer import ZipWriter
from training.networks.shared.generator import Generator, NoiseMode
from training.networks.shared.layers import largest_divisor
from training.sampling import png_writer
from training.sampling.labels import drawn_labels
from training.sampling.png_writer import HEADER
from training.sampling.seeds import class_label, device_of, images_of_styles, styles_of_seeds

JOB_FILE = "sampling.json"  # in the folder, while it is incomplete and after: what was asked for
LOCK_FILE = ".lock"
QUEUED = 4  # parts of a batch that may wait for being written


@dataclass
class Job:
    """What to generate. Image i comes from seed first_seed + i."""

    network: str  # SHA-256 of the network's file or tensors
    count: int
    first_seed: int = 0
    psi: float = 1.0
    noise_mode: NoiseMode = "const"
    class_index: int | None = None  # None for a conditional network: the classes in turn
    vectors: list[list[float]] | None = None  # labels to take in turn, where they are no classes
    guidance: float | None = None  # what the generator's mapping is set to, if anybody said it

    def label(self, G: Generator, i: int) -> int | list[float] | None:
        """Class or vector of image i; None if the network is unconditional."""
        if not G.c_dim:
            return None
        if self.vectors is not None:
            return self.vectors[i % len(self.vectors)]
        if G.label_vectors is not None:
            return drawn_labels(G, [self.first_seed + i])[0].tolist()
        return i % G.c_dim if self.class_index is None else self.class_index

    def label_row(self, G: Generator, i: int) -> torch.Tensor:
        """The label of image i as the network takes it, [1, c_dim]."""
        label = self.label(G, i)
        return torch.tensor([label]) if isinstance(label, list) else class_label(G, label)


def generate_many(
    G: Generator,
    job: Job,
    dest: str,
    batch: int,
    progress: Callable[[int], None] = lambda images: None,  # told how many images are done, more at a time
) -> int:
    """Fills the folder, or zip if `dest` ends so; returns how many images an earlier run had already made.

    A zip's images wait in the folder `DEST.partial`. Every file appears complete, so a kill leaves nothing to mend.
    UserError if `dest` holds something else, or was begun for another job.
    """
    if job.class_index is not None or not G.c_dim:
        class_label(G, job.class_index)  # complains where class and network don't fit
    target = Path(dest)
    zipped = target.suffix.lower() == ".zip"
    folder = target.with_name(target.name + ".partial") if zipped else target
    if zipped and target.exists():
        raise UserError(f"--out: {dest} exists already; remove it or choose another name")
    try:
        with _locked(folder):
            if zipped and target.exists():
                raise UserError(f"--out: {dest} was finished by another process just now")
            return _fill(G, job, folder, target if zipped else None, batch, progress)
    except OSError as e:
        raise UserError(f"--out: cannot write to {dest}: {e.strerror or e}; the run can be continued") from e


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """The folder, made where it is missing, for this process alone."""
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with Lock(folder / LOCK_FILE, f"--out: {folder} is being filled right now by another process"):
            yield
    finally:
        if is_new:
            with suppress(OSError):  # it isn't empty, so something was begun
                folder.rmdir()


def _fill(
    G: Generator, job: Job, folder: Path, target: Path | None, batch: int, progress: Callable[[int], None]
) -> int:
    """The missing images, then the labels, then the zip `target`; returns how many images were there before."""
    _open_job(folder, job)
    missing = [i for i in range(job.count) if not (folder / image_name(i)).exists()]
    progress(job.count - len(missing))
    _generate(G, job, folder, missing, batch, progress)
    if G.c_dim:
        write_file(folder / "dataset.json", json.dumps(_labels(G, job)).encode())
    if target is not None:
        _pack(folder, job, target)
    return job.count - len(missing)


def _open_job(folder: Path, job: Job) -> None:
    file = folder / JOB_FILE
    if file.exists():
        begun = _begun(file)
        differing = [k for k, v in asdict(job).items() if k != "count" and begun.get(k) != v]
        if differing:
            raise UserError(
                f"--out: {folder} was begun with another {', '.join(differing)}; repeat that command, "
                "or choose another place"
            )
        if job.count < begun["count"]:
            raise UserError(f"--out: {folder} was begun for {begun['count']} images; ask for no fewer")
    elif any(path.name != LOCK_FILE for path in folder.iterdir()):
        raise UserError(f"--out: {folder} holds other files; choose a new or empty folder")
    for leftover in [*folder.glob(f"*/.*{PART}"), *folder.glob("*/*.partial")]:  # the latter are of the first release
        leftover.unlink()
    write_file(file, json.dumps(asdict(job)).encode())


def _begun(file: Path) -> dict[str, Any]:
    begun = read_json(file)
    if not isinstance(begun, dict) or type(begun.get("count")) is not int:
        raise UserError(f"--out: {file} is damaged: remove {file.parent}, or choose another place")
    return begun


def _generate(
    G: Generator, job: Job, folder: Path, missing: list[int], batch: int, progress: Callable[[int], None]
) -> None:
    workers = _workers(G, job, batch)
    part = batch // workers
    with _writer(folder) as pipe, _threads(workers) as pool:
        queue: deque[Future[tuple[list[int], torch.Tensor]]] = deque()
        try:
            for start in range(0, len(missing), part):
                queue.append(pool.submit(_images, G, job, missing[start : start + part]))
                if len(queue) > workers + QUEUED:
                    progress(_send(pipe, *queue.popleft().result()))
            while queue:
                progress(_send(pipe, *queue.popleft().result()))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _workers(G: Generator, job: Job, batch: int) -> int:
    """How many parts of a batch go through the network at the same time. On a CPU, cores that work on images of their
    own get more done than cores that share every operation. Random noise is keyed by the one global generator."""
    if device_of(G).type != "cpu" or job.noise_mode == "random":
        return 1
    return largest_divisor(batch, torch.get_num_threads())


@contextmanager
def _threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """A pool whose threads share the cores evenly. (torch's number of threads is that of the calling thread.)"""
    cores = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(max(cores // count, 1),)) as pool:
            yield pool
    finally:
        torch.set_num_threads(cores)  # for the threads that follow


@contextmanager
def _writer(folder: Path) -> Iterator[IO[bytes]]:
    """The pipe into a new `png_writer` process; all files are written when it closes. OSError if the process failed."""
    paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    process = subprocess.Popen(
        [sys.executable, "-m", png_writer.__name__, str(folder)],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
    )
    assert process.stdin is not None
    try:
        yield process.stdin
    except BrokenPipeError:
        pass  # the process has ended, and says why below
    finally:
        _, message = process.communicate()
    if process.returncode:
        raise OSError(message.decode(errors="replace").strip())


def _send(pipe: IO[bytes], indices: list[int], images: torch.Tensor) -> int:
    pixels = images.permute(0, 2, 3, 1).contiguous().numpy()
    pipe.write(b"".join(HEADER.pack(i, *image.shape) + image.tobytes() for i, image in zip(indices, pixels)))
    return len(indices)


def _images(G: Generator, job: Job, indices: list[int]) -> tuple[list[int], torch.Tensor]:
    """The images of one pass: their indices, and uint8 [N, C, H, W]."""
    seeds = [job.first_seed + i for i in indices]
    c = torch.cat([job.label_row(G, i) for i in indices])
    ws = styles_of_seeds(G, seeds, c, job.psi)
    return indices, images_of_styles(G, ws, job.noise_mode, seeds, len(seeds))


def _labels(G: Generator, job: Job) -> dict[str, list]:
    return {"labels": [[image_name(i), job.label(G, i)] for i in range(job.count)]}


def _pack(folder: Path, job: Job, target: Path) -> None:
    """All images into one zip of stored members, which appears when it is complete; then the folder goes."""
    names = [image_name(i) for i in range(job.count)]
    names += ["dataset.json"] if (folder / "dataset.json").exists() else []
    with atomic_file(target) as out:
        archive = ZipWriter(out)
        for name in names:
            archive.write(name, (folder / name).read_bytes())
        archive.close()
    shutil.rmtree(folder)
