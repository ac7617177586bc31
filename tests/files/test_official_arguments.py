"""Constructor arguments in official files: those that change the numbers are honoured or refused by name."""

import io

import pytest
import torch
from support import official_files
from support.golden import rel_err

from dnnlib.errors import UserError
from torch_utils.files.safe_pickle import Budget, Reader
from torch_utils.files.torch_files import plain_constructors
from training.networks import files
from training.networks.official import stylegan_pickle, stylenat


def pickled(name: str) -> dict:
    """The plain modules of an official pickle."""
    data = official_files.content(name)
    allowed = plain_constructors(name, Budget(len(data), name)) | stylegan_pickle.CONSTRUCTORS
    return Reader(data, allowed, name).load()


def checkpoint(name: str = "official_stylenat_new.pt") -> dict:
    return torch.load(io.BytesIO(official_files.content(name)), weights_only=True)


def module_at(data: dict, path: str) -> stylegan_pickle.PersistentModule:
    first, *rest = path.split(".")
    module = data[first]
    for name in rest:
        module = module.child(name)
    return module


def built(content, name: str):
    return files.build_record(content.networks[name], name)


@pytest.mark.parametrize("name", ["official_sf_0.pkl", "official_sg_0.pkl"])
@pytest.mark.parametrize("where", ["mapping", "generator"])
def test_learning_rate_multiplier_of_the_mapping(name, where):
    """With it, and weights divided by as much, the network is the same one: its numbers must stay."""
    data, want = pickled(name), official_files.expected(name)
    mapping = data["G_ema"].child("mapping")
    for layer in mapping.modules.values():
        for tensor in layer.attributes["_parameters"].values():
            tensor.mul_(0.01 / 0.02)
    if where == "mapping":
        mapping.arguments["lr_multiplier"] = 0.02
    data["G_ema"].arguments["mapping_kwargs"]["lr_multiplier"] = 0.02
    G = built(stylegan_pickle.content(data, name), "G_ema")
    assert rel_err(G.mapping(want["z"], None, truncation_psi=0.7), want["w"][:, : G.num_ws]) <= 1e-5


def test_activation_of_the_mapping():
    data, want = pickled("official_sg_0.pkl"), official_files.expected("official_sg_0.pkl")
    module_at(data, "G_ema.mapping").arguments["activation"] = "relu"
    G = built(stylegan_pickle.content(data, "x"), "G_ema")
    w = want["z"] * (want["z"].square().mean(1, keepdim=True) + 1e-8).rsqrt()
    for layer in (G.mapping.fc0, G.mapping.fc1):
        w = torch.relu(w @ layer.weight.t() * 0.01 / 32**0.5 + layer.bias * 0.01) * 2**0.5
    assert rel_err(G.mapping(want["z"], None)[:, 0], w) <= 1e-5


@pytest.mark.parametrize(
    ("path", "argument", "value"),
    [
        ("G_ema.synthesis", "activation", "relu"),
        ("G_ema.synthesis.b8.conv1", "activation", "swish"),
        ("G_ema.synthesis", "resample_filter", [1, 2, 1]),
        ("G_ema.synthesis", "use_noise", False),
        ("G_ema", "flavour", "sweet"),
        ("D", "block_kwargs", {"activation": "relu"}),
        ("D.b4", "activation", "relu"),
        ("D", "mapping_kwargs", {"lr_multiplier": 1}),
    ],
)
def test_what_ours_cannot_follow_is_refused_by_name(path, argument, value):
    data = pickled("official_sg_0.pkl")
    module_at(data, path).arguments[argument] = value
    named = next(iter(value)) if isinstance(value, dict) else argument
    with pytest.raises(UserError, match=f"x.pkl: the official .* was built with {named}="):
        stylegan_pickle.content(data, "x.pkl")


def test_another_stored_filter_is_refused():
    data = pickled("official_sg_0.pkl")
    module_at(data, "G_ema.synthesis.b8.conv0").attributes["_buffers"]["resample_filter"][0, 0] *= 2
    with pytest.raises(UserError, match="resample_filter is not .*b8.conv0.resample_filter"):
        stylegan_pickle.content(data, "x.pkl")


def test_defaults_that_are_spelled_out_are_fine():
    """As the converter of TensorFlow files writes them."""
    data, want = pickled("official_sg_0.pkl"), official_files.expected("official_sg_0.pkl")
    layers = {"embed_features": None, "layer_features": 32, "activation": "lrelu", "lr_multiplier": 0.01}
    data["G_ema"].arguments["mapping_kwargs"] |= layers | {"w_avg_beta": 0.998}
    data["G_ema"].arguments["synthesis_kwargs"] |= {
        "architecture": "skip",
        "resample_filter": [1, 3, 3, 1],
        "use_noise": True,
        "activation": "lrelu",
    }
    data["D"].arguments["block_kwargs"] = {"activation": "lrelu", "resample_filter": [1, 3, 3, 1], "freeze_layers": 0}
    data["D"].arguments["epilogue_kwargs"] |= {"mbstd_num_channels": 1, "activation": "lrelu"}
    content = stylegan_pickle.content(data, "x.pkl")
    assert rel_err(built(content, "G_ema").synthesis(want["w"], noise_mode="none"), want["img"]) <= 1e-5
    assert rel_err(built(content, "D")(want["img"], None), want["logits"]) <= 1e-5


