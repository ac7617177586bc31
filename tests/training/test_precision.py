"""Every speed option trains the same within its stated tolerance."""

import copy
from functools import partial

import pytest
import torch
from support.tiny_runs import recipe, trainer

from dnnlib.errors import UserError
from training import networks
from training.config import TrainingConfig
from training.networks.discriminators.stylegan2 import StyleGAN2DiscriminatorConfig
from training.networks.generators.styleformer import StyleformerConfig, SynthesisNetwork
from training.networks.generators.styleformer_c import StyleformerCConfig
from training.networks.generators.stylegan2 import StyleGAN2Config
from training.networks.generators.stylenat import StyleNATConfig
from training.step.precision import apply_precision, is_channels_last

ROUNDING = {"bfloat16": 2**-8, "float16": 2**-11}  # unit roundoff
# Half precision may err so many times as much as random relative changes of one roundoff at every layer's inputs and
# outputs do in float32. Measured: up to 3 times, 6.4 in float16 by AVX-512 without its own; processors differ in
# where else they round.
MARGIN = 10
MARGINS = {"gat": 15}  # its blocks also round between the layers: softmax, gates, sums
TRIALS = 3  # of such changes; the worst counts
SETTINGS = {
    "ada": ("D.channel_base=512", "D.channel_max=32", "D.mbstd_group_size=4", "half_resolutions=2"),
    "bcr": ("D.channels=[16,32,32]", "D.mbstd_group_size=4", "half_resolutions=2"),
    "gat": ("half_resolutions=2",),
}
COMMON = {"z_dim": 16, "w_dim": 16, "mapping_layers": 2, "img_resolution": (32, 32)}
GENERATORS = {
    "styleformer": StyleformerConfig(**COMMON, g_dict=[32, 32, 16], num_layers=[1, 2, 1], depth=16, linformer=True),
    "stylegan2": StyleGAN2Config(**COMMON, channel_base=512, channel_max=32),
    "styleformer_c": StyleformerCConfig(**COMMON, g_dict=[32, 32], num_layers=[1, 1], depth=16, channel_base=512),
    "stylenat": StyleNATConfig(**COMMON, channels=[32, 32, 32, 16], kernels=[[3]] * 4, min_heads=2),
    "swin": StyleNATConfig(**COMMON, channels=[32, 32, 32, 16], block_type="swin", min_heads=2),
}


