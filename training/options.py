"""Command-line options of train.py as a table: each row names the config field it sets."""

import difflib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import click
import torch

from dnnlib.cache import is_url
from dnnlib.cli import INTS, PATH, SEED, Number
from dnnlib.config import check, from_dict, set_field
from dnnlib.errors import UserError
from dnnlib.hub import is_hub
from metrics import DetectorMissing, parse_name, require_detectors
from metrics.families import FAMILIES
from training import networks
from training.augment.pipe import PRESETS as AUGMENT_PRESETS
from training.config import DataConfig, TrainingConfig
from training.dataset import ImageDataset, open_dataset
from training.dataset.embedded import located
from training.ema.power import DEFAULT_LENGTHS
from training.networks.discriminators.stylegan2 import StyleGAN2DiscriminatorConfig
from training.networks.generators.styleformer import StyleformerConfig
from training.networks.generators.stylegan2 import StyleGAN2Config
from training.networks.image_space import ImageSpaceConfig, build_space
from training.networks.latents import LatentsConfig
from training.networks.registry import DiscriminatorConfig, NetworkConfig
from training.presets import PRESETS, Preset
from training.run.checkpoint import KNOWN_SOURCES, OPTIONS_FILE, STATE_FILE, read_config
from training.run.trackers import check_trackers
from training.schedule import Ramp, check_ramps
from training.step.precision import DTYPES


@dataclass(frozen=True)
class Option:
    """`flag` sets config field `field`, or calls `apply(cfg, value)` where one option means more than one field."""

    flag: str
    type: Any
    help: str
    field: str | None = None
    apply: Callable[[TrainingConfig, Any], None] | None = None
    needs: type[NetworkConfig] | None = None  # the option is for networks of this config only

    @property
    def name(self) -> str:
        """`--batch-gpu` -> `batch_gpu`."""
        return self.flag.lstrip("-").replace("-", "_")


def _start_resolution(cfg: TrainingConfig, value: list[int]) -> None:
    cfg.G.start_resolution = (value[0], value[-1])  # type: ignore[attr-defined]


def _linformer(cfg: TrainingConfig, value: bool) -> None:
    cfg.G.linformer = value  # type: ignore[attr-defined]
    cfg.ada.p_max = 0.7 if value else None


def _batch(cfg: TrainingConfig, value: int) -> None:
    # As in the originals, an explicit batch also sets the size of the minibatch-std groups.
    cfg.batch = value
    if isinstance(cfg.D, StyleGAN2DiscriminatorConfig):
        cfg.D.mbstd_group_size = max(min(cfg.micro_batch, 4), 1)


def _augpipe(cfg: TrainingConfig, value: str) -> None:
    cfg.ada.pipe = replace(AUGMENT_PRESETS[value])


def _metrics(cfg: TrainingConfig, value: str) -> None:
    cfg.metrics = [] if value == "none" else value.split(",")


def _track(cfg: TrainingConfig, value: str) -> None:
    cfg.trackers = value.split(",")


def _gamma(cfg: TrainingConfig, value: float) -> None:
    if cfg.loss.gamma_field is None:
        raise UserError(f"--gamma weighs a gradient penalty; the objective {cfg.loss.kind} has none")
    setattr(cfg.loss, cfg.loss.gamma_field, value)


def _posthoc(cfg: TrainingConfig, value: bool) -> None:
    cfg.ema.posthoc = DEFAULT_LENGTHS if value else ()


def _fp32(cfg: TrainingConfig, value: bool) -> None:
    # Without half precision nothing can overflow, so the field's --fp32 also drops the clamps.
    if value:
        cfg.precision = "float32"
    if value and isinstance(cfg.D, StyleGAN2DiscriminatorConfig):
        cfg.D.conv_clamp = None
    if value and isinstance(cfg.G, StyleGAN2Config):
        cfg.G.conv_clamp = None


