"""Official files: rebuilt from plain data, they give the original programs' numbers, and nothing in them runs."""

import argparse
import io

import pytest
import torch
from support import official_files
from support.golden import rel_err

from dnnlib.errors import UserError
from training import networks
from training.networks import files
from training.networks.official import stylegan_pickle, stylenat


@pytest.mark.parametrize("name", official_files.PICKLES)
def test_pickles_give_the_original_numbers(name, tmp_path):
    path = official_files.unpack(name, tmp_path)
    assert b'raise RuntimeError("the source stored in this file was executed")' in path.read_bytes()
    loaded, want = networks.load(path), official_files.expected(name)
    G, D = loaded["G_ema"], loaded["D"]
    w = G.mapping(want["z"], None, truncation_psi=0.7)
    assert rel_err(w, want["w"][:, : w.shape[1]]) <= 1e-5
    # Styleformer's files hold more styles than its layers read.
    assert rel_err(G.synthesis(want["w"], noise_mode="none"), want["img"]) <= 1e-5
    assert rel_err(D(want["img"], None), want["logits"]) <= 1e-5
    assert not any(p.requires_grad for module in (G, D) for p in module.parameters())
    assert loaded["augment_pipe"].p == 0.375
    assert loaded["augment_pipe"].cfg.hue == 1
    assert loaded["augment_pipe"].cfg.cutout == 0
    assert loaded["training_set_kwargs"]["path"] == "cifar10.zip"


@pytest.mark.parametrize("name", official_files.CHECKPOINTS)
def test_checkpoints_give_the_original_numbers(name, tmp_path):
    loaded, want = networks.load(official_files.unpack(name, tmp_path)), official_files.expected(name)
    G, D = loaded["G_ema"], loaded["D"]
    assert rel_err(G.mapping(want["z"], None)[:, 0], want["w"]) <= 1e-5
    assert rel_err(G(want["z"], None), want["img"]) <= 1e-5
    assert rel_err(D(want["img"], None), want["logits_of_img_imagenet_normalised"]) <= 2e-5
    assert G.cfg.seed_rule == "torch"
    mean = G.mapping(torch.randn(4000, G.z_dim), None)[:, 0].mean(dim=0)
    assert (G.mapping.w_avg - mean).abs().max() < 5 * want["w"].std() / 4000**0.5


@pytest.mark.parametrize("name", official_files.R3GAN)
def test_r3gan_pickles_give_the_original_numbers(name, tmp_path):
    loaded, want = networks.load(official_files.unpack(name, tmp_path)), official_files.expected(name)
    assert rel_err(loaded["G_ema"](want["z"]), want["img"]) <= 1e-5
    assert rel_err(loaded["D"](want["img"].tanh())[:, 0], want["logits"]) <= 1e-5
    assert loaded["training_set_kwargs"]["path"] == "x.zip"
    assert loaded["provenance"]["kimg"] == 1


@pytest.mark.parametrize("name", official_files.GAT)
def test_gat_checkpoints_give_the_original_numbers(name, tmp_path):
    loaded, want = networks.load(official_files.unpack(name, tmp_path)), official_files.expected(name)
    G, c = loaded["G_ema"], torch.eye(5)[want["y"]]
    assert rel_err(G(want["z"], c), want["latents"]) <= 1e-5
    assert rel_err(G(want["z"], c, truncation_psi=1 - 0.3), want["latents_psi03"]) <= 1e-5
    assert loaded["D"].cfg.feature_dim == 12
    assert loaded["provenance"]["args"]["model"] == "GAT-S/2"


def test_r3gan_with_another_filter_is_refused(tmp_path):
    data = official_files.content("official_r3gan_0.pkl")
    ours = torch.tensor([1.0, 3, 3, 1]).outer(torch.tensor([1.0, 3, 3, 1])) / 64
    assert ours.numpy().tobytes() in data
    (tmp_path / "x.pkl").write_bytes(data.replace(ours.numpy().tobytes(), ours.roll(1).numpy().tobytes()))
    with pytest.raises(UserError, match="another resampling filter"):
        networks.load(tmp_path / "x.pkl")


