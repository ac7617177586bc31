"""Where statistics go besides stats.jsonl: TensorBoard and Weights & Biases, both optional extras."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from dnnlib.config import to_dict
from dnnlib.errors import UserError
from dnnlib.files import WriteError, read_bytes, write_file
from training.config import TrainingConfig

_WANDB_ID = "wandb-id.txt"
_MAX_ID = 200  # characters


class Tracker(Protocol):
    """Takes named figures, and grids of samples, after so many images. It may raise whatever it likes: a run goes on
    without a tracker that fails."""

    def add(self, values: dict[str, float], nimg: int) -> None: ...
    def add_picture(self, name: str, path: Path, nimg: int) -> None: ...
    def close(self) -> None: ...


OpenTracker = Callable[[TrainingConfig, Path, int | None], Tracker]  # config, run folder, images of a continued run
_own: dict[str, OpenTracker] = {}


def register_tracker(name: str, open: OpenTracker) -> None:
    """Makes a tracker known, for --track=NAME. ValueError if there is one of that name."""
    if name in _own:
        raise ValueError(f"two trackers register the name {name!r}")
    _own[name] = open


def check_trackers(names: Sequence[str]) -> None:
    """UserError for a name that nothing has registered."""
    for name in names:
        if name not in _own:
            known = f"known are {', '.join(_own)}" if _own else "an --import file registers one by register_tracker"
            raise UserError(f"--track={name}: there is no such tracker; {known}")


class TensorBoard:
    """Event files in the run folder; the step axis is kimg. `nimg` is where a continued run goes on, else None."""

    def __init__(self, folder: Path, nimg: int | None):
        from torch.utils.tensorboard import SummaryWriter

        purge = None if nimg is None else nimg // 1000 + 1
        self._events: Any = SummaryWriter(str(folder), purge_step=purge)

    def add(self, values: dict[str, float], nimg: int) -> None:
        for name, value in values.items():
            self._events.add_scalar(name, value, global_step=nimg // 1000)
        self._events.flush()

    def add_picture(self, name: str, path: Path, nimg: int) -> None:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        self._events.add_image(name, pixels, global_step=nimg // 1000, dataformats="HWC")
        self._events.flush()

    def close(self) -> None:
        self._events.close()


class WandB:
    """Weights & Biases; WANDB_MODE=offline keeps everything in the run folder. A continued run keeps its id."""

    def __init__(self, project: str, folder: Path, cfg: TrainingConfig):
        try:
            import wandb
        except ImportError:
            raise UserError("--wandb wants the package wandb: pip install 'styleloom[wandb]'") from None
        id_file = folder / _WANDB_ID
        if (folder / "wandb").is_symlink():
            raise UserError(f"{folder / 'wandb'} is a link: what wandb writes would go elsewhere")
        known = read_bytes(id_file, _MAX_ID).decode("ascii", "replace").strip() if id_file.is_file() else None
        self._run: Any = wandb.init(
            project=project, name=folder.name, id=known, resume="allow", dir=str(folder), config=to_dict(cfg)
        )
        write_file(id_file, f"{self._run.id}\n".encode())
        self._run.define_metric("kimg")
        self._run.define_metric("*", step_metric="kimg")

    def add(self, values: dict[str, float], nimg: int) -> None:
        self._run.log({**values, "kimg": nimg / 1000})

    def add_picture(self, name: str, path: Path, nimg: int) -> None:
        import wandb

        self._run.log({name: wandb.Image(str(path)), "kimg": nimg / 1000})

    def close(self) -> None:
        self._run.finish()


def open_trackers(cfg: TrainingConfig, folder: Path, nimg: int | None) -> list[Tracker]:
    """TensorBoard where it is installed, Weights & Biases and those of --import files where they are asked for."""
    check_trackers(cfg.trackers)
    trackers: list[Tracker] = []
    try:
        trackers.append(TensorBoard(folder, nimg))
    except ImportError:  # the extra `tensorboard` is not installed
        pass
    except OSError as e:
        raise WriteError(folder, e) from e
    if cfg.wandb:
        trackers.append(WandB(cfg.wandb, folder, cfg))
    trackers += [_open_own(name, cfg, folder, nimg) for name in cfg.trackers]
    return trackers


def _open_own(name: str, cfg: TrainingConfig, folder: Path, nimg: int | None) -> Tracker:
    try:
        return _own[name](cfg, folder, nimg)
    except UserError:
        raise
    except Exception as e:  # theirs are of many kinds
        raise UserError(f"--track={name}: {type(e).__name__}: {' '.join(str(e).split())[:200]}") from e
