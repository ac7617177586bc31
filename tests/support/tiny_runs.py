"""Runs so small that a test can afford many: recipes, a run folder, and everything that a run ends with."""

import contextlib
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import torch

from dnnlib.config import set_field
from torch_utils import distributed
from training.config import OptimizerConfig, TrainingConfig
from training.dataset import open_dataset
from training.networks.discriminators.gat import GATDiscriminatorConfig
from training.networks.discriminators.stylegan2 import StyleGAN2DiscriminatorConfig
from training.networks.discriminators.wavelet import WaveletDiscriminatorConfig
from training.networks.generators.gat import GATConfig
from training.networks.generators.styleformer import StyleformerConfig
from training.networks.generators.stylenat import StyleNATConfig
from training.objectives.relativistic import RelativisticConfig
from training.run.checkpoint import load_state, write_config
from training.run.recorder import FolderRecorder, Recorder
from training.run.run_folder import RunFolder
from training.session import Session
from training.training_loop import Trainer

EMOJI = str(Path(__file__).parents[2] / "datasets" / "noto-emoji-32.zip")
TINY_G = StyleformerConfig(z_dim=16, w_dim=16, mapping_layers=2, g_dict=[8] * 3, num_layers=[1] * 3, depth=8)


def recipe(name: str, *settings: str) -> TrainingConfig:
    """`ada`: Styleformer-L, ADA, path length, R1, style mixing. `bcr`: StyleNAT, wavelet D with spectral norm, bCR.
    `gat`: GAT on both sides, MNG, lazy exact penalties, AdamW, clipping, DiffAugment."""
    cfg = TrainingConfig(batch=4, batch_gpu=2, metrics=[], kimg_per_tick=0.008, snap=1, total_kimg=0.024)
    cfg.data.path = EMOJI
    if name == "gat":
        sizes = {"patch": 4, "depth": 4, "width": 16, "heads": 2}
        cfg.G, cfg.D = GATConfig(**sizes, z_dim=8), GATDiscriminatorConfig(**sizes, label_dim=8)
        cfg.G_opt = OptimizerConfig(kind="adamw", lr=1e-3, max_grad_norm=1.0)
        cfg.D_opt = replace(cfg.G_opt)
        cfg.loss = RelativisticConfig(gamma=0.1, interval=3, guidance="mng")
        cfg.ada.mode = "diffaug"
        return _finished(cfg, settings)
    cfg.loss.pl_interval, cfg.loss.r1_interval = 2, 3
    if name == "ada":
        cfg.G = StyleformerConfig(**{**vars(TINY_G), "linformer": True})
        cfg.D = StyleGAN2DiscriminatorConfig(channel_base=128, channel_max=8, mbstd_group_size=2)
        cfg.ada.p, cfg.ada.speed_kimg = 0.5, 0.2
    else:
        cfg.G = StyleNATConfig(z_dim=16, w_dim=16, mapping_layers=2, channels=[8] * 4, kernels=[[3]] * 4, min_heads=2)
        cfg.D = WaveletDiscriminatorConfig(channels=[8, 8, 8])
        cfg.D_opt.max_grad_norm = 5.0
        cfg.loss.pl_weight, cfg.loss.bcr_real, cfg.loss.bcr_fake, cfg.loss.image_norm = 0, 10, 10, "imagenet"
        cfg.data.mirror = True
        cfg.ada.mode = "noaug"
    return _finished(cfg, settings)


def _finished(cfg: TrainingConfig, settings: tuple[str, ...]) -> TrainingConfig:
    for s in settings:
        set_field(cfg, s)
    for network in (cfg.G, cfg.D):
        network.img_resolution = (32, 32)
    return cfg


def trainer(cfg: TrainingConfig) -> Trainer:
    data = cfg.data
    return Trainer(cfg, open_dataset(data.path, xflip=data.mirror), torch.device("cpu"))


def everything(t: Trainer) -> dict[str, torch.Tensor]:
    """All tensors that a run goes on from, and its counters, under flat names."""
    flat: dict[str, torch.Tensor] = {}

    def add(name: str, value: object) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                add(f"{name}.{key}", item)
        elif isinstance(value, torch.Tensor):
            flat[name] = value.detach().clone()
        elif isinstance(value, (int, float)):
            flat[name] = torch.tensor(value, dtype=torch.float64)

    add("state", t.state())
    return flat


def session(cfg: TrainingConfig, run: RunFolder | None) -> Session:
    t = trainer(cfg)
    return Session(t, FolderRecorder(run, t) if run else Recorder(), open_dataset(cfg.data.path))


def train_in(folder: Path, cfg: TrainingConfig) -> Trainer:
    """Trains to the end in `folder`, continuing the state that is there, if one is."""
    if (folder / "training-state.pt").is_file():
        state = load_state(folder)
        run = RunFolder.reopen(folder, cfg, state)
    else:
        shutil.rmtree(folder, ignore_errors=True)  # without a state the same command takes a new folder
        folder.mkdir(parents=True)
        write_config(folder, cfg)
        state, run = None, RunFolder(folder)
    with contextlib.closing(run):
        s = session(cfg, run)
        if state is not None:
            s.load_state(state)
        s.run()
    return s.trainer


def ranks_train_in(folder: Path, cfg: TrainingConfig) -> Trainer:
    """The same in several processes, of which the first one has the folder."""
    opened: list[RunFolder] = []

    def open_folder() -> dict | None:
        if (folder / "training-state.pt").is_file():
            state = load_state(folder)
            opened.append(RunFolder.reopen(folder, cfg, state))
            return state
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_config(folder, cfg)
        opened.append(RunFolder(folder))
        return None

    state = distributed.from_rank_0(open_folder)
    s = session(cfg, opened[0] if opened else None)
    if state is not None:
        s.load_state(state)
    s.run()
    for run in opened:
        run.close()
    return s.trainer


def ranks_train(cfg: TrainingConfig, steps: int, dies_at: int | None, out: str) -> None:
    """What each of several processes does in tests/run/test_distributed.py."""
    t = trainer(cfg)
    for step in range(steps):
        if step == dies_at and distributed.rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        t.step()
    found = everything(t)
    if distributed.rank() == 0:
        torch.save(found, out)
