"""The relativistic objective: the originals' losses, penalties and gradients; approximate against exact penalties."""

import math

import pytest
import torch
from support import golden, official_files
from support.tiny_runs import EMOJI, everything, recipe, trainer

from dnnlib.errors import UserError
from torch_utils.training_stats import BatchMean, Collector
from training import networks
from training.augment.draw import NoAugmentation
from training.networks.generators.gat import GATGenerator
from training.networks.official import gat, r3gan
from training.objectives.base import MicroBatch
from training.objectives.guidance import LevelNoise, noise_levels
from training.objectives.penalties import approximate_penalty, gradient_penalty
from training.objectives.relativistic import Relativistic, RelativisticConfig
from training.options import check_config, resolve


def relativistic(G, D, **fields) -> Relativistic:
    for network in (G, D):
        network.requires_grad_(True)
        network.zero_grad()
    return Relativistic(RelativisticConfig(**fields), G, D, NoAugmentation(), Collector(), BatchMean())


def check_gradients(module, expected, rename, bound: float) -> None:
    """Large gradients keep every eighth row only; kernels of patch convolutions are matrices here."""
    parameters = {name: p for name, p in module.named_parameters() if p.grad is not None}
    checked = 0
    for name, value in expected.items():
        own = rename(name)
        if own not in parameters or value.abs().max() < 1e-8:  # 0 by analysis
            continue
        gradient = parameters[own].grad
        kept = gradient if len(gradient) == len(value) else gradient[::8]
        assert golden.rel_err(kept, value.reshape(kept.shape)) <= bound, name
        checked += 1
    assert checked >= 0.9 * len(parameters)


def replay(monkeypatch, draws: list[torch.Tensor]) -> None:
    """torch's normal numbers are these, in this order."""
    left = iter(draws)
    monkeypatch.setattr(torch, "randn", lambda *a, **k: next(left).clone())
    monkeypatch.setattr(torch, "randn_like", lambda *a, **k: next(left).clone())


def test_r3gan_losses_penalties_and_gradients(tmp_path, monkeypatch):
    data = golden.load("r3gan")
    loaded = networks.load(official_files.unpack("official_r3gan_0.pkl", tmp_path))
    G, D = loaded["G"], loaded["D"]
    objective = relativistic(G, D, gamma=0.7)
    batch = MicroBatch(torch.zeros(4, 0), data["in/real"], torch.zeros(4, 0))
    replay(monkeypatch, [data["in/z"]] * 2)
    G.requires_grad_(False)
    loss = objective.d_main(batch)
    expected = data["D/adversarial"] + 0.35 * (data["D/r1"] + data["D/r2"])
    assert golden.rel_err(loss, expected.mean()) <= 1e-5
    stats = objective.stats.take()
    for name in ("r1", "r2"):
        assert stats[f"Loss/{name}_penalty"]["mean"] == pytest.approx(float(data[f"D/{name}"].mean()), rel=1e-5)
    assert stats["Loss/scores/pair"]["mean"] == pytest.approx(float(data["D/relativistic"].mean()), rel=1e-4)
    loss.backward()
    check_gradients(
        D, golden.state(data, "gradp/D/Model."), lambda name: r3gan.own_discriminator_name(name, 3, 2), 2e-5
    )
    D.requires_grad_(False)
    G.requires_grad_(True)
    loss = objective.g_main(batch)
    assert golden.rel_err(loss, data["G/adversarial"].mean()) <= 1e-5
    loss.backward()
    check_gradients(G, golden.state(data, "gradp/G/Model."), r3gan.own_generator_name, 2e-5)


