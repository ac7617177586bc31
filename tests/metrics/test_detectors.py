"""Feature networks against the libraries they come from, their file forms, and what a user is told."""

import hashlib

import numpy as np
import pytest
import torch
from PIL import Image
from support import golden, peers

from dnnlib import UserError, cache
from metrics.detectors import (
    DetectorInfo,
    DetectorMissing,
    assign_files,
    detector_info,
    find_weights,
    load_detector,
    register_detector,
    registry,
    resize,
)
from metrics.detectors.dinov2 import DINOv2Detector
from metrics.detectors.inception import build_inception
from metrics.detectors.vgg import build_vgg
from metrics.detectors.weights import Weights

IMAGENET_MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
IMAGENET_STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def random_images(n, size, seed=0):
    return torch.from_numpy(np.random.RandomState(seed).randint(0, 256, (n, 3, size, size)).astype(np.uint8))


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv(cache.CACHE_VARIABLE, str(tmp_path / "cache"))


# -- the two offline detectors, with their real weights ------------------------------------------------------------


def test_lite0_is_the_network_of_its_package():
    from efficientnet_lite_pytorch import EfficientNet

    images = random_images(3, 96)
    model = EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict(torch.load(find_weights("lite0"), weights_only=True))
    model.eval()
    with torch.no_grad():
        x = (images / 255 - IMAGENET_MEAN) / IMAGENET_STD
        features, logits = model.extract_features(x).mean((2, 3)), model(x)
        own = load_detector("lite0")(images, ["features", "probs"])
    assert golden.rel_err(own["features"], features) < 1e-4
    assert golden.rel_err(own["probs"], logits.softmax(1)) < 1e-4


def test_mobilenetv2_is_torchvisions():
    images = random_images(3, 96)
    model = peers.torchvision().models.mobilenet_v2()
    model.load_state_dict(torch.load(find_weights("mobilenetv2"), weights_only=True))
    model.eval()
    with torch.no_grad():
        x = (images / 255 - IMAGENET_MEAN) / IMAGENET_STD
        features, logits = model.features(x).mean((2, 3)), model(x)
        own = load_detector("mobilenetv2")(images, ["features", "probs"])
    assert golden.rel_err(own["features"], features) < 1e-4
    assert golden.rel_err(own["probs"], logits.softmax(1)) < 1e-4


@pytest.mark.parametrize("name", ["lite0", "mobilenetv2"])
def test_offline_detectors_do_not_depend_on_the_batch(name):
    detector, images = load_detector(name), random_images(5, 32)
    with torch.no_grad():
        together = detector(images, ["features"])["features"]
        alone = torch.cat([detector(image[None], ["features"])["features"] for image in images])
    assert together.shape == (5, 1280)
    assert golden.rel_err(together, alone) < 1e-4


def test_a_detector_is_built_once(monkeypatch):
    assert load_detector("lite0") is load_detector("lite0")
    assert load_detector("lite0") is not load_detector("lite0", resize_mode="torch_bilinear")


# -- Inception -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    """Random weights under the published names and shapes, which pytorch-fid's class defines."""
    path = tmp_path_factory.mktemp("inception") / "inception.pth"
    torch.save(peers.random_inception_state(), path)
    return path


def test_inception_features_are_those_of_pytorch_fid(inception_file):
    state = torch.load(inception_file, weights_only=True)
    images = random_images(2, 40)
    own = build_inception(inception_file, "torch_bilinear").eval()
    blocks = peers.pytorch_fid_inception(state)
    with torch.no_grad():
        x = torch.nn.functional.interpolate(images.float(), (299, 299), mode="bilinear", align_corners=False)
        blocks.fc = torch.nn.Identity()
        features = blocks((x - 128) / 128)
        assert golden.rel_err(own(images, ["features"])["features"], features) < 1e-4


def test_inception_logits_are_those_of_torch_fidelity(inception_file):
    extractor = peers.torch_fidelity().FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(inception_file)
    )
    images = random_images(2, 40, seed=1)
    with torch.no_grad():
        features, logits = extractor(images)
        own = build_inception(inception_file, None).eval()(images, ["features", "logits", "probs"])
    assert golden.rel_err(own["features"], features) < 1e-4
    assert golden.rel_err(own["logits"], logits) < 1e-4
    assert golden.rel_err(own["probs"], logits.softmax(1)) < 1e-4