def test_group_size_none_is_the_whole_batch():
    data = pickled("official_sg_0.pkl")
    module_at(data, "D.b4.mbstd").attributes["group_size"] = None
    D = built(stylegan_pickle.content(data, "x.pkl"), "D")
    assert D.cfg.mbstd_group_size is None
    images = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    D.b4.group_size = 6
    whole = D(images)
    D.b4.group_size = None
    assert torch.equal(D(images), whole)
    D.b4.group_size = 3
    assert not torch.equal(D(images), whole)


def test_a_stylegan3_generator_is_called_that():
    data = pickled("official_sg_0.pkl")
    module_at(data, "G_ema.synthesis.b4").class_name = "SynthesisInput"
    with pytest.raises(UserError, match="StyleGAN3 generator.*calc_metrics.py --images"):
        stylegan_pickle.content(data, "x.pkl")


# -- StyleNAT ---------------------------------------------------------------------------------------------------------


def test_lr_mlp():
    data, want = checkpoint(), official_files.expected("official_stylenat_new.pt")
    for name, tensor in data["state_dicts"]["g_ema"].items():
        if name.startswith("style."):
            tensor.mul_(0.01 / 0.05)
    data["args"]["runs"]["generator"]["lr_mlp"] = 0.05
    G = built(stylenat.content(data, "x.pt"), "G_ema")
    assert rel_err(G(want["z"], None), want["img"]) <= 1e-5
    mean = G.mapping(torch.randn(4000, G.z_dim, generator=torch.Generator().manual_seed(1)), None)[:, 0].mean(dim=0)
    assert (G.mapping.w_avg - mean).abs().max() < 5 * want["w"].std() / 4000**0.5


@pytest.mark.parametrize(
    ("network", "option", "value"),
    [
        ("generator", "qk_scale", 0.5),
        ("generator", "qkv_bias", False),
        ("generator", "enable_full_resolution", 16),
        ("generator", "new_norm", "layer"),
        ("discriminator", "blur_kernel", [1, 2, 1]),
        ("discriminator", "ssd", True),
    ],
)
def test_options_that_ours_cannot_follow_are_refused_by_name(network, option, value):
    data = checkpoint()
    data["args"]["runs"][network][option] = value
    with pytest.raises(UserError, match=f"x.pt was trained with {option}="):
        stylenat.content(data, "x.pt")


def test_options_that_are_off_or_of_training_are_fine():
    data = checkpoint()
    data["args"]["runs"]["generator"] |= {"attn_drop": 0.1, "use_checkpoint": True, "other": False, "qk_scale": None}
    assert stylenat.content(data, "x.pt").networks["G_ema"] is not None


def test_block_type_is_that_of_the_tensors():
    data = checkpoint()
    data["args"]["runs"]["generator"]["block_type"] = "swin"
    with pytest.raises(UserError, match="args say block_type=swin, but its tensors are those of nat"):
        stylenat.content(data, "x.pt")
    for state in data["state_dicts"].values():
        for name in [n for n in state if ".rpb" in n or "relative_position" in n]:
            del state[name]
    with pytest.raises(UserError, match="block_type=transformer, whose original attends across the images"):
        stylenat.content(data, "x.pt")


# -- programs that are not known --------------------------------------------------------------------------------------


def test_a_checkpoint_of_rosinality_is_called_that():
    state = {name: torch.zeros(1) for name in ("input.input", "conv1.conv.weight", "to_rgb1.conv.weight")}
    with pytest.raises(UserError, match="x.pt is a checkpoint of rosinality's stylegan2-pytorch"):
        stylenat.content({"g_ema": state, "latent_avg": torch.zeros(1)}, "x.pt")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("dnnlib.tflib.network\nNetwork", "TensorFlow program wrote it: convert it with legacy.py"),
        ("torch.nn.modules.linear\nLinear", "is no network file: it holds"),
        ("posix\nsystem", "refusing to load posix.system from .*pkl$"),
    ],
)
def test_refusals_say_which_program_wrote_the_file(name, words, tmp_path):
    path = tmp_path / "x.pkl"
    path.write_bytes(b"\x80\x02c" + name.encode() + b"\n)\x81.")
    with pytest.raises(UserError, match=words):
        files.read(path)


# -- tensors that don't fit -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "change", "field"),
    [
        ("official_sg_0.pkl", lambda t: t.pop("synthesis.b8.conv0.noise_strength"), "use_noise"),
        ("official_sg_0.pkl", lambda t: t.pop("mapping.fc1.weight"), "mapping_layers"),
        ("official_sf_1.pkl", lambda t: t.pop("synthesis.b32_0.enc.proj_weight"), "linformer"),
        ("official_stylenat_new.pt", lambda t: t.pop("synthesis.layers.1.blocks.0.attn.qkv.bias"), "qkv_bias"),
        (
            "official_stylenat_new.pt",
            lambda t: t.update({"synthesis.layers.1.blocks.0.attn.rpb.0": torch.zeros(1, 1, 1)}),
            "kernels, min_heads",
        ),
    ],
)
def test_tensors_that_do_not_fit_name_the_option(file, change, field, tmp_path):
    content = files.read(official_files.unpack(file, tmp_path))
    change(content.networks["G_ema"].tensors)
    with pytest.raises(UserError, match=rf"look at: .*{field}"):
        built(content, "G_ema")