def test_gat_losses_with_the_recorded_draws(tmp_path, monkeypatch):
    """Multi-level guidance, approximate R1 and R2. The penalties cancel in float32, hence 1e-2."""
    data, of_g = golden.load("gat_losses"), golden.load("gat_generator")
    official = networks.load(official_files.unpack("official_gat.pt", tmp_path))
    G, D = networks.build(official["G"].cfg), official["D"]
    G.load_state_dict({gat.own_generator_name(name): t for name, t in golden.state(of_g).items()})
    objective = relativistic(G, D, gamma=0.1, penalty="approximate", guidance="mng")
    c = torch.eye(5)[data["in/y"]]
    batch = MicroBatch(c, data["in/real"], c)
    draws = [data[f"draw/disc{i:02d}"] for i in range(15)]
    # The original draws R1's noise before R2's; ours judges fakes first, but asks for the penalties in that order too.
    replay(monkeypatch, [draws[0], *draws[2:]])
    G.requires_grad_(False)
    loss = objective.d_main(batch)
    stats = objective.stats.take()
    for name in ("r1", "r2"):
        assert stats[f"Loss/{name}_penalty"]["mean"] == pytest.approx(float(data[f"out/{name}"].mean()), rel=1e-2)
    assert golden.rel_err(loss, data["out/disc_total"].mean()) <= 1e-3
    loss.backward()
    check_gradients(D, golden.state(data, "gradp/D/"), gat.own_discriminator_name, 1e-2)
    D.requires_grad_(False)
    G.requires_grad_(True)
    draws = [data[f"draw/gen{i:02d}"] for i in range(10)]
    replay(monkeypatch, [draws[0], *draws[2:]])
    loss = objective.g_main(batch)
    assert golden.rel_err(loss, data["out/gen_loss"].mean()) <= 1e-5
    loss.backward()
    check_gradients(G, golden.state(data, "gradp/G/"), gat.own_generator_name, 2e-5)


def test_noise_of_the_levels():
    assert noise_levels(4) == pytest.approx([0.885, 0.76, 0.51, 0.01])
    assert noise_levels(1) == pytest.approx([0.01]), "a single picture is the finest level"
    torch.manual_seed(0)
    images = [torch.zeros(20000, 1, 1, 1)] * 4
    noise = LevelNoise.draw(images).apply(images)
    for level, t in zip(noise, noise_levels(4)):
        assert level.std().item() == pytest.approx(t, rel=0.03), "level k has noise of deviation t_k"
    coarse, fine = noise[0].flatten(), noise[1].flatten()
    assert torch.corrcoef(torch.stack([coarse, fine]))[0, 1] > 0.1, "the coarse level's noise holds the finer one's"


def test_guidance_wants_levels_of_one_size(monkeypatch):
    """Told before a training begins, with what the generator's levels are."""
    cfg = resolve("gat_s2", 1, {"data": EMOJI, "kimg": 0.1}, [])[0]
    assert cfg.loss.guidance == "mng"
    check_config(cfg)
    halved = lambda self, x: [torch.nn.functional.avg_pool2d(x, 2), x]  # noqa: E731
    monkeypatch.setattr(GATGenerator, "levels_of", halved)
    with pytest.raises(UserError, match=r"those of gat have 16x16, 32x32 pixels: leave it out") as e:
        check_config(cfg)
    assert "\n" not in str(e.value)
    cfg.loss.guidance = "none"
    check_config(cfg)


def test_approximate_penalty_is_the_exact_one_in_the_mean():
    """In float64, over 4,000 normal directions: within 4 standard errors, plus the step's own error."""
    torch.manual_seed(0)
    D = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(48, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1)
    ).double()
    image = torch.randn(1, 3, 4, 4, dtype=torch.float64)
    exact = gradient_penalty(lambda x: D(x[0]), [image]).item()
    many = image.expand(4000, -1, -1, -1)
    values = approximate_penalty(lambda x: D(x[0]), [many], D(many), step=1e-4)
    error = values.std().item() / math.sqrt(len(values))
    assert values.mean().item() == pytest.approx(exact, abs=4 * error + 1e-3 * exact)


