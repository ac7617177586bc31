"""The training step: micro-batches, repeatability, the order of the data, ADA, EMA."""

import pytest
import torch
from support.tiny_runs import recipe, trainer
from torch.utils._python_dispatch import TorchDispatchMode

from dnnlib.config import set_field
from torch_utils.training_stats import BatchMean
from training import training_loop
from training.config import TrainingConfig
from training.dataset import open_dataset
from training.networks.discriminators.stylegan2 import StyleGAN2DiscriminatorConfig
from training.networks.generators.styleformer import StyleformerConfig
from training.step.gradients import keyed_seed, sync_gradients
from training.training_loop import Trainer

EMOJI = "datasets/noto-emoji-32.zip"


def tiny_config(*settings: str) -> TrainingConfig:
    """Every phase is there: ADA at p 0.5, path length, style mixing, R1."""
    cfg = TrainingConfig(batch=8, metrics=[])
    cfg.data.path = EMOJI
    cfg.G = StyleformerConfig(z_dim=16, w_dim=16, mapping_layers=2, g_dict=[16, 16, 8], num_layers=[1, 1, 1], depth=8)
    cfg.D = StyleGAN2DiscriminatorConfig(channel_base=128, channel_max=8, mbstd_group_size=2)
    cfg.ada.p = 0.5
    cfg.loss.pl_interval, cfg.loss.r1_interval = 2, 3
    for s in settings:
        set_field(cfg, s)
    for network in (cfg.G, cfg.D):
        network.img_resolution = (32, 32)
    return cfg


@pytest.fixture(scope="module")
def emoji():
    return open_dataset(EMOJI)


def trained(cfg: TrainingConfig, dataset, steps: int) -> Trainer:
    trainer = Trainer(cfg, dataset, torch.device("cpu"))
    for _ in range(steps):
        trainer.step()
    return trainer


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    named = {"G": trainer.G, "D": trainer.D, "G_ema": trainer.G_ema, "augment": trainer.augment}
    tensors = {f"{n}.{k}": v for n, m in named.items() for k, v in m.state_dict().items()}
    return tensors | trainer.objective.state()


def test_two_runs_are_bit_identical(emoji):
    a, b = (weights(trained(tiny_config(), emoji, 4)) for _ in range(2))
    for name in a:
        assert torch.equal(a[name], b[name]), name


def test_another_seed_trains_another_network(emoji):
    a, b = (trained(tiny_config(f"seed={s}"), emoji, 1) for s in (0, 1))
    assert not torch.equal(a.G.synthesis.b8_0.const, b.G.synthesis.b8_0.const)


def gradients_by_micro_batch(trainer: Trainer, phase_index: int, order: list[int]) -> list[torch.Tensor]:
    """Summed gradients of one phase with the micro-batches taken in `order`, as ranks would split them."""
    phase = trainer.phases[phase_index]
    player = trainer.players[phase.player]
    player.set_trainable(True)
    total = [torch.zeros_like(p) for p in player.parameters]
    for micro in order:
        player.optimizer.zero_grad()
        torch.manual_seed(keyed_seed(trainer.cfg.seed, trainer.step_count, phase_index, micro))
        loss = phase.loss(trainer._micro_batch(micro, phase.needs_reals))
        (loss * (phase.interval / len(order))).backward()
        for t, p in zip(total, player.parameters):
            if p.grad is not None:
                t += p.grad
    player.set_trainable(False)
    return total


@pytest.mark.parametrize("phase_index", range(4))
def test_accumulated_micro_batches_are_the_same_in_any_order_of_ranks(emoji, phase_index):
    """4 micro-batches of 8 in one step against the same ones computed one by one, in two orders."""
    cfg = tiny_config("batch=32", "batch_gpu=8")
    trainer = Trainer(cfg, emoji, torch.device("cpu"))
    phase = trainer.phases[phase_index]
    parameters = trainer.players[phase.player].parameters
    reference = Trainer(cfg, emoji, torch.device("cpu"))
    before = [p.clone() for p in parameters]
    trainer._run_phase(phase_index, phase)
    step = [b - p for b, p in zip(before, parameters)]
    assert max(float(s.abs().max()) for s in step) > 0
    for order in ([0, 1, 2, 3], [2, 0, 3, 1]):
        grads = gradients_by_micro_batch(reference, phase_index, order)
        for p, g in zip(parameters, grads):
            if p.grad is None:
                assert not g.any()
                continue
            assert (p.grad - g).abs().max() <= 1e-5 * g.abs().max() + 1e-9


def test_simulated_ranks_take_the_same_step(emoji, monkeypatch):
    """Two ranks in one process: each computes its share, the sum of both is what one process computes alone."""
    cfg = tiny_config("batch=32", "batch_gpu=8")
    alone = Trainer(cfg, emoji, torch.device("cpu"))
    alone._run_phase(2, alone.phases[2])
    shares = []
    for rank in (0, 1):
        trainer = Trainer(cfg, emoji, torch.device("cpu"))
        monkeypatch.setattr("torch_utils.distributed.rank", lambda r=rank: r)
        monkeypatch.setattr("torch_utils.distributed.world_size", lambda: 2)
        trainer._run_phase(2, trainer.phases[2])
        shares.append([p.grad for p in trainer.players["D"].parameters])
    for p, a, b in zip(alone.players["D"].parameters, *shares):
        assert (p.grad - (a + b)).abs().max() <= 1e-5 * p.grad.abs().max() + 1e-9


def test_seeds_of_micro_batches_differ():
    seeds = {keyed_seed(s, i, p, m) for s in range(3) for i in range(5) for p in range(4) for m in range(4)}
    assert len(seeds) == 3 * 5 * 4 * 4
    assert all(0 <= s < 2**63 for s in seeds)