def check_source(value: str) -> None:
    """UserError where --resume=`value`, which is no run folder, is no network to start from either."""
    if os.path.basename(value) == STATE_FILE:
        raise UserError(
            f"--resume={value} is the state within a run: name its folder, --resume={os.path.dirname(value)}"
        )
    if value not in KNOWN_SOURCES and not is_url(value) and not os.path.isfile(value):
        raise UserError(
            f"--resume={value}: no run folder, no file, no URL, and none of latest, {', '.join(KNOWN_SOURCES)}"
        )


def _resume(cfg: TrainingConfig, value: str) -> None:
    # As in the field: a trained D overfits sooner, and a trained G needs no ramp-up of its average.
    check_source(value)
    source = os.path.abspath(value) if os.path.isfile(value) else value
    cfg.resume, cfg.ada.speed_kimg, cfg.ema.rampup = source, 100, None


MAX_AVERAGES = 4  # kept besides G_ema, each as large as G
_POSITIVE = click.IntRange(min=1)
_SHARE = Number(min=0, max=1)

OPTIONS: list[Option] = [
    Option("--data", PATH, "Images to train on: zip or folder made by dataset_tool.py", "data.path"),
    Option("--cond", bool, "Train conditionally on the labels in the data set", "data.use_labels"),
    Option("--subset", _POSITIVE, "Train on so many randomly chosen images", "data.max_size"),
    Option("--mirror", bool, "Add the mirror image of every picture", "data.mirror"),
    Option("--batch", _POSITIVE, "Images per step, over all processes", apply=_batch),
    Option("--batch-gpu", _POSITIVE, "Images per micro-batch; the rest is accumulated", "batch_gpu"),
    Option("--gamma", Number(min=0), "Weight of the gradient penalty (R1)", apply=_gamma),
    Option("--kimg", Number(min=0), "Length of the training in thousands of images", "total_kimg"),
    Option("--tick", Number(min=0.001), "Thousands of images between status lines", "kimg_per_tick"),
    Option("--snap", _POSITIVE, "Ticks between snapshots", "snap"),
    Option("--metrics", str, "Comma-separated metrics of every snapshot, or none", apply=_metrics),
    Option("--keep-snapshots", _POSITIVE, "Keep so many, and each metric's best  [default: all]", "keep_snapshots"),
    Option("--posthoc-ema", bool, "Keep averages from which any length of EMA follows later", apply=_posthoc),
    Option(
        "--resume",
        PATH,
        "Continue this run folder (latest: the newest), or start from this network (file, URL)",
        apply=_resume,
    ),
    Option("--seed", SEED, "Random seed", "seed"),
    Option(
        "--g_dict", INTS, "Styleformer: hidden size per resolution, e.g. 256,64,16", "G.g_dict", needs=StyleformerConfig
    ),
    Option("--num_layers", INTS, "Styleformer: encoder layers per resolution", "G.num_layers", needs=StyleformerConfig),
    Option("--depth", _POSITIVE, "Styleformer: channels per attention head", "G.depth", needs=StyleformerConfig),
    Option(
        "--minimum_head", _POSITIVE, "Styleformer: least number of heads", "G.minimum_head", needs=StyleformerConfig
    ),
    Option(
        "--linformer", bool, "Styleformer-L: linear attention from 32x32 on", apply=_linformer, needs=StyleformerConfig
    ),
    Option(
        "--start-resolution",
        INTS,
        "Styleformer: side, or height,width, it starts from",
        apply=_start_resolution,
        needs=StyleformerConfig,
    ),
    Option("--aug", click.Choice(["noaug", "ada", "fixed", "diffaug"]), "Discriminator augmentation", "ada.mode"),
    Option("--p", _SHARE, "Augmentation probability for --aug=fixed", "ada.p"),
    Option("--target", _SHARE, "Mean sign of D(real) that ADA aims at", "ada.target"),
    Option("--augpipe", click.Choice(list(AUGMENT_PRESETS)), "Which augmentations", apply=_augpipe),
    Option(
        "--freezed",
        click.IntRange(min=0),
        "Freeze-D: the first so many layers stay as they are",
        "D.freeze_layers",
        needs=StyleGAN2DiscriminatorConfig,
    ),
    Option(
        "--precision",
        click.Choice(list(DTYPES)),
        "Of both networks  [default: the preset's, else auto: on a CPU bfloat16 where that is fast, else float32]",
        "precision",
    ),
    Option("--fp32", bool, "Float32 throughout, and no clamping of layer outputs", apply=_fp32),
    Option(
        "--nhwc",
        bool,
        "Channels-last memory layout of the convolutions  [default: yes, but in float32 on a GPU]",
        "nhwc",
    ),
    Option("--compile", bool, "torch.compile for the main phases (not R1, path length)", "compile"),
    Option("--workers", click.IntRange(min=0), "Processes that decode images ahead, per GPU", "workers"),
    Option("--wandb", str, "Report to this project of Weights & Biases", "wandb"),
    Option("--track", str, "Comma-separated trackers that --import files register", apply=_track),
    Option("--nobench", bool, "CUDA: no cuDNN benchmarking", "nobench"),
    Option("--allow-tf32", bool, "CUDA: TF32 for matrix products and convolutions", "allow_tf32"),
]