def test_levels_that_a_discriminator_ignores_have_no_penalty():
    """A generator of several levels may meet a discriminator of single pictures, which sees the last level only."""
    coarse, fine = torch.randn(3, 1, 4, 4), torch.randn(3, 1, 4, 4)
    found = gradient_penalty(lambda images: images[-1].square().sum([1, 2, 3]).unsqueeze(1), [coarse, fine])
    assert torch.allclose(found, (2 * fine).square().sum([1, 2, 3]))


def test_gradients_of_the_approximate_penalty():
    """d penalty / d weight by autograd against finite differences, in float64 and with one direction."""
    torch.manual_seed(0)
    weight = torch.randn(12, dtype=torch.float64, requires_grad=True)
    images = [torch.randn(2, 3, 2, 2, dtype=torch.float64)]

    def penalty(weight: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(1)

        def judge(x):
            return torch.tanh(x[0].flatten(1) @ weight)[:, None]

        return approximate_penalty(judge, images, judge(images), step=0.01).sum()

    assert torch.autograd.gradcheck(penalty, [weight])


RELATIVISTIC = {
    "exact, ADA": ["loss.kind=relativistic", "loss.gamma=0.5", "ada.mode=ada", "ada.p=0.3"],
    "lazy": ["loss.kind=relativistic", "loss.gamma=0.5", "loss.interval=2"],
    "approximate, scheduled": [
        "loss.kind=relativistic",
        "loss.penalty=approximate",
        'loss.gamma={"start": 1, "end": 0.1, "kimg": 0.02}',
        'G_opt.lr={"start": 0.002, "end": 0.001, "kimg": 0.02, "shape": "cosine", "warmup_kimg": 0.008}',
        'D_opt.betas=[0, {"start": 0.9, "end": 0.99, "kimg": 0.02}]',
        'ema.half_life_kimg={"start": 0, "end": 0.01, "kimg": 0.02}',
        "ada.mode=fixed",
        'ada.p={"start": 0, "end": 0.5, "kimg": 0.02}',
    ],
    "DiffAugment": ["loss.kind=relativistic", "ada.mode=diffaug"],
}


@pytest.mark.parametrize("settings", RELATIVISTIC.values(), ids=RELATIVISTIC)
@pytest.mark.parametrize("name", ["ada", "bcr"])
def test_resumed_training_is_bit_identical(name, settings):
    whole, first, second = (trainer(recipe(name, *settings)) for _ in range(3))
    for _ in range(4):
        whole.step()
    for _ in range(2):
        first.step()
    second.load_state(first.state())
    for _ in range(2):
        second.step()
    expected, found = everything(whole), everything(second)
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        assert torch.equal(value, found[key]), key


def test_ramps_reach_what_they_are_for():
    t = trainer(recipe("ada", *RELATIVISTIC["approximate, scheduled"]))
    seen = []
    for _ in range(6):
        t.step()
        group = t.players["D"].optimizer.param_groups[0]
        lr = t.players["G"].optimizer.param_groups[0]["lr"]
        seen.append((lr, group["betas"][1], float(t.augment.p)))
    lrs, betas, ps = zip(*seen)
    assert lrs[0] == 0, "warm-up begins at 0"
    assert lrs[2] > lrs[1] > 0
    assert lrs[-1] == pytest.approx(0.001)
    assert betas[0] == pytest.approx(0.9)
    assert betas[-1] == pytest.approx(0.99)
    assert ps == pytest.approx([0.5 * min(n * 4 / 20, 1) for n in range(6)])


def test_pairs_share_the_reals_labels(monkeypatch):
    asked = []
    t = trainer(recipe("ada", "loss.kind=relativistic"))
    generate = t.objective.generate
    monkeypatch.setattr(t.objective, "generate", lambda c, *a, **k: asked.append(c) or generate(c, *a, **k))
    c = torch.zeros(2, 0)
    real = torch.zeros(2, 3, 32, 32)
    for loss in (t.objective.d_main, t.objective.g_main):
        loss(MicroBatch(torch.ones(2, 0), real, c))
    assert all(found is c for found in asked)
    assert len(asked) == 2
