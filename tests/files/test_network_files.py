"""Network files of our own: round trips, the digest, old versions, renamed classes, crashes, the command line."""

import dataclasses
import functools
import http.server
import json
import os
import pickle
import struct
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from support import official_files
from support.golden import rel_err
from support.small_generators import network_file, small_generator
from torch import nn

from dnnlib.errors import UserError
from dnnlib.files import atomic_file
from torch_utils.files import persistence
from torch_utils.files.persistence import NetworkFile
from training import networks
from training.augment.pipe import PRESETS, AugmentPipe
from training.networks import __main__ as command
from training.networks import files, registry
from training.networks.discriminators.stylegan2 import StyleGAN2DiscriminatorConfig
from training.networks.generators.styleformer import StyleformerConfig
from training.networks.generators.stylegan2 import StyleGAN2Config, SynthesisNetwork
from training.networks.registry import NetworkConfig

FORMATS = official_files.FOLDER.parent / "formats"


def small_networks() -> dict[str, nn.Module]:
    G_cfg = StyleformerConfig(z_dim=16, w_dim=16, mapping_layers=1, g_dict=[16, 16, 8], num_layers=[1, 1, 1], depth=8)
    D_cfg = StyleGAN2DiscriminatorConfig(channel_base=256, channel_max=16)
    pipe = AugmentPipe(PRESETS["bgc"])
    pipe.p.fill_(0.5)
    built = {"G": networks.build(G_cfg), "D": networks.build(D_cfg), "G_ema": networks.build(G_cfg)}
    return built | {"augment_pipe": pipe}


def same_tensors(a: nn.Module, b: nn.Module) -> bool:
    first, second = a.state_dict(), b.state_dict()
    return list(first) == list(second) and all(torch.equal(first[k], second[k]) for k in first)


@pytest.mark.parametrize("suffix", [".pkl", ".safetensors"])
def test_round_trip(suffix, tmp_path):
    saved = small_networks()
    path = tmp_path / f"network{suffix}"
    networks.save(path, saved, {"preset": "x"}, {"path": "a.zip"}, {"kimg": 200})
    loaded = networks.load(path)
    for name, module in saved.items():
        assert same_tensors(module, loaded[name])
        assert module.cfg == loaded[name].cfg
        assert not loaded[name].training
    z = torch.randn(4, 16)
    images = [G.eval()(z, None, noise_mode="const") for G in (saved["G_ema"], loaded["G_ema"])]
    assert torch.equal(images[0], images[1])
    assert loaded["training_config"] == {"preset": "x"}
    assert loaded["training_set_kwargs"] == {"path": "a.zip"}
    assert loaded["provenance"]["kimg"] == 200
    assert os.listdir(tmp_path) == [path.name]


def test_same_networks_give_the_same_bytes(tmp_path):
    saved = small_networks()
    for name in ("a.pkl", "b.pkl"):
        networks.save(tmp_path / name, saved)
    assert (tmp_path / "a.pkl").read_bytes() == (tmp_path / "b.pkl").read_bytes()


def test_plain_pickle_load_gives_modules(tmp_path):
    saved = small_networks()
    networks.save(tmp_path / "x.pkl", saved, None, {"path": "a.zip"})
    with open(tmp_path / "x.pkl", "rb") as file:
        data = pickle.load(file)
    assert isinstance(data["G_ema"], nn.Module)
    assert same_tensors(data["G_ema"], saved["G_ema"])
    assert data["augment_pipe"].p == 0.5
    assert data["training_set_kwargs"] == {"path": "a.zip"}


def test_tensors_are_aligned_and_not_copied(tmp_path):
    networks.save(tmp_path / "x.pkl", small_networks())
    content = files.read(tmp_path / "x.pkl")
    for record in content.networks.values():
        assert all(t.data_ptr() % 64 == 0 for t in record.tensors.values())
    size = (tmp_path / "x.pkl").stat().st_size
    content.networks["G"].tensors["mapping.fc0.weight"].zero_()  # copied on write
    assert (tmp_path / "x.pkl").stat().st_size == size
    assert files.read(tmp_path / "x.pkl").networks["G"].tensors["mapping.fc0.weight"].abs().sum() > 0


@pytest.mark.parametrize("name", ["own.pkl", "own.safetensors", *official_files.FILES])
def test_networks_with_equal_tensors_share_no_memory(name, tmp_path):
    if name.startswith("own"):
        G = small_networks()["G"]
        networks.save(tmp_path / name, {"G": G, "G_ema": G})
        loaded = networks.load(tmp_path / name)
    else:
        loaded = networks.load(official_files.unpack(name, tmp_path))
    assert same_tensors(loaded["G"], loaded["G_ema"])
    places = [t.untyped_storage().data_ptr() for k in ("G", "G_ema") for t in loaded[k].state_dict().values()]
    assert len(set(places)) == len(places)


