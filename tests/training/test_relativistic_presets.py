"""The presets with the relativistic objective: they train, and differ from the papers' in what they say."""

import math

import pytest
import torch
from support.tiny_runs import EMOJI, everything

from dnnlib.config import set_field, to_dict
from training.dataset import ImageDataset, open_dataset
from training.options import check_config
from training.presets import PRESETS
from training.training_loop import Trainer

STYLEFORMER = ["G.g_dict=[16,16,8]", "G.num_layers=[1,1,1]", "G.depth=8", "D.channel_base=128", "D.channel_max=8"]
STYLENAT = [
    "G.channels=[8,8,8,8]",
    "G.kernels=[[3],[3],[3],[3]]",
    "G.dilations=[[1],[1],[1,2],[1,2]]",
    "D.channels=[8,8,8]",
]
SMALL = {
    "cifar_rp": STYLEFORMER,
    "stl10_rp": [*STYLEFORMER, "G.start_resolution=[8,8]"],
    "celeba_rp": STYLEFORMER,
    "church_rp": STYLEFORMER,
    "ffhq256_rp": STYLENAT,
    "church256_rp": STYLENAT,
}
COMMON = ["batch=4", "batch_gpu=2", "metrics=[]", "G.z_dim=16", "G.w_dim=16", "G.mapping_layers=2", "ada.p=0.5"]


def test_all_of_them_are_here():
    assert {name for name in PRESETS if name.endswith("_rp")} >= SMALL.keys()
    for name in SMALL:
        assert "ours, not a paper's" in PRESETS[name].summary


@pytest.mark.parametrize("name", SMALL)
def test_only_the_objective_and_the_augmentation_differ(name):
    side, own, paper = max(PRESETS[name].resolution), PRESETS[name], PRESETS[name.removesuffix("_rp")]
    assert (own.data, own.resolution, own.mirror) == (paper.data, paper.resolution, True)
    ours, theirs = (to_dict(p.build(side, 8)) for p in (own, paper))
    assert {key for key in ours if ours[key] != theirs[key]} == {"loss", "ada"}
    assert ours["loss"]["kind"] == "relativistic"
    assert (ours["loss"]["penalty"], ours["loss"]["interval"], ours["loss"]["style_mixing"]) == ("exact", 1, 0)
    gamma = ours["loss"]["gamma"]
    assert gamma["end"] == pytest.approx(gamma["start"] / 10)
    assert gamma["kimg"] == ours["ada"]["p"]["kimg"] == 20000
    assert ours["ada"]["p"]["start"] == 0


@pytest.fixture(scope="module")
def emoji() -> ImageDataset:
    return open_dataset(EMOJI, xflip=True)


@pytest.mark.parametrize("name", SMALL)
def test_two_steps(name, emoji):
    cfg = PRESETS[name].build(32, 1)
    for setting in [*SMALL[name], *COMMON]:
        set_field(cfg, setting)
    cfg.data.path, cfg.data.mirror = EMOJI, True
    for network in (cfg.G, cfg.D):
        network.img_resolution = (32, 32)
    check_config(cfg)
    t = Trainer(cfg, emoji, torch.device("cpu"))
    assert [phase.name for phase in t.phases] == ["Dmain", "Gmain"], "no lazy phases"
    assert [player.lazy_ratio for player in t.players.values()] == [1, 1]
    before = everything(t)
    for _ in range(2):
        t.step()
    after = everything(t)
    for player in ("G", "D"):
        prefix = f"state.modules.{player}."
        assert any(not torch.equal(before[n], after[n]) for n in before if n.startswith(prefix)), player
    stats = t.stats.take()
    assert all(math.isfinite(stats[name]["mean"]) for name in ("Loss/G/loss", "Loss/D/loss"))
    assert stats["Loss/r1_penalty"]["mean"] > 0
    assert stats["Loss/r2_penalty"]["mean"] > 0
    assert t.bad_gradients == 0