def resolve(
    preset: str,
    gpus: int,
    values: dict[str, Any],  # Option.name -> what the command line says, None if nothing
    settings: Sequence[str],  # `--set` assignments
    needs_data: bool = True,  # False: where the data set is missing, assume images as the preset expects them
) -> tuple[TrainingConfig, ImageDataset | None]:
    """Preset, options, `--set` assignments and the data set -> the complete config, and the data set.

    Raises UserError for everything that doesn't fit.
    """
    given = {o: values[o.name] for o in OPTIONS if values.get(o.name) is not None}
    if preset not in PRESETS:
        near = difflib.get_close_matches(preset, PRESETS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(PRESETS)}"
        raise UserError(f"--cfg={preset}: there is no such preset; {hint} --import=FILE.py brings one of your own")
    chosen = PRESETS[preset]
    data = _data_config(chosen, given, settings)
    if needs_data or is_hub(data.path) or os.path.exists(os.path.expanduser(located(data.path))):
        dataset = open_dataset(data.path, data.use_labels, data.max_size, data.mirror)
        count = len(dataset) // (2 if data.mirror else 1)
        if data.max_size is not None and count < data.max_size:
            raise UserError(f"--subset={data.max_size}: {data.path} holds only {count} images")
        shape, label_dim = dataset.image_shape, dataset.label_dim
    else:
        dataset, (shape, label_dim) = None, _expected_images(chosen, data.path)
    cfg = chosen.build(max(shape[1:]), gpus)
    cfg.preset, cfg.gpus, cfg.data = preset, gpus, data
    _apply(cfg, given)
    for assignment in settings:
        set_field(cfg, assignment)
    _fit_networks(cfg, shape, label_dim)
    if dataset is not None:
        _fit_space(cfg, dataset)
        cfg.data.path = dataset.path  # absolute: a run can be continued and measured from any folder
    return cfg, dataset


def resolve_run(
    folder: str, gpus: int, values: dict[str, Any], settings: Sequence[str]
) -> tuple[TrainingConfig, ImageDataset]:
    """The config of an existing run with what the command line changes, and its data set. Raises UserError."""
    return _resolve_on(read_config(Path(folder)), gpus, values, settings)


def resolve_options(
    file: str, gpus: int, values: dict[str, Any], settings: Sequence[str]
) -> tuple[TrainingConfig, ImageDataset]:
    """The same for a new run with the options of an old one: `file` is its training_options.json."""
    path = Path(file)
    if not path.is_file():
        what = f"a folder; name the {OPTIONS_FILE} in it" if path.is_dir() else "no file"
        raise UserError(f"--config={file} is {what}")
    return _resolve_on(read_config(path.parent, path.name), gpus, values, settings)