def test_loading_leaves_the_random_stream_alone(tmp_path):
    networks.save(tmp_path / "x.pkl", small_networks())
    torch.manual_seed(1)
    want = torch.rand(3)
    torch.manual_seed(1)
    networks.load(tmp_path / "x.pkl")
    assert torch.equal(torch.rand(3), want)


def test_some_networks_only(tmp_path):
    networks.save(tmp_path / "x.pkl", small_networks() | {"D": None})
    loaded = networks.load(tmp_path / "x.pkl", names=["G_ema", "D"])
    assert loaded["D"] is None
    assert loaded["G"] is None
    assert loaded["G_ema"] is not None


def test_odd_tensors_survive(tmp_path):
    tensors = {
        "half": torch.randn(3).half(),
        "bfloat16": torch.randn(2, 2).bfloat16(),
        "transposed": torch.randn(3, 4).t(),
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(2.5),
        "truth": torch.tensor([True, False]),
        "whole": torch.arange(5),
    }
    content = NetworkFile({"G": persistence.NetworkRecord("anything", {}, tensors)})
    for suffix in (".pkl", ".safetensors"):
        files.write(tmp_path / f"x{suffix}", content)
        read = files.read(tmp_path / f"x{suffix}").networks["G"].tensors
        assert {k: v.dtype for k, v in read.items()} == {k: v.dtype for k, v in tensors.items()}
        assert all(torch.equal(read[k], tensors[k]) for k in tensors)


@pytest.mark.parametrize("suffix", [".pkl", ".safetensors"])
def test_version_1_keeps_loading(suffix):
    loaded = networks.load(FORMATS / f"v1{suffix}")
    with np.load(FORMATS / "v1.npz") as data:
        want = {k: torch.from_numpy(data[k]) for k in data.files}
    assert rel_err(loaded["G_ema"](want["z"], want["c"], noise_mode="const"), want["img"]) < 1e-5
    assert rel_err(loaded["D"](want["img"], want["c"]), want["logits"]) < 1e-5
    assert loaded["augment_pipe"].p == 0.25
    assert loaded["training_set_kwargs"] == {"path": "cifar10.zip", "max_size": None}


def test_every_released_version_has_a_file():
    versions = range(1, persistence.FORMAT_VERSION + 1)
    assert all((FORMATS / f"v{v}.pkl").exists() for v in versions)
    assert set(persistence.MIGRATIONS) == set(versions[:-1])


def test_older_version_is_migrated(monkeypatch):
    def rename(content: NetworkFile) -> NetworkFile:
        content.networks["G_ema"].config["depth"] = 2
        return content

    monkeypatch.setattr(persistence, "FORMAT_VERSION", 2)
    monkeypatch.setattr(persistence, "MIGRATIONS", {1: rename})
    assert networks.load(FORMATS / "v1.pkl")["G_ema"].cfg.depth == 2


@pytest.mark.parametrize("suffix", [".pkl", ".safetensors"])
def test_newer_version_is_refused(suffix, tmp_path, monkeypatch):
    with monkeypatch.context() as newer:
        newer.setattr(persistence, "FORMAT_VERSION", 9)
        files.write(tmp_path / f"x{suffix}", NetworkFile({}, format_version=9))
    with pytest.raises(UserError, match="format version 9, this program reads up to 1"):
        networks.load(tmp_path / f"x{suffix}")


def renamed_network(kind: str, aliases: tuple[str, ...] = ()):
    @dataclasses.dataclass
    class TinyConfig(NetworkConfig):
        size: int = 3

    @registry.register(kind, TinyConfig, aliases)
    class Tiny(nn.Module):
        def __init__(self, cfg: TinyConfig) -> None:
            super().__init__()
            self.cfg = cfg
            self.weight = nn.Parameter(torch.randn(cfg.size))

    return TinyConfig


def test_renamed_class_loads_through_its_alias(tmp_path, monkeypatch):
    monkeypatch.setattr(NetworkConfig, "kinds", dict(NetworkConfig.kinds))
    module = networks.build(renamed_network("former_name")(size=5))
    networks.save(tmp_path / "x.pkl", {"G": module})
    del NetworkConfig.kinds["former_name"]
    with pytest.raises(UserError, match="G: kind: .*'former_name'"):
        networks.load(tmp_path / "x.pkl")
    new_config = renamed_network("new_name", aliases=("former_name",))
    loaded = networks.load(tmp_path / "x.pkl")["G"]
    assert type(loaded.cfg) is new_config
    assert loaded.cfg.kind == "new_name"
    assert same_tensors(module, loaded)


