"""bCR and the rest of StyleNAT's recipe: variations, losses in the recipe's units, clipping, decay, EMA, pairings."""

import pytest
import torch
from support.golden import rel_err

from dnnlib import UserError
from dnnlib.config import from_dict, set_field, to_dict
from torch_utils.training_stats import BatchMean, Collector
from training import presets
from training.augment import consistency
from training.augment.draw import NoAugmentation
from training.config import EmaConfig, TrainingConfig
from training.dataset import open_dataset
from training.networks.discriminators.wavelet import WaveletDiscriminatorConfig
from training.networks.generators.stylenat import StyleNATConfig
from training.networks.shared.pixel_units import IMAGENET_STD, to_units
from training.objectives.base import MicroBatch
from training.objectives.logistic import Logistic, LogisticConfig
from training.schedule import Ramp, at, check_ramps
from training.training_loop import Trainer

EMOJI = "datasets/noto-emoji-32.zip"


def test_flip_mirrors_about_half_of_the_images():
    x = torch.randn(400, 3, 4, 6)
    y = consistency.flip(x)
    mirrored = (y == x.flip(3)).flatten(1).all(1)
    assert (mirrored | (y == x).flatten(1).all(1)).all()
    assert 150 < mirrored.sum() < 250


def test_translation_shifts_by_whole_pixels_up_to_an_eighth():
    x = torch.rand(300, 2, 16, 32) + 1
    y = consistency.translate(x)
    assert y.shape == x.shape
    shifts = set()
    for before, after in zip(x, y):
        rows, columns = (after[0] != 0).any(1).nonzero(), (after[0] != 0).any(0).nonzero()
        found = [
            (dy, dx)
            for dy in range(-2, 3)
            for dx in range(-4, 5)
            if torch.equal(
                torch.roll(before, (dy, dx), (1, 2))[:, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1],
                after[:, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1],
            )
        ]
        assert len(found) == 1
        assert len(rows) == 16 - abs(found[0][0])
        assert len(columns) == 32 - abs(found[0][1])
        shifts.add(found[0])
    assert {s[0] for s in shifts} == set(range(-2, 3))
    assert {s[1] for s in shifts} == set(range(-4, 5))


def test_colours_change_within_their_ranges():
    x = torch.randn(500, 3, 8, 8, dtype=torch.float64)
    y = consistency.vary_colours(x)
    offset = (y - x).mean(dim=(1, 2, 3))
    assert offset.abs().max() <= 0.5
    assert offset.abs().max() > 0.45
    grey_in, grey_out = x.mean(1), y.mean(1)
    contrast = grey_out.std(dim=(1, 2)) / grey_in.std(dim=(1, 2))
    assert contrast.min() >= 0.5 - 1e-9
    assert contrast.max() <= 1.5 + 1e-9
    assert contrast.max() - contrast.min() > 0.9
    colour_in, colour_out = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    saturation = colour_out.std(dim=(1, 2, 3)) / colour_in.std(dim=(1, 2, 3)) / contrast
    assert rel_err(colour_out, colour_in * (saturation * contrast)[:, None, None, None]) < 1e-9, "hues stay"
    assert saturation.max() <= 2 + 1e-9
    assert saturation.max() - saturation.min() > 1.8


def test_cutout_blanks_a_rectangle_of_half_the_side_anywhere():
    y = consistency.cut_out(torch.ones(600, 2, 16, 12))
    assert torch.equal(y[:, 0], y[:, 1])
    gone = y[:, 0] == 0
    heights, widths = gone.any(2).sum(1), gone.any(1).sum(1)
    assert torch.equal(gone.sum((1, 2)), heights * widths), "a full rectangle"
    assert heights.max() == 8
    assert widths.max() == 6
    assert heights.min() == 4, "the centre lies in the image"
    assert gone.any(0).all(), "every pixel can be hit"


def test_variations_follow_the_random_seed():
    x = torch.randn(4, 3, 16, 16)
    torch.manual_seed(3)
    one = consistency.vary(x)
    torch.manual_seed(3)
    assert torch.equal(one, consistency.vary(x))
    assert not torch.equal(one, consistency.vary(x))