def _resolve_on(
    cfg: TrainingConfig, gpus: int, values: dict[str, Any], settings: Sequence[str]
) -> tuple[TrainingConfig, ImageDataset]:
    given = {o: values[o.name] for o in OPTIONS if values.get(o.name) is not None}
    cfg.gpus = gpus
    _apply(cfg, given)
    for assignment in settings:
        set_field(cfg, assignment)
    data = cfg.data
    dataset = open_dataset(data.path, data.use_labels, data.max_size, data.mirror)
    data.path = dataset.path
    _fit_networks(cfg, dataset.image_shape, dataset.label_dim)
    _fit_space(cfg, dataset)
    return cfg, dataset


def _fit_networks(cfg: TrainingConfig, shape: tuple[int, int, int], label_dim: int) -> None:
    for network in (cfg.G, cfg.D):
        network.img_resolution, network.img_channels, network.c_dim = shape[1:], shape[0], label_dim


def _fit_space(cfg: TrainingConfig, dataset: ImageDataset) -> None:
    """Latents say which space they are in. A space of pixels is chosen by the config."""
    stored = from_dict(ImageSpaceConfig, dataset.space)
    if isinstance(stored, LatentsConfig):
        cfg.G.space = stored
    elif isinstance(cfg.G.space, LatentsConfig):
        raise UserError(
            f"G.space.kind=latents: {dataset.path} holds pictures; dataset_tool.py --encode=vae encodes them"
        )


def drop_pictures(cfg: TrainingConfig) -> str | None:
    """Takes the metrics out where no pictures can be decoded to measure; returns a line that says so."""
    try:
        build_space(cfg.G.space).check()
    except UserError as e:
        without = f"pictures and {', '.join(cfg.metrics)}" if cfg.metrics else "pictures"
        cfg.metrics = []
        return f"training goes on without {without}: {e}"
    return None


def drop_missing_metrics(cfg: TrainingConfig) -> str | None:
    """Takes metrics out whose detector can't be had; returns a line that says so."""
    missing = []
    for name in cfg.metrics:
        try:
            require_detectors([name])
        except DetectorMissing as e:
            missing.append((name, e))
    if not missing:
        return None
    dropped = [name for name, _ in missing]
    cfg.metrics = [name for name in cfg.metrics if name not in dropped]
    return f"training goes on without {', '.join(dropped)}: {missing[0][1]}"


def _data_config(chosen: Preset, given: dict[Option, Any], settings: Sequence[str]) -> DataConfig:
    """Which data: needed before the preset, which may depend on the images' size."""
    holder = TrainingConfig()
    holder.data.path, holder.data.mirror = chosen.data or "", chosen.mirror
    for option, value in given.items():
        if option.field is not None and option.field.startswith("data."):
            _assign(holder, option.field, value)
    for assignment in settings:
        if assignment.startswith("data."):
            set_field(holder, assignment)
    if not holder.data.path:
        raise UserError("which images? --data=FILE.zip (dataset_tool.py makes one), or --cfg=demo for the embedded set")
    return holder.data


def _expected_images(chosen: Preset, path: str) -> tuple[tuple[int, int, int], int]:
    if chosen.resolution is None:
        raise UserError(f"{path} does not exist, and this preset takes its settings from the images")
    return (3, *chosen.resolution), 0