def test_unknown_config_fields_are_named(tmp_path):
    content = files.read(FORMATS / "v1.pkl")
    unknown = [f"future_field_{i}" for i in range(8)]
    content.networks["G_ema"].config |= dict.fromkeys(unknown, 1)
    files.write(tmp_path / "x.pkl", content)
    with pytest.raises(UserError) as caught:
        networks.load(tmp_path / "x.pkl")
    assert all(name in str(caught.value) for name in unknown)
    assert "x.pkl: G_ema: unknown config fields" in str(caught.value)


@pytest.mark.parametrize("part", [b"cifar10.zip", b"styleformer", b"w_avg", b"StyleLoom"])
def test_digest_covers_everything(part, tmp_path):
    for suffix in (".pkl", ".safetensors"):
        data = (FORMATS / f"v1{suffix}").read_bytes()
        assert part in data
        changed = data.replace(part, part[:-1] + bytes([part[-1] ^ 1]))
        (tmp_path / f"x{suffix}").write_bytes(changed)
        with pytest.raises(UserError, match="is damaged"):
            files.read(tmp_path / f"x{suffix}")


def test_digest_covers_the_tensors(tmp_path):
    content = files.read(FORMATS / "v1.pkl")
    weight = content.networks["G_ema"].tensors["mapping.fc0.weight"]
    stored = struct.pack("<f", float(weight[0, 0]))
    data = (FORMATS / "v1.pkl").read_bytes()
    assert data.count(stored) == 1
    (tmp_path / "x.pkl").write_bytes(data.replace(stored, struct.pack("<f", 1.5)))
    with pytest.raises(UserError, match="is damaged: its content has SHA-256"):
        files.read(tmp_path / "x.pkl")


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.bin"
    path.write_bytes(b"old")
    monkeypatch.setattr(persistence.PickleWriter, "finish", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        files.write(path, NetworkFile({}))
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x.bin"]


def test_killed_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.bin"
    path.write_bytes(b"old")
    child = os.fork()
    if child == 0:
        with atomic_file(path) as file:
            file.write(b"half of the new")
            file.flush()
            os._exit(9)
    os.waitpid(child, 0)
    assert path.read_bytes() == b"old"


def test_what_cannot_be_saved(tmp_path):
    with pytest.raises(ValueError, match="not \\['H'\\]"):
        networks.save(tmp_path / "x.pkl", {"H": None})
    with pytest.raises(TypeError, match="object is no plain data"):
        networks.save(tmp_path / "x.pkl", {}, {"a": object()})
    with pytest.raises(UserError, match="cannot write"):
        networks.save(tmp_path / "no such folder" / "x.pkl", {})
    with pytest.raises(UserError, match="does not exist"):
        networks.load(tmp_path / "absent.pkl")
    with pytest.raises(UserError, match="cannot read"):
        networks.load(tmp_path)


def test_url(tmp_path, monkeypatch):
    monkeypatch.setenv("STYLELOOM_CACHE", str(tmp_path))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(FORMATS))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/v1.pkl"
        assert networks.load(url)["G_ema"].z_dim == 8
        server.shutdown()
    assert networks.load(url)["G_ema"].z_dim == 8  # from the cache
    with pytest.raises(UserError, match="cannot download"):
        networks.load(url.replace("v1.pkl", "v2.pkl"))


# -- python -m training.networks --------------------------------------------------------------------------------------


def run(*arguments) -> str:
    result = CliRunner().invoke(command.main, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def refused(*arguments) -> str:
    result = CliRunner().invoke(command.main, [str(a) for a in arguments])
    assert result.exit_code == 2
    assert result.output.startswith("Error: ")
    assert result.output.count("\n") == 1
    return result.output


def test_show_builds_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "build", None)
    shown = run("show", FORMATS / "v1.pkl")
    assert "G_ema         styleformer, 21 tensors" in shown
    assert "origin        program " in shown
    assert ", kimg 4" in shown
    assert max(map(len, shown.splitlines())) <= 100
    everything = json.loads(run("show", FORMATS / "v1.pkl", "--json"))
    assert everything["networks"]["G_ema"]["kind"] == "styleformer"
    assert everything["sha256"] == shown.splitlines()[-1].split()[1]
    with open(FORMATS / "v1.pkl", "rb") as file:
        assert shown.splitlines()[-1].split()[1].encode() in file.read()