class Brightness(torch.nn.Module):
    """A discriminator that weighs the channels of an image in [-1, 1]."""

    takes_levels = False
    weight = torch.tensor([1.0, 2.0, -0.5])

    def forward(self, img: torch.Tensor, c: torch.Tensor | None = None) -> torch.Tensor:
        return (img.mean(dim=(2, 3)) * self.weight).sum(1, keepdim=True)


class Stripes(torch.nn.Module):
    """A generator of anything."""

    z_dim, img_channels = 4, 3

    def __init__(self):
        super().__init__()
        self.mapping = torch.nn.Linear(1, 1)

    def mixed_styles(self, z, c, probability):
        return z[:, None]

    def synthesis(self, ws, noise_mode):
        return ws[:, 0, :3, None, None].expand(-1, -1, 8, 8).clone()

    def levels(self, ws, noise_mode):
        return [self.synthesis(ws, noise_mode)]

    def levels_of(self, pictures):
        return [pictures]


def gan_loss(**fields) -> Logistic:
    cfg = LogisticConfig(style_mixing=0, **fields)
    return Logistic(cfg, Stripes(), Brightness(), NoAugmentation(), Collector(), BatchMean())


def test_bcr_loss_is_the_squared_change_of_the_verdict_in_the_recipes_units(monkeypatch):
    """With a known variation (+1 in ImageNet units), the change of a linear discriminator is known."""
    monkeypatch.setattr(consistency, "vary", lambda x: x + 1)
    batch = MicroBatch(torch.zeros(2, 0), torch.rand(2, 3, 8, 8), torch.zeros(2, 0))

    def d_main(**fields) -> float:
        torch.manual_seed(5)
        return gan_loss(**fields).d_main(batch).item()

    change = 2 * float((torch.tensor(IMAGENET_STD) * Brightness.weight).sum())
    plain = d_main()
    assert d_main(bcr_real=3, image_norm="imagenet") - plain == pytest.approx(3 * change**2, rel=1e-4)
    assert d_main(bcr_fake=2, image_norm="imagenet") - plain == pytest.approx(2 * change**2, rel=1e-4)
    assert d_main(bcr_real=1) - plain == pytest.approx(2.5**2, rel=1e-4)


def test_r1_is_measured_in_the_recipes_units():
    batch = MicroBatch(torch.zeros(2, 0), torch.rand(2, 3, 8, 8), torch.zeros(2, 0))
    slope = Brightness.weight / 64  # d logit / d pixel in [-1, 1]
    expected = {
        "none": slope.square().sum() * 64,
        "imagenet": (slope * 2 * torch.tensor(IMAGENET_STD)).square().sum() * 64,
    }
    for units, squared in expected.items():
        loss = gan_loss(r1_gamma=10, image_norm=units).d_r1(batch)
        assert loss.item() == pytest.approx(5 * float(squared), rel=1e-5)


def test_units_survive_the_way_there_and_back():
    x = torch.rand(1, 3, 4, 4) * 2 - 1
    y = to_units(x, "imagenet")
    assert y[0, :, 0, 0].tolist() == pytest.approx(
        [((x[0, i, 0, 0].item() + 1) / 2 - m) / s for i, (m, s) in enumerate(zip([0.485, 0.456, 0.406], IMAGENET_STD))],
        rel=1e-5,
    )


def test_grey_images_have_no_imagenet_units():
    grey = StyleNATConfig(img_channels=1)
    with pytest.raises(UserError, match="loss.image_norm=none"):
        LogisticConfig(image_norm="imagenet").check(grey, WaveletDiscriminatorConfig(img_channels=1))


def test_learning_rate_falls_linearly_between_the_marks():
    lr = Ramp(2.0, 0.0, kimg=10, begin_kimg=10)
    assert [at(lr, n) for n in (0, 10_000, 12_500, 20_000, 30_000)] == [2, 2, 1.5, 0, 0]
    assert at(0.5, 10**9) == 0.5


@pytest.mark.parametrize("times", [{"kimg": 0}, {"kimg": -1}, {"kimg": 5, "begin_kimg": -1}])
def test_times_of_a_ramp_must_fit(times):
    cfg = TrainingConfig()
    cfg.G_opt.lr = Ramp(1.0, 0.0, **times)
    with pytest.raises(UserError, match=r"G_opt\.lr: a ramp needs"):
        check_ramps(cfg)