class ScriptedInception(torch.nn.Module):
    """The interface of NVIDIA's file: uint8 images, and switches for what comes out."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.linspace(-1, 1, 12).view(4, 3))
        self.bias = torch.nn.Parameter(torch.linspace(0, 1, 4))

    def forward(
        self, img: torch.Tensor, return_features: bool = False, use_fp16: bool = False, no_output_bias: bool = False
    ) -> torch.Tensor:
        assert img.dtype == torch.uint8
        features = img.float().mean([2, 3])
        if return_features:
            return features
        logits = features @ self.weight.t()
        if not no_output_bias:
            logits = logits + self.bias
        return logits.softmax(1)


def test_torchscript_inception_is_called_as_published(tmp_path):
    path = tmp_path / "inception-2015-12-05.pt"
    torch.jit.script(ScriptedInception()).save(str(path))
    images = random_images(3, 20)
    detector = load_detector("inception-2015-12-05", file=path)
    result = detector(images, ["features", "probs"])
    features = images.float().mean((2, 3))
    weight = torch.linspace(-1, 1, 12).view(4, 3)
    assert detector.resize_mode == "tf1_bilinear"
    assert golden.rel_err(result["features"], features) < 1e-6
    assert golden.rel_err(result["probs"], (features @ weight.T).softmax(1)) < 1e-6
    with pytest.raises(UserError, match="always resizes by tf1_bilinear"):
        load_detector("inception-2015-12-05", file=path, resize_mode="clean_bicubic")


def test_torchscript_file_in_the_cache_is_found(tmp_path):
    folder = cache.cache_root() / "detectors"
    folder.mkdir(parents=True)
    torch.jit.script(ScriptedInception()).save(str(folder / "inception-2015-12-05.pt"))
    assert find_weights("inception-2015-12-05") == folder / "inception-2015-12-05.pt"


# -- VGG-16 and DINOv2 ---------------------------------------------------------------------------------------------


class ScriptedVGG(torch.nn.Module):
    def forward(
        self,
        img: torch.Tensor,
        resize_images: bool = True,
        return_features: bool = False,
        return_lpips: bool = False,
    ) -> torch.Tensor:
        if return_lpips:
            assert not resize_images
            return img.flatten(1) / 255
        assert return_features
        return img.float().mean([2, 3])


def test_vgg_is_called_as_published(tmp_path):
    path = tmp_path / "vgg16.pt"
    torch.jit.script(ScriptedVGG()).save(str(path))
    detector = build_vgg(path, None)
    images = random_images(2, 8)
    assert torch.equal(detector(images, ["features"])["features"], images.float().mean((2, 3)))
    assert torch.equal(detector.lpips(images.float()), images.flatten(1) / 255)
    with pytest.raises(UserError, match="takes? no other resize mode"):
        build_vgg(path, "clean_bicubic")


def dinov2_shapes(width, depth):
    shapes = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 1 + 37 * 37, width),
        "patch_embed.proj.weight": (width, 3, 14, 14),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
    }
    layers = {"attn.qkv": (3, 1), "attn.proj": (1, 1), "mlp.fc1": (4, 1), "mlp.fc2": (1, 4)}
    for i in range(depth):
        for name, (out, inner) in layers.items():
            shapes[f"blocks.{i}.{name}.weight"] = (out * width, inner * width)
            shapes[f"blocks.{i}.{name}.bias"] = (out * width,)
        for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "ls1.gamma", "ls2.gamma"):
            shapes[f"blocks.{i}.{name}"] = (width,)
    return shapes


def test_dinov2_matches_the_published_class(tmp_path):
    """Golden: PyPI's dinov2 0.0.1.dev2, DinoVisionTransformer(518, 14, width 128, depth 2, 2 heads), same weights."""
    path = tmp_path / "vit.pth"
    torch.save(peers.weights_from_names(dinov2_shapes(128, 2)), path)
    detector = DINOv2Detector(Weights(path), "clean_bicubic")
    tokens = []
    detector.norm.register_forward_hook(lambda _module, _inputs, out: tokens.append(out))
    with torch.no_grad():
        found = detector(random_images(2, 224), ["features", "spatial"])
    assert golden.rel_err(found["features"], golden.load("dinov2_tiny")["out/features"]) < 1e-5
    assert found["spatial"].shape == (2, 128, 16, 16)
    assert torch.equal(found["spatial"][1, :, 2, 5], tokens[0][1, 1 + 2 * 16 + 5])


@pytest.mark.parametrize("name", ["lite0", "mobilenetv2"])
def test_features_are_the_mean_of_the_spatial_ones(name):
    detector = load_detector(name)
    images = random_images(3, 40)
    found = detector(images, ["features", "spatial"])
    assert found["spatial"].shape == (3, 1280, 3, 3)
    assert torch.allclose(found["spatial"].mean((2, 3)), found["features"], atol=1e-6)
    assert torch.equal(found["features"], detector(images, ["features"])["features"])


