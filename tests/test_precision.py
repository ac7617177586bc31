"""Every speed option trains the same within its stated tolerance."""

import pytest
import torch
from tiny_runs import recipe, trainer

from dnnlib.errors import UserError

LOGITS = {"bfloat16": 0.02, "float16": 0.005}
GRADIENTS = {"bfloat16": 0.15, "float16": 0.03}
SETTINGS = ("D.channel_base=512", "D.channel_max=32", "D.mbstd_group_size=4", "half_resolutions=2")


def error(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


def gradient(t, phase: int) -> torch.Tensor:
    """All gradients of one phase, without the step."""
    found: list[torch.Tensor] = []
    p = t.phases[phase]
    p.update = lambda nimg: found.extend(x.grad.flatten().clone() for x in p.parameters if x.grad is not None)
    t._run_phase(phase, p)
    return torch.cat(found)


@pytest.mark.parametrize("dtype", list(LOGITS))
def test_half_precision_is_close(dtype):
    """Logits, and D's gradients of the main step and of R1, which differentiates twice."""
    full, half = trainer(recipe("ada", *SETTINGS)), trainer(recipe("ada", *SETTINGS, f"precision={dtype}"))
    images = torch.rand(8, 3, 32, 32) * 2 - 1
    logits = half.D(images)
    assert logits.dtype == torch.float32
    assert 0 < error(logits, full.D(images)) <= LOGITS[dtype]
    for phase in (2, 3):
        mine, exact = gradient(half, phase), gradient(full, phase)
        assert mine.dtype == torch.float32
        assert 0 < error(mine, exact) <= GRADIENTS[dtype], full.phases[phase].name


def test_only_the_highest_resolutions_are_lowered():
    t = trainer(recipe("ada", *SETTINGS, "precision=bfloat16"))
    seen = {}
    for name in ("b32", "b16", "b8", "b4"):
        block = t.D.get_submodule(name)
        block.register_forward_hook(lambda m, i, o, name=name: seen.update({name: i[0] if i[0] is not None else i[1]}))
    t.D(torch.zeros(4, 3, 32, 32))
    assert [seen[n].dtype for n in ("b32", "b16", "b8", "b4")] == [torch.bfloat16] * 2 + [torch.float32] * 2
    assert all(p.dtype == torch.float32 for p in t.D.parameters())


def test_other_discriminators_refuse_half_precision():
    with pytest.raises(UserError, match="--precision=bfloat16 is for the StyleGAN2 discriminator"):
        trainer(recipe("bcr", "precision=bfloat16"))


def test_channels_last_is_the_same_within_rounding():
    """Gradients: after a step of Adam, whose beta1 is 0, even rounding of tiny ones shows."""
    a, b = trainer(recipe("ada")), trainer(recipe("ada", "nhwc=true"))
    assert b.D.b16.conv0.weight.is_contiguous(memory_format=torch.channels_last)
    for phase in range(4):
        assert error(gradient(b, phase), gradient(a, phase)) <= 1e-4, a.phases[phase].name