def test_ema_in_steps_does_not_depend_on_the_batch():
    ema = EmaConfig(half_life_steps=10000 / 32, rampup=None)
    for batch in (8, 32, 64):
        decay = 0.5 ** (batch / ema.half_life_images(nimg=0, batch=batch))
        assert decay == pytest.approx(0.5 ** (32 / 10000))
    ramped = EmaConfig(half_life_kimg=10, rampup=0.05)
    assert ramped.half_life_images(nimg=1000, batch=32) == 50
    assert ramped.half_life_images(nimg=10**6, batch=32) == 10_000


def test_recipe_of_the_ffhq_presets():
    cfg = presets.PRESETS["ffhq256"].build(256, 8)
    assert from_dict(TrainingConfig, to_dict(cfg)) == cfg
    assert presets.PRESETS["ffhq256"].mirror
    assert (cfg.batch, cfg.micro_batch, cfg.total_kimg) == (64, 8, 64_000)
    assert cfg.G_opt.lr == Ramp(5e-5, 0, kimg=14_400, begin_kimg=49_600)
    assert cfg.D_opt.lr == Ramp(2e-4, 0, kimg=14_400, begin_kimg=49_600)
    assert cfg.D_opt.max_grad_norm == 5
    assert (cfg.loss.r1_gamma, cfg.loss.r1_interval, cfg.loss.pl_weight) == (10, 16, 0)
    assert (cfg.loss.bcr_real, cfg.loss.bcr_fake, cfg.loss.image_norm) == (10, 10, "imagenet")
    assert cfg.D.spectral_norm
    church = presets.PRESETS["church256"].build(256, 8)
    assert (church.total_kimg, church.G_opt.lr.begin_kimg) == (96_000, 83_200)
    assert (church.loss.r1_gamma, church.loss.bcr_real) == (5, 0)
    cfg.batch, cfg.gpus = 2, 1
    assert cfg.micro_batch == 2, "a small batch is one micro-batch"


# -- in the trainer ---------------------------------------------------------------------------------------------------

TINY_NAT = [
    "G.kind=stylenat",
    "G.channels=[16,16,16,8]",
    "G.min_heads=4",
    "G.kernels=[[3],[3],[3],[3]]",
    "G.dilations=[[1],[1],[1,2],[1,2,4]]",
]
TINY_WAVELET = ["D.kind=wavelet_discriminator", "D.channels=[8,8,8]"]
TINY_STYLEFORMER = ["G.kind=styleformer", "G.g_dict=[16,16,8]", "G.num_layers=[1,1,1]", "G.depth=8"]
TINY_STYLEGAN2_D = ["D.kind=stylegan2_discriminator", "D.channel_base=128", "D.channel_max=8"]


@pytest.fixture(scope="module")
def emoji():
    return open_dataset(EMOJI)


def trainer(emoji, preset: str, *settings: str) -> Trainer:
    cfg = presets.PRESETS[preset].build(32, 1)
    common = ["batch=4", "metrics=[]", "G.z_dim=16", "G.w_dim=16", "G.mapping_layers=2", "loss.r1_interval=2"]
    for s in [*settings, *common]:
        set_field(cfg, s)
    cfg.data.path = EMOJI
    for network in (cfg.G, cfg.D):
        network.img_resolution = (32, 32)
    return Trainer(cfg, emoji, torch.device("cpu"))