def repacked(name: str, change, **save_options) -> bytes:
    """A checkpoint as torch.save writes it after `change(dict)`."""
    data = torch.load(io.BytesIO(official_files.content(name)), weights_only=True)
    change(data)
    out = io.BytesIO()
    torch.save(data, out, **save_options)
    return out.getvalue()


def namespace(value):
    return argparse.Namespace(**{k: namespace(v) for k, v in value.items()}) if isinstance(value, dict) else value


@pytest.mark.parametrize("name", official_files.CHECKPOINTS)
@pytest.mark.parametrize("form", ["namespace", "legacy stream"])
def test_other_forms_of_checkpoints(name, form, tmp_path):
    path = tmp_path / "x.pt"
    if form == "namespace":
        path.write_bytes(repacked(name, lambda data: data.update(args=namespace(data["args"]))))
    else:
        path.write_bytes(repacked(name, lambda data: None, _use_new_zipfile_serialization=False))
    want = official_files.expected(name)
    assert rel_err(networks.load(path, ["G_ema"])["G_ema"](want["z"], None), want["img"]) <= 1e-5


def test_checkpoint_without_args(tmp_path):
    path = tmp_path / "x.pt"
    path.write_bytes(repacked("official_stylenat_new.pt", lambda data: data.pop("args")))
    with pytest.raises(UserError, match="dilations are unknown"):
        networks.load(path)
    sevens = [[3]] + [[7]] + [[7, 7]] * 5
    assert stylenat._known_dilations(sevens, "x") == [[1], [1], [1, 2], [1, 4], [1, 8], [1, 16], [1, 32]]
    halves = [[3]] + [[7, 7]] * 6
    assert stylenat._known_dilations(halves, "x") == [[1], [1], [1, 2], [1, 4], [1, 8], [1, 16], [1, 32]]
    church = [[3], [7]] + [[7] * s for s in range(2, 7)]
    assert stylenat._known_dilations(church, "x")[6] == [1, 2, 4, 8, 16, 32]


@pytest.mark.parametrize("name", official_files.FILES)
@pytest.mark.parametrize("suffix", [".pkl", ".safetensors"])
def test_conversion_keeps_every_number(name, suffix, tmp_path):
    source = official_files.unpack(name, tmp_path)
    files.write(tmp_path / f"own{suffix}", files.read(source))
    first, second = networks.load(source), networks.load(tmp_path / f"own{suffix}")
    for key in ("G", "D", "G_ema", "augment_pipe"):
        assert (first[key] is None) == (second[key] is None)
        if first[key] is not None:
            assert first[key].cfg == second[key].cfg
            for tensor_name, tensor in first[key].state_dict().items():
                assert torch.equal(tensor, second[key].state_dict()[tensor_name])


def persistent(class_name: str, **state) -> stylegan_pickle.PersistentModule:
    return stylegan_pickle.PersistentModule({"type": "class", "class_name": class_name, "state": state})


def test_unknown_official_class_is_named():
    with pytest.raises(UserError, match="official class 'Encoder'"):
        stylegan_pickle.content({"G_ema": persistent("Encoder")}, "x.pkl")
    with pytest.raises(UserError, match="holds no network"):
        stylegan_pickle.content({"G_ema": None}, "x.pkl")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("mapping.fc0.weight"), "tensor mapping.fc0.weight is missing"),
        (lambda t: t.update(extra=torch.zeros(1)), "tensor extra belongs nowhere"),
        (
            lambda t: t.update({"mapping.w_avg": torch.zeros(33)}),
            "tensor mapping.w_avg has shape 33 instead of 32",
        ),
        (
            lambda t: t.update({"mapping.w_avg": torch.zeros(32, dtype=torch.float64)}),
            "tensor mapping.w_avg has type torch.float64 instead of torch.float32",
        ),
    ],
)
def test_misfit_tensors_are_named(change, message, tmp_path):
    content = files.read(official_files.unpack("official_sf_0.pkl", tmp_path))
    change(content.networks["G_ema"].tensors)
    files.write(tmp_path / "x.pkl", content)
    with pytest.raises(UserError, match=message):
        networks.load(tmp_path / "x.pkl")
