"""Whether the ops and networks compute on a device what they compute in float64 or on the CPU."""

from collections.abc import Callable
from typing import Any

import torch

from support import official_files
from support.golden import rel_err
from support.gpu.steps import Setting, require
from support.op_cases import ATTENTION_GRID, FILTERS, attention_inputs, error, random_tensor, zero_insertion
from torch_utils import ops
from torch_utils.ops.bias_act import bias_act
from torch_utils.ops.bias_act.activations import ACTIVATIONS
from torch_utils.ops.build import library
from torch_utils.ops.neighborhood_attention import na2d
from torch_utils.ops.upfirdn2d import upfirdn2d
from training import networks

TOLERANCES = {torch.float64: 1e-11, torch.float32: 3e-5, torch.float16: 3e-2, torch.bfloat16: 2e-1}


def build(setting: Setting) -> dict[str, Any]:
    """The compiled ops of the device."""
    status = library.ensure(setting.device.type)
    require(status.loaded, f"the ops of {setting.device.type} are not compiled: {status.reason}")
    return {"torch": torch.__version__, "cuda": torch.version.cuda}


def _orders(function: Callable[..., torch.Tensor], leaves: list[torch.Tensor], is_twice: bool) -> list[torch.Tensor]:
    """Output, gradients and, if asked for, gradients of the gradients' squares."""
    y = function(*leaves)
    first = torch.autograd.grad(y, leaves, torch.linspace(-1, 1, y.numel()).view(y.shape).to(y), create_graph=is_twice)
    if not is_twice:
        return [y, *first]
    nothing = sum(0 * leaf.sum() for leaf in leaves)  # piecewise linear ops have no second derivative
    return [y, *first, *torch.autograd.grad(sum((g**2).sum() for g in first) + nothing, leaves)]


def _compare(
    name: str, setting: Setting, function: Callable, leaves: list[torch.Tensor], worst: dict[str, float]
) -> None:
    """The device's kernels against the reference in float64, for each dtype and for strided inputs."""
    for dtype, tolerance in TOLERANCES.items():
        is_twice = dtype in (torch.float64, torch.float32)
        exact = [t.to(dtype).double().requires_grad_() for t in leaves]
        with ops.use("ref"):
            want = _orders(function, exact, is_twice)
        there = [t.to(dtype).to(setting.device) for t in leaves]
        strided = [torch.stack([t, t], -1)[..., 0] for t in there]
        for layout, tensors in (("dense", there), ("strided", strided)):
            with ops.use("compiled"):
                got = _orders(function, [t.detach().requires_grad_() for t in tensors], is_twice)
            found = max((error(a.cpu(), b) for a, b in zip(got, want, strict=True)), key=lambda e: (e != e, e))
            key = f"{name} {str(dtype).removeprefix('torch.')}"
            worst[key] = max(worst.get(key, 0.0), found)
            require(found < tolerance, f"{key}, {layout}: {found:.2g} from the reference, more than {tolerance:g}")


def op_grid(setting: Setting) -> dict[str, Any]:
    """Every op, dtype and order of gradient, dense and strided."""
    worst: dict[str, float] = {}
    for shape, kernel, dilation in ATTENTION_GRID[: 3 if setting.is_small else None]:
        inputs = attention_inputs(shape, kernel, torch.float64)
        _compare("na2d", setting, lambda q, k, v, r, w=kernel, d=dilation: na2d(q, k, v, w, d, r), inputs, worst)
    for act in list(ACTIVATIONS)[: 2 if setting.is_small else None]:
        inputs = [random_tensor(2, 3, 4, 8), random_tensor(3, seed=1)]  # far from the clamp, where 16 bits may jump
        _compare("bias_act", setting, lambda x, b, a=act: bias_act(x, b, act=a, clamp=50), inputs, worst)
    for f in FILTERS.values():
        for up, down in ((2, 1), (1, 2), (3, 2)):
            x, taps = random_tensor(1, 2, 9, 12), f.double() / f.double().abs().sum()
            want = zero_insertion(x, taps, (up, up), (down, down), (6, 5, 6, 5), False, 1.0)
            for dtype, tolerance in TOLERANCES.items():
                got = upfirdn2d(x.to(setting.device, dtype), taps.to(setting.device), up, down, [6, 5, 6, 5])
                found = error(got.cpu(), want)
                require(found < tolerance, f"upfirdn2d {dtype}: {found:.2g} from the definition")
    return {"worst": worst}


def golden_networks(setting: Setting) -> dict[str, Any]:
    """Pictures and judgements of networks in the original programs' files, against those that the originals gave."""
    found = {}
    for name in official_files.FILES[: 1 if setting.is_small else None]:
        is_pickle = name in official_files.PICKLES
        loaded = networks.load(official_files.unpack(name, setting.work), device=setting.device)
        want = official_files.expected(name)
        there = {key: t.to(setting.device) for key, t in want.items()}
        G, D = loaded["G_ema"], loaded["D"]
        with torch.no_grad():
            picture = G.synthesis(there["w"], noise_mode="none") if is_pickle else G(there["z"], None)
            logits = D(there["img"], None)
        judged = want["logits" if is_pickle else "logits_of_img_imagenet_normalised"]
        found[name] = max(rel_err(picture.cpu(), want["img"]), rel_err(logits.cpu(), judged))
        require(found[name] < 1e-3, f"{name}: {found[name]:.2g} from the original's numbers")
    return {"relative error": found}