def error(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


class Rounded(torch.autograd.Function):
    """Changes every value, and every gradient, by up to one roundoff, at random."""

    @staticmethod
    def forward(ctx, x: torch.Tensor, roundoff: float, random: torch.Generator) -> torch.Tensor:
        ctx.how = roundoff, random
        return x * (1 + roundoff * (2 * torch.rand(x.shape, generator=random) - 1))

    @staticmethod
    def backward(ctx, grad: torch.Tensor):
        return Rounded.apply(grad, *ctx.how), None, None


def disturb(network: torch.nn.Module, dtype: str, trial: int, resolutions: int = 2) -> None:
    """Makes the layers of the highest resolutions round, in float32, what a lower precision would round."""
    random = torch.Generator().manual_seed(trial)

    def rounded(value):
        is_number = isinstance(value, torch.Tensor) and value.is_floating_point()
        return Rounded.apply(value, ROUNDING[dtype], random) if is_number else value

    for module in (
        m for group in network.resolution_modules()[-resolutions:] for part in group for m in part.modules()
    ):
        if not list(module.children()):
            module.register_forward_pre_hook(lambda module, inputs: tuple(map(rounded, inputs)))
            module.register_forward_hook(lambda module, inputs, output: rounded(output))


def gradient(t, phase: int) -> torch.Tensor:
    """All gradients of one phase, without the step."""
    found: list[torch.Tensor] = []
    spec = t.phases[phase]
    player = copy.copy(t.players[spec.player])
    player.update = lambda nimg, clip: found.extend(  # type: ignore[method-assign]
        x.grad.flatten().clone() for x in player.parameters if x.grad is not None
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(t.players, spec.player, player)
        t._run_phase(phase, spec)
    return torch.cat(found)


@pytest.mark.parametrize("dtype", list(ROUNDING))
@pytest.mark.parametrize("name", list(SETTINGS))
def test_half_precision_is_close(name, dtype):
    """Logits, and the gradients of every phase; path length and R1 differentiate twice."""
    settings = SETTINGS[name]
    full, half = trainer(recipe(name, *settings)), trainer(recipe(name, *settings, f"precision={dtype}"))
    disturbed = [trainer(recipe(name, *settings)) for _ in range(TRIALS)]
    for trial, t in enumerate(disturbed):
        disturb(t.G, dtype, trial)
        disturb(t.D, dtype, trial)
    images = torch.rand(8, 3, 32, 32) * 2 - 1
    logits, exact = half.D(images), full.D(images)
    assert logits.dtype == torch.float32
    assert 0 < error(logits, exact) <= MARGIN * max(error(t.D(images), exact) for t in disturbed)
    for index, phase in enumerate(full.phases):
        mine, exact = gradient(half, index), gradient(full, index)
        assert mine.dtype == torch.float32
        if (name, dtype, phase.name) == ("gat", "float16", "Dreg"):
            continue  # second derivatives of a fresh GAT are below float16's range: docs/gat.md names bfloat16
        limit = MARGINS.get(name, MARGIN) * max(error(gradient(t, index), exact) for t in disturbed)
        assert 0 < error(mine, exact) <= min(limit, 0.9), phase.name


@pytest.mark.parametrize("dtype", list(ROUNDING))
@pytest.mark.parametrize("kind", list(GENERATORS))
def test_half_precision_generators_are_close(kind, dtype):
    torch.manual_seed(0)
    full = networks.build(GENERATORS[kind]).requires_grad_(False)
    half = copy.deepcopy(full)
    cfg = TrainingConfig(precision=dtype, half_resolutions=2)
    apply_precision(half, networks.build(StyleGAN2DiscriminatorConfig(img_resolution=(32, 32), channel_max=8)), cfg)
    ws = full.mapping(torch.randn(4, 16), None)
    images, exact = (network.synthesis(ws, noise_mode="const") for network in (half, full))
    assert images.dtype == torch.float32
    errors = []
    for trial in range(TRIALS):
        disturbed = copy.deepcopy(full)
        disturb(disturbed, dtype, trial)
        errors.append(error(disturbed.synthesis(ws, noise_mode="const"), exact))
    assert 0 < error(images, exact) <= MARGIN * max(errors)


def test_half_precision_does_not_depend_on_the_scale_of_weights():
    """Demodulation cancels it, so weights beyond float16's 65504 must give the same image."""
    torch.manual_seed(0)
    full = networks.build(GENERATORS["stylegan2"]).requires_grad_(False)
    half = copy.deepcopy(full)
    for name, weight in half.synthesis.named_parameters():
        if name.endswith(("conv0.weight", "conv1.weight")):
            weight.mul_(1e5)
    D = networks.build(StyleGAN2DiscriminatorConfig(img_resolution=(32, 32), channel_max=8))
    apply_precision(half, D, TrainingConfig(precision="float16"))
    z = torch.randn(2, 16)
    assert error(half(z, noise_mode="const"), full(z, noise_mode="const")) <= 10 * ROUNDING["float16"]


def test_only_the_highest_resolutions_are_lowered():
    t = trainer(recipe("ada", *SETTINGS["ada"], "precision=bfloat16"))
    seen = {}

    def watch(name, module):
        module.register_forward_hook(
            lambda m, i, o: seen.update({name: (i[0] if i[0] is not None else i[1]).dtype})
        )  # fmt: skip

    for name in ("b32", "b16", "b8", "b4"):
        watch(f"D.{name}", t.D.get_submodule(name))
    for name in ("b32_0", "b16_0", "b8_0"):
        watch(f"G.{name}", t.G.synthesis.get_submodule(f"{name}.enc"))
    t.D(t.G(torch.zeros(4, 16)), None)
    for high in ("D.b32", "D.b16", "G.b32_0", "G.b16_0"):
        assert seen[high] == torch.bfloat16, high
    for low in ("D.b8", "D.b4", "G.b8_0"):
        assert seen[low] == torch.float32, low
    assert all(p.dtype == torch.float32 for p in (*t.D.parameters(), *t.G.parameters()))


@pytest.mark.parametrize("name", ["ada", "bcr"])
def test_bfloat16_of_all_resolutions(name):
    """Without a number of them; the logits' layer, statistics and styles stay float32."""
    settings = [s for s in SETTINGS[name] if not s.startswith("half")]
    t = trainer(recipe(name, *settings, "precision=bfloat16"))
    parts = {
        "ada": ("D.b4.conv", "G.synthesis.b8_0.enc", "D.b4.out", "G.synthesis.b8_0.enc.affine1"),
        "bcr": (
            "D.final_conv",
            "G.synthesis.layers.0",
            "D.final_linear.2",
            "G.synthesis.layers.0.blocks.0.norm1.style",
        ),
    }[name]
    seen: list[torch.dtype] = []
    networks = torch.nn.ModuleDict({"G": t.G, "D": t.D})
    for part in parts:
        networks.get_submodule(part).register_forward_hook(lambda m, i, o: seen.append(o.dtype))
    logits = t.D(t.G(torch.zeros(4, 16)), None)
    assert sorted(map(str, seen)) == ["torch.bfloat16"] * 2 + ["torch.float32"] * (len(seen) - 2)
    assert logits.dtype == torch.float32


def test_the_lowest_resolution_stays_float32_if_their_number_is_given():
    t = trainer(recipe("ada", *SETTINGS["ada"], "half_resolutions=9", "precision=bfloat16"))
    assert not any(p.dtype != torch.float32 for p in t.D.b4.parameters())
    seen = []
    t.G.synthesis.b8_0.enc.register_forward_hook(lambda m, i, o: seen.append(i[0].dtype))
    t.G(torch.zeros(1, 16))
    assert seen == [torch.float32]


def test_a_generator_without_resolutions_refuses_half_precision(monkeypatch):
    monkeypatch.delattr(SynthesisNetwork, "resolution_modules")
    with pytest.raises(UserError, match="--precision=bfloat16 is not for this generator"):
        trainer(recipe("ada", "precision=bfloat16"))


def test_channels_last_is_the_same_within_rounding():
    """Gradients: after a step of Adam, whose beta1 is 0, even rounding of tiny ones shows."""
    a, b = trainer(recipe("ada", "nhwc=false")), trainer(recipe("ada"))
    assert not a.D.b16.conv0.weight.is_contiguous(memory_format=torch.channels_last)
    assert b.D.b16.conv0.weight.is_contiguous(memory_format=torch.channels_last)
    for phase in range(4):
        assert error(gradient(b, phase), gradient(a, phase)) <= 1e-4, a.phases[phase].name


def test_channels_last_takes_the_same_step():
    """With a large epsilon a step of Adam is in proportion to the gradient."""
    steps = []
    for layout in ("false", "true"):
        t = trainer(recipe("ada", f"nhwc={layout}", "D_opt.eps=1", "G_opt.eps=1"))
        before = [p.detach().clone() for p in (*t.D.parameters(), *t.G.parameters())]
        t.step()
        steps.append([p.detach() - q for p, q in zip((*t.D.parameters(), *t.G.parameters()), before)])
    for a, b in zip(*steps):
        assert (a - b).norm() <= 1e-3 * a.norm() + 1e-8


def places(t: torch.Tensor) -> list[int]:
    """Where elements lie: the strides of the axes that have more than one."""
    return [stride for stride, count in zip(t.stride(), t.shape) if count > 1]


def test_the_optimisers_meet_one_layout_only():
    """Compiled optimisers read parameter, gradient and state by their place in memory, whatever the strides say. Runs
    of earlier versions left states of another layout."""
    a, b = trainer(recipe("ada", "nhwc=false")), trainer(recipe("ada"))
    a.step()
    b.load_state(a.state())
    b.players["D"].update = lambda nimg, clip: None  # type: ignore[method-assign]
    b._run_phase(0, next(p for p in b.phases if p.player == "D"))
    mine, old = b.players["D"], a.players["D"]
    assert not all(p.is_contiguous() for p in mine.parameters)
    for p, q in zip(mine.parameters, old.parameters):
        if p.grad is not None:
            assert places(p.grad) == places(p)
        for slot, value in old.optimizer.state[q].items():
            got = mine.optimizer.state[p][slot]
            assert torch.equal(got, value)
            assert got.ndim == 0 or places(got) == places(p)


@pytest.mark.parametrize(
    ("nhwc", "precision", "device", "expected"),
    [
        (None, "bfloat16", "cuda", True),
        (None, "float32", "cuda", False),
        (None, "auto", "cuda", False),
        (None, "float32", "cpu", True),
        (False, "bfloat16", "cpu", False),
        (False, "float16", "cuda", False),
        (True, "float32", "cpu", True),
    ],
)
def test_channels_last_by_default_where_tensor_cores_want_it(nhwc, precision, device, expected):
    assert is_channels_last(TrainingConfig(nhwc=nhwc, precision=precision), torch.device(device)) is expected


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        ("ada", "aot_eager"),
        pytest.param("ada", "inductor", marks=pytest.mark.soak),
        pytest.param("bcr", "inductor", marks=pytest.mark.soak),
    ],
)
def test_compiled_phases_are_the_same_within_rounding(name, backend, monkeypatch):
    """With the same random draws: the gradients of every phase, compiled or not. The quick back end captures and
    differentiates graphs as the real one does, and then runs them without generating code."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    plain, compiled = trainer(recipe(name)), trainer(recipe(name, "compile=true"))
    assert compiled.objective.first_order.D is not compiled.D
    for phase in range(len(plain.phases)):
        assert error(gradient(compiled, phase), gradient(plain, phase)) <= 1e-4, plain.phases[phase].name


def test_a_machine_that_cannot_compile_trains_without(monkeypatch):
    def fails(*args, **kwargs):
        raise RuntimeError("no compiler\nhere")

    monkeypatch.setattr(torch, "compile", fails)
    with pytest.warns(UserWarning, match="--compile has no effect.*: no compiler here$"):
        t = trainer(recipe("ada", "compile=true"))
    t.step()
    assert t.objective.first_order.D is t.D


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["ada", "bcr", "gat"])
def test_networks_compile_without_graph_breaks(name, precision):
    """fullgraph raises at the first thing that torch.compile can't follow."""
    t = trainer(recipe(name, f"precision={precision}"))
    whole = partial(torch.compile, fullgraph=True, backend="eager")
    images = whole(t.G.synthesis)(t.G.mapping(torch.zeros(2, t.G.z_dim), None), noise_mode="random")
    assert whole(t.D)(images, None).shape == (2, 1)