@pytest.mark.parametrize(
    ("preset", "settings", "names"),
    [
        ("demo_nat", [*TINY_NAT, *TINY_WAVELET], {"Loss/bcr/real", "Loss/bcr/fake", "Loss/r1_penalty"}),
        ("ffhq256", [*TINY_NAT, *TINY_WAVELET], {"Loss/bcr/real", "Loss/bcr/fake", "Loss/r1_penalty"}),
        (
            "cifar",
            [*TINY_NAT, *TINY_STYLEGAN2_D, "ada.p=0.5", "loss.pl_weight=2", "loss.style_mixing=0.9"],
            {"Loss/pl_penalty", "Loss/r1_penalty"},
        ),
        (
            "cifar",
            [*TINY_STYLEFORMER, *TINY_WAVELET, "loss.bcr_real=1", "loss.bcr_fake=1", "loss.image_norm=imagenet"],
            {"Loss/bcr/real", "Loss/bcr/fake"},
        ),
    ],
    ids=[
        "stylenat small recipe",
        "stylenat recipe",
        "stylenat + stylegan2 D + ADA + PL",
        "styleformer + wavelet + bCR",
    ],
)
def test_pairings_train(emoji, preset, settings, names):
    t = trainer(emoji, preset, *settings)
    before = {f"{n}.{k}": p.clone() for n, m in (("G", t.G), ("D", t.D)) for k, p in m.named_parameters()}
    for _ in range(2):
        t.step()
    assert t.bad_gradients == 0
    stats = t.stats.take()
    assert names <= set(stats)
    assert all(torch.tensor(s["mean"]).isfinite() for s in stats.values())
    moved = {
        f"{n}.{k}"
        for n, m in (("G", t.G), ("D", t.D))
        for k, p in m.named_parameters()
        if not torch.equal(p, before[f"{n}.{k}"])
    }
    still = {k for k in before if k not in moved}
    assert all("noise" in k or "torgb" in k or "pos_embedding" in k for k in still), still


def test_batch_in_micro_batches_has_the_gradient_of_the_whole(emoji):
    """Nothing in G or D may depend on how a batch is cut: spectral norm's vectors are those of the last step."""
    t = trainer(emoji, "ffhq256", *TINY_NAT, *TINY_WAVELET, "batch_gpu=2")
    main = next(p for p in t.phases if p.name == "Dmain")
    player = t.players["D"]
    player.set_trainable(True)
    torch.manual_seed(1)
    batch = t._micro_batch(0, True)
    grads = []
    for _ in range(2):  # a second micro-batch in between must not matter
        player.optimizer.zero_grad()
        torch.manual_seed(2)
        main.loss(batch).backward()
        grads.append([p.grad.clone() for p in player.parameters])
        main.loss(t._micro_batch(1, True))
    assert all(torch.equal(a, b) for a, b in zip(*grads))


def test_recipe_is_repeatable_bit_for_bit(emoji):
    states = []
    for _ in range(2):
        t = trainer(emoji, "ffhq256", *TINY_NAT, *TINY_WAVELET, "batch_gpu=2")
        for _ in range(3):
            t.step()
        states.append({**t.G_ema.state_dict(), **{f"D.{k}": v for k, v in t.D.state_dict().items()}})
    assert all(torch.equal(v, states[1][k]) for k, v in states[0].items())


def test_spectral_norm_follows_after_each_step(emoji):
    t = trainer(emoji, "ffhq256", *TINY_NAT, *TINY_WAVELET, "D_opt.lr=0.02")
    for _ in range(4):
        t.step()
    weight = t.D.final_linear[0].normalized_weight()
    assert torch.linalg.matrix_norm(weight, ord=2).item() == pytest.approx(1, rel=0.05)


def test_gradient_is_clipped_on_the_main_step_only(emoji):
    t = trainer(emoji, "ffhq256", *TINY_NAT, *TINY_WAVELET)
    for phase in t.phases:
        player = t.players[phase.player]
        for p in player.parameters:
            p.grad = torch.ones_like(p)
        player.update(nimg=0, clip=not phase.lazy)
        norm = torch.cat([p.grad.flatten() for p in player.parameters]).norm().item()
        if phase.name == "Dmain":
            assert norm == pytest.approx(5, rel=1e-4)
        else:
            assert norm > 20, phase.name


def test_decay_keeps_the_ratio_of_the_two_rates(emoji):
    t = trainer(emoji, "ffhq256", *TINY_NAT, *TINY_WAVELET)
    for nimg, factor in ((0, 1.0), (56_800_000, 0.5), (64_000_000, 0.0)):
        for player in t.players.values():
            for p in player.parameters:
                p.grad = torch.zeros_like(p)
            player.update(nimg, clip=True)
        rates = {name: player.optimizer.param_groups[0]["lr"] for name, player in t.players.items()}
        assert rates["G"] == pytest.approx(5e-5 * factor)
        assert rates["D"] == pytest.approx(2e-4 * factor * 2 / 3)  # R1 every 2 batches here