def _apply(cfg: TrainingConfig, given: dict[Option, Any]) -> None:
    names = {option.name: value for option, value in given.items()}
    if "g_dict" in names and not isinstance(cfg.G, StyleformerConfig):
        cfg.G = StyleformerConfig(mapping_layers=cfg.G.mapping_layers)
    mode = names.get("aug", cfg.ada.mode)
    if "p" in names and mode != "fixed":
        raise UserError("--p is the probability of --aug=fixed; add that, or leave --p out")
    if mode == "fixed" and "p" not in names and names.get("aug"):
        raise UserError("--aug=fixed wants its probability, such as --p=0.2")
    if "target" in names and mode != "ada":
        raise UserError(f"--target steers --aug=ada, not --aug={mode}")
    for option in sorted(given, key=lambda o: o.name == "batch"):  # --batch looks at --batch-gpu
        _check_needs(cfg, option)
        if option.field is not None:
            _assign(cfg, option.field, given[option])
        else:
            assert option.apply is not None
            option.apply(cfg, given[option])


def _check_needs(cfg: TrainingConfig, option: Option) -> None:
    if option.needs is None or isinstance(cfg.G, option.needs) or isinstance(cfg.D, option.needs):
        return
    is_d = issubclass(option.needs, DiscriminatorConfig)
    what, field, kind = ("discriminator", "D", cfg.D.kind) if is_d else ("generator", "G", cfg.G.kind)
    wanted = option.needs.kind
    raise UserError(
        f"{option.flag} is for {wanted}, but the {what} is {kind}; --set {field}.kind={wanted} changes that"
    )


def _assign(cfg: TrainingConfig, path: str, value: Any) -> None:
    *parents, leaf = path.split(".")
    setattr(reduce(getattr, parents, cfg), leaf, value)


def check_config(cfg: TrainingConfig) -> tuple[int, int]:
    """Parameter counts of G and D. UserError where the parts of the config don't go together."""
    check(cfg)
    if cfg.batch_gpu is None and cfg.batch % cfg.gpus:
        raise UserError(f"a batch of {cfg.batch} can't be split over {cfg.gpus} processes")
    if cfg.batch % (cfg.micro_batch * cfg.gpus):
        raise UserError(
            f"a batch of {cfg.batch} is no multiple of {cfg.gpus} processes x {cfg.micro_batch} images per micro-batch"
        )
    if not 0 <= cfg.seed < 2**32:
        raise UserError(f"seed={cfg.seed}: seeds lie between 0 and 2^32 - 1")
    for name in cfg.metrics:
        if FAMILIES[parse_name(name).family].needs_held_out:
            raise UserError(f"--metrics={name}: it needs held-out pictures, so calc_metrics.py measures it afterwards")
    cfg.loss.check(cfg.G, cfg.D)
    check_ramps(cfg)
    check_trackers(cfg.trackers)
    if len(set(cfg.ema.posthoc)) != len(cfg.ema.posthoc) or len(cfg.ema.posthoc) > MAX_AVERAGES:
        raise UserError(f"ema.posthoc={list(cfg.ema.posthoc)}: at most {MAX_AVERAGES} lengths, each once")
    if cfg.ema.posthoc_kimg is not None and not cfg.ema.posthoc:
        raise UserError(f"ema.posthoc_kimg={cfg.ema.posthoc_kimg:g}: there is nothing to store without --posthoc-ema=1")
    if isinstance(cfg.ada.p, Ramp) and cfg.ada.mode != "fixed":
        raise UserError(f"ada.p is a ramp, which needs --aug=fixed, not --aug={cfg.ada.mode}")
    if cfg.data.mirror and not build_space(cfg.G.space).may_mirror:
        raise UserError(f"--mirror=1: {cfg.G.space.kind} can't be mirrored; convert mirrored pictures too instead")
    if cfg.ada.mode in ("ada", "fixed"):
        cfg.ada.pipe.check_channels(cfg.G.img_channels)
    with torch.device("meta"):
        G, D = networks.build(cfg.G), networks.build(cfg.D)
        cfg.loss.check_levels(G)  # type: ignore[arg-type]
    g_size, d_size = (sum(p.numel() for p in net.parameters()) for net in (G, D))
    return g_size, d_size