def test_gradients_that_are_not_finite_are_replaced_and_counted():
    p = torch.nn.Parameter(torch.zeros(4))
    unused = torch.nn.Parameter(torch.zeros(2))
    p.grad = torch.tensor([1.0, float("nan"), float("inf"), -2.0])
    assert int(sync_gradients([p, unused])) == 2
    assert p.grad.tolist() == [1, 0, 0, -2]
    assert unused.grad is None


def test_lazy_regularisation_corrects_adam():
    """Interval 4: learning rate x 4/5, beta2^(4/5); it applies without a path length phase too (preset cifar)."""
    cfg = tiny_config("loss.pl_weight=0", "loss.pl_interval=4", "loss.r1_interval=16")
    trainer = Trainer(cfg, open_dataset(EMOJI), torch.device("cpu"))
    assert [p.name for p in trainer.phases] == ["Gmain", "Dmain", "Dreg"]
    g, d = (trainer.players[name].optimizer.param_groups[0] for name in "GD")
    assert g["lr"] == pytest.approx(0.002)
    assert g["betas"] == pytest.approx((0, 0.99**0.8))
    assert d["lr"] == pytest.approx(0.0025 * 16 / 17)


def test_ada_moves_p_towards_its_target(emoji):
    trainer = Trainer(tiny_config(), emoji, torch.device("cpu"))
    step = 8 * 4 / 500_000
    for sign, expected in ((1.0, 0.5 + step), (0.5, 0.5 - step), (-1.0, 0.5 - step)):
        trainer.augment.p.fill_(0.5)
        trainer.means.add("sign_real", torch.full([4, 1], sign))
        trainer.step_count = 4
        trainer._adapt_augmentation()
        assert float(trainer.augment.p) == pytest.approx(expected, abs=1e-7)


def test_ada_respects_its_bounds(emoji):
    trainer = Trainer(tiny_config("ada.p_max=0.7"), emoji, torch.device("cpu"))
    for start, sign, expected in ((0.7, 1.0, 0.7), (0.0, -1.0, 0.0)):
        trainer.augment.p.fill_(start)
        trainer.means.add("sign_real", torch.full([4, 1], sign))
        trainer.step_count = 4
        trainer._adapt_augmentation()
        assert float(trainer.augment.p) == pytest.approx(expected, abs=1e-7)


def test_ema_halves_the_distance_in_its_half_life(emoji):
    trainer = Trainer(tiny_config("ema.half_life_kimg=0.016", "ema.rampup=null"), emoji, torch.device("cpu"))
    ema, now = trainer.G_ema.synthesis.b8_0.const, trainer.G.synthesis.b8_0.const
    with torch.no_grad():
        now += 1
    for _ in range(2):  # 2 x 8 images = 0.016 kimg
        trainer._update_ema()
    assert torch.allclose(now - ema, torch.full_like(now, 0.5), atol=1e-5)
    trainer.G.mapping.w_avg.fill_(3)
    trainer._update_ema()
    assert trainer.G_ema.mapping.w_avg[0] == 3, "buffers are copied"


def test_means_over_a_batch_do_not_depend_on_its_cuts():
    rows = torch.randn(12, 5)
    whole, parts = BatchMean(), BatchMean()
    whole.add("w", rows)
    for part in rows.split([2, 7, 3]):
        parts.add("w", part)
    expected = rows.mean(0)
    assert torch.allclose(whole.take("w"), expected, atol=1e-6)
    assert torch.allclose(parts.take("w"), expected, atol=1e-6)
    assert whole.take("w") is None


def test_w_avg_moves_by_the_mean_style(emoji):
    trainer = Trainer(tiny_config("loss.style_mixing=0"), emoji, torch.device("cpu"))
    torch.manual_seed(keyed_seed(0, 0, 0, 0))
    w = trainer.G.mapping(torch.randn(8, 16))[:, 0]
    trainer._run_phase(0, trainer.phases[0])
    trainer.objective.after_step()
    assert torch.allclose(trainer.G.mapping.w_avg, w.mean(0) * (1 - 0.995), atol=1e-6)


class _Waits(TorchDispatchMode):
    """Notes the operations whose results the host has to wait for on a GPU: values read, sizes that data decide. (Whole
    tensors that are read are no operation on a CPU: `read` notes these.)"""

    NAMES = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal")

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name.startswith(self.NAMES):
            self.seen.append(name)
        return func(*args, **(kwargs or {}))

    def read(self, name: str):
        """In place of a method of tensors."""
        method = getattr(torch.Tensor, name)

        def noted(tensor, *args, **kwargs):
            self.seen.append(name)
            return method(tensor, *args, **kwargs)

        return noted


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("ada", ["ada.mode=noaug"]),
        ("ada", ["ada.mode=noaug", "loss.kind=relativistic"]),
        ("ada", ["ada.mode=diffaug", "loss.kind=relativistic", "loss.penalty=approximate"]),
        ("bcr", []),
    ],
)
def test_a_step_never_waits_for_the_device(name, settings, monkeypatch):
    """Only the review, every 16 steps, reads what the device has found. (On a CPU, gradients are looked at at once.)"""
    t = trainer(recipe(name, *settings))
    monkeypatch.setattr(training_loop, "sync_gradients", lambda parameters: 0)
    assert t.step_count == 0
    waits = _Waits()
    for name in ("tolist", "cpu", "numpy"):
        monkeypatch.setattr(torch.Tensor, name, waits.read(name))
    with waits:
        for _ in range(7):
            t.step()
    assert waits.seen == []
    with waits:
        t.review()
    assert set(waits.seen) == {"tolist", "_local_scalar_dense"}, "it does see what is read"