def test_verify(tmp_path):
    assert run("verify", FORMATS / "v1.safetensors").count(" ok: ") == 4
    content = files.read(FORMATS / "v1.pkl")
    content.networks["G"].config["g_dict"] = [8, 8]
    files.write(tmp_path / "x.pkl", content)
    assert "x.pkl: G: " in refused("verify", tmp_path / "x.pkl")


def test_convert(tmp_path):
    source = official_files.unpack("official_sg_0.pkl", tmp_path)
    run("convert", source, tmp_path / "a.safetensors", "--only=G_ema")
    run("convert", tmp_path / "a.safetensors", tmp_path / "b.pkl")
    first, second = networks.load(source), networks.load(tmp_path / "b.pkl")
    assert same_tensors(first["G_ema"], second["G_ema"])
    assert second["D"] is None
    assert second["provenance"]["converted_from"] == "a.safetensors"
    assert "holds no D" in refused("convert", tmp_path / "b.pkl", tmp_path / "c.pkl", "--only=D")
    assert "name another DEST" in refused("convert", tmp_path / "b.pkl", tmp_path / "b.pkl")
    assert "say what to write" in refused("convert", tmp_path / "b.pkl", tmp_path / "c.doc")
    assert "ends in .onnx" in refused("convert", tmp_path / "b.pkl", tmp_path / "c.pkl", "--to=onnx")


@pytest.fixture(scope="module")
def tiny_generator(tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "tiny.pkl"
    cfg = StyleGAN2Config(
        img_resolution=(8, 8), z_dim=8, w_dim=8, mapping_layers=1, c_dim=2, channel_base=64, channel_max=8
    )
    networks.save(path, {"G_ema": networks.build(cfg)})
    return path


def images_of(path, z: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    return networks.load(path)["G_ema"](z, c, truncation_psi=0.5, noise_mode="const")


def test_exported_program(tiny_generator, tmp_path):
    out = run("convert", tiny_generator, tmp_path / "g.pt2", "--trunc=0.5")
    assert "psi 0.5" in out
    z, c = torch.randn(5, 8), torch.eye(2)[[0, 1, 0, 1, 1]]
    program = torch.export.load(tmp_path / "g.pt2").module()
    assert rel_err(program(z, c), images_of(tiny_generator, z, c)) < 1e-5


def test_a_generator_that_cannot_be_exported_is_one_line(tiny_generator, tmp_path, monkeypatch):
    def grey(self, ws, noise_mode="random"):
        return torch.zeros(len(ws), 3, 8, 8)  # len() makes the batch a constant

    monkeypatch.setattr(SynthesisNetwork, "forward", grey)
    assert "can't follow the generator stylegan2" in refused("convert", tiny_generator, tmp_path / "g.pt2")
    assert not list(tmp_path.iterdir())


def test_onnx(tiny_generator, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    run("convert", tiny_generator, tmp_path / "g.onnx", "--trunc=0.5")
    z, c = torch.randn(5, 8), torch.eye(2)[[0, 1, 0, 1, 1]]
    session = onnxruntime.InferenceSession(tmp_path / "g.onnx", providers=["CPUExecutionProvider"])
    (images,) = session.run(["images"], {"z": z.numpy(), "c": c.numpy()})
    assert rel_err(torch.from_numpy(images), images_of(tiny_generator, z, c)) < 1e-4


def test_onnx_is_lean(tmp_path):
    """No path of this machine, nothing that is computed at every run though it never changes, no input without use."""
    onnx = pytest.importorskip("onnx")
    G = small_generator()
    file = network_file(tmp_path, G)
    run("convert", file, tmp_path / "g.onnx")
    data = (tmp_path / "g.onnx").read_bytes()
    for trace in (b"site-packages", b".py", b"stack_trace", str(Path.cwd()).encode()):
        assert trace not in data
    weights = sum(p.numel() * 4 for p in G.state_dict().values())
    assert len(data) < 1.2 * weights + 300_000
    graph = onnx.load_from_string(data).graph
    assert [i.name for i in graph.input] == ["z"]
    used = {name for node in graph.node for name in node.input}
    assert all(set(node.output) & (used | {"images"}) for node in graph.node)
    known = {i.name for i in graph.initializer}
    constant = [n.op_type for n in graph.node if n.op_type != "Constant" and n.input and set(n.input) <= known]
    assert len(constant) < 10, constant


def test_metadata_of_safetensors_is_json():
    data = (FORMATS / "v1.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
    described = json.loads(header["__metadata__"][persistence.METADATA_KEY])
    assert described["networks"]["G_ema"]["kind"] == "styleformer"
    assert described["format_version"] == 1
