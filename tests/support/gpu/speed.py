"""How fast a device is: ops, sampling, training steps. A step fails where something of ours can't run."""

import warnings
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.stylenat import NoiseImages
from support.gpu.steps import Setting, require
from support.tiny_runs import recipe
from torch_utils import ops
from torch_utils.ops.bias_act import bias_act
from torch_utils.ops.neighborhood_attention import na2d, reference
from torch_utils.ops.upfirdn2d import setup_filter, upfirdn2d
from training import networks
from training.config import TrainingConfig
from training.networks.generators.stylenat import StyleNATConfig
from training.presets import PRESETS
from training.training_loop import Trainer

PAPER_RATE = 32.56  # img/s of StyleNAT FFHQ-256 in its paper, on its authors' GPU
TOO_SMALL = "this GPU's memory is too small"


def flex(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, kernel: int) -> Callable[[], torch.Tensor]:
    """Neighbourhood attention by torch's flex_attention, compiled on a GPU."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    height, width = q.shape[1:3]
    rows, cols = (
        torch.tensor([places[0] for places in reference.window_table(side, kernel, 1)[0]], device=q.device)
        for side in (height, width)
    )

    def sees(b, h, query, key):  # a window is `kernel` consecutive rows and columns from its first
        down, right = key // width - rows[query // width], key % width - cols[query % width]
        return (down >= 0) & (down < kernel) & (right >= 0) & (right < kernel)

    mask = create_block_mask(sees, None, None, height * width, height * width, device=str(q.device))
    run = torch.compile(flex_attention) if q.device.type == "cuda" else flex_attention
    flat = [t.flatten(1, 2).transpose(1, 2) for t in (q, k, v)]
    return lambda: run(*flat, block_mask=mask).transpose(1, 2).unflatten(1, (height, width))


def attention_rivals(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, kernel: int) -> dict[str, Callable[[], object]]:
    """The forward pass by each implementation."""

    def by(name: str) -> Callable[[], object]:
        def work() -> object:
            with ops.use(name):
                return na2d(q, k, v, kernel)

        return work

    return {name: by(name) for name in ("compiled", "ref", "natten")} | {"flex_attention": flex(q, k, v, kernel)}


def op_times(setting: Setting) -> dict[str, Any]:
    """Milliseconds of each op by each implementation, and why one could not run."""
    side, dtypes = (16, [torch.float32]) if setting.is_small else (64, [torch.float32, torch.bfloat16])
    times: dict[str, Any] = {}
    for dtype in dtypes:
        q, k, v = (torch.randn(8, side, side, 4, 32, device=setting.device, dtype=dtype) for _ in range(3))
        x, b = (
            torch.randn(8, 128, side, side, device=setting.device, dtype=dtype),
            torch.randn(128).to(setting.device, dtype),
        )
        f = setup_filter([1, 3, 3, 1], device=setting.device)
        for name, work in attention_rivals(q, k, v, 7).items():
            times[f"na2d {name} {dtype}"] = attempt(setting, work)
        for name in ("compiled", "ref"):
            with ops.use(name):
                times[f"bias_act {name} {dtype}"] = attempt(setting, lambda: bias_act(x, b, act="lrelu", clamp=256))
                times[f"upfirdn2d up 2 {name} {dtype}"] = attempt(setting, lambda: upfirdn2d(x, f, 2, 1, [2, 1, 2, 1]))
    for name, ms in times.items():
        is_ours = " compiled " in name or " ref " in name  # natten may be missing, flex_attention not know a type
        require(isinstance(ms, float) or not is_ours, f"{name}: {ms}")
    return times


@torch.no_grad()
def attempt(setting: Setting, work: Callable[[], object]) -> float | str:
    """Milliseconds, or the error's first line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return round(setting.median_ms(work), 4)
    except Exception as e:
        return f"{type(e).__name__}: {str(e).strip().splitlines()[0][:120]}"


@torch.no_grad()
def sampling(setting: Setting) -> dict[str, Any]:
    """StyleNAT FFHQ-256 (small: a toy) pictures per second, beside the paper's figure."""
    cfg = recipe("bcr").G if setting.is_small else StyleNATConfig(img_resolution=(256, 256))
    G = networks.build(cfg).eval().requires_grad_(False).to(setting.device)
    rates = {}
    for batch in (2,) if setting.is_small else (1, 8, 32):
        z = torch.randn(batch, G.z_dim, device=setting.device)
        rates[f"batch {batch}"] = round(batch * 1000 / setting.median_ms(lambda z=z: G(z), runs=10), 2)
    return {"img/s": rates, "paper": PAPER_RATE}


def preset_speed(setting: Setting) -> dict[str, Any]:
    """Seconds per kimg of every preset at its full size, over 50 steps (small: one step of toys)."""
    results = {}
    for name, preset in {"ada": None, "bcr": None}.items() if setting.is_small else PRESETS.items():
        height, width = (32, 32) if preset is None else preset.resolution or (256, 256)
        cfg = recipe(name) if preset is None else preset.build(max(height, width), 1)
        cfg.metrics, cfg.gpus, cfg.kimg_per_tick = [], 1, 1e9
        cfg.G.img_resolution = cfg.D.img_resolution = (height, width)
        results[name] = attempt_training(setting, cfg, (height, width))
        if setting.device.type == "cuda":
            torch.cuda.empty_cache()
    failed = {name: found for name, found in results.items() if isinstance(found, str) and found != TOO_SMALL}
    require(not failed, "; ".join(f"{name}: {why}" for name, why in failed.items()))
    return results


def attempt_training(setting: Setting, cfg: TrainingConfig, size: tuple[int, int]) -> dict[str, Any] | str:
    """What 50 steps cost, or why they could not be run."""
    try:
        data = NoiseImages()
        data.image_shape = (cfg.G.img_channels, *size)  # type: ignore[attr-defined]
        t = Trainer(cfg, data, setting.device)  # type: ignore[arg-type]
        if setting.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        t.step()
        steps = 1 if setting.is_small else 50
        ms = setting.median_ms(lambda: [t.step() for _ in range(steps)], runs=1)
    except torch.OutOfMemoryError:
        return TOO_SMALL
    except Exception as e:
        return f"{type(e).__name__}: {(str(e).strip().splitlines() or [''])[0][:120]}"
    peak = torch.cuda.max_memory_allocated() / 2**30 if setting.device.type == "cuda" else 0.0
    return {"sec/kimg": round(ms / (steps * cfg.batch), 2), "peak GiB": round(peak, 2)}