# -- resizing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("old", "new"), [(32, 299), (300, 299), (64, 31)])
def test_tf1_bilinear_is_tensorflows(old, new):
    peers.torch_fidelity()
    from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

    images = random_images(2, old).float()
    expected = interpolate_bilinear_2d_like_tensorflow1x(images, size=(new, new), align_corners=False)
    assert (resize.tf1_bilinear(images, new) - expected).abs().max() < 0.01


@pytest.mark.parametrize(("old", "new"), [(32, 96), (200, 96)])
def test_clean_bicubic_is_pillows(old, new):
    image = random_images(1, old)
    planes = [Image.fromarray(plane.float().numpy()).resize((new, new), Image.Resampling.BICUBIC) for plane in image[0]]
    expected = torch.from_numpy(np.stack(planes)).clamp(0, 255)
    assert (resize.clean_bicubic(image.float(), new)[0] - expected).abs().max() < 0.01


def test_unknown_resize_mode():
    with pytest.raises(UserError, match="unknown resize mode 'nearest'; known: torch_bilinear"):
        resize.resize(torch.zeros(1, 3, 8, 8), 4, "nearest")


# -- plug-ins and files --------------------------------------------------------------------------------------------


def file_detector(tmp_path, monkeypatch, **changes):
    """A detector `plugged` whose weights file is `weights.bin`; forgotten after the test."""
    monkeypatch.setattr(registry, "_DETECTORS", dict(registry._DETECTORS))
    fields = {
        "name": "plugged",
        "version": "1",
        "outputs": ("features",),
        "input_size": 8,
        "resize_mode": "torch_bilinear",
        "licence": "MIT",
        "source": "test",
        "build": lambda path, mode: torch.nn.Identity(),
        "file_name": "weights.bin",
        "file_mb": 1,
        "sha256": hashlib.sha256(b"good").hexdigest(),
        "url": "http://127.0.0.1:9/weights.bin",
    }
    return register_detector(DetectorInfo(**(fields | changes)))


def test_missing_detector_names_file_size_and_place(tmp_path, monkeypatch):
    file_detector(tmp_path, monkeypatch)
    with pytest.raises(DetectorMissing) as e:
        find_weights("plugged")
    for part in ("weights.bin", "1 MB", str(cache.cache_root() / "detectors"), "--detector=FILE"):
        assert part in str(e.value)
    assert "\n" not in str(e.value)


def test_missing_package_names_the_install_command(monkeypatch, tmp_path):
    file_detector(tmp_path, monkeypatch, locate=lambda: None, install_hint="install it by `pip install weights`")
    with pytest.raises(DetectorMissing, match="pip install weights"):
        find_weights("plugged")


def test_wrong_checksum_is_refused_wherever_the_file_lies(tmp_path, monkeypatch):
    file_detector(tmp_path, monkeypatch)
    for folder in (tmp_path, cache.cache_root() / "detectors"):
        folder.mkdir(exist_ok=True, parents=True)
        (folder / "weights.bin").write_bytes(b"bad")
    for given in (None, tmp_path / "weights.bin"):
        with pytest.raises(UserError, match="wrong SHA-256"):
            find_weights("plugged", given)
    (tmp_path / "weights.bin").write_bytes(b"good")
    assert find_weights("plugged", tmp_path / "weights.bin") == tmp_path / "weights.bin"


def test_two_detectors_of_one_name_are_a_programming_error():
    with pytest.raises(ValueError, match="two detectors register"):
        register_detector(detector_info("lite0"))


def test_detector_option_finds_its_detector():
    wanted = ["inception-2015-12-05", "lite0"]
    assert assign_files(["vgg16=a.pt"], wanted) == {"vgg16": "a.pt"}
    assert assign_files(["x/vgg16.pt"], wanted) == {"vgg16": "x/vgg16.pt"}
    assert assign_files(["my.pth"], wanted) == {"inception-2015-12-05": "my.pth"}
    with pytest.raises(UserError, match="say which detector"):
        assign_files(["my.pth"], [*wanted, "vgg16"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>", "not a file of tensors"),
        ([1, 2], "not a table of tensors"),
        ({"other": torch.zeros(1)}, "lacks the tensor 'Conv2d_1a_3x3.bn.running_mean'"),
    ],
)
def test_wrong_files_are_one_line(tmp_path, content, message):
    path = tmp_path / "w.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(UserError, match=message):
        load_detector("inception-2015-12-05", file=path)


def test_code_in_a_weights_file_is_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"fc.weight": Bomb()}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="not a file of tensors"):
        Weights(tmp_path / "w.pth")
    assert not (tmp_path / "ran").exists()
