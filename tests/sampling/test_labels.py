"""Networks whose labels are vectors: --label, --label-file, drawn labels; --class is refused."""

import json
import zipfile

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from support.small_generators import small_generator

import generate
from dnnlib import UserError
from training import networks
from training.dataset import open_dataset
from training.sampling.explorer import Explorer, View
from training.sampling.labels import drawn_labels, parse_vector, read_vectors, vectors_trained_on
from training.sampling.pictures import to_pil
from training.sampling.seeds import image_of_seed

VECTORS = [[i / 8, -1.5] for i in range(8)]


@pytest.fixture
def network(tmp_path) -> str:
    """A file as training writes it, of a network with vectors of two numbers as labels."""
    path = tmp_path / "net.pkl"
    kwargs = {"path": "gone.zip", "labels": {"vectors": VECTORS}}
    networks.save(path, {"G_ema": small_generator(c_dim=2)}, training_set_kwargs=kwargs)
    return str(path)


def run(*arguments: str):
    return CliRunner().invoke(generate.main, list(map(str, arguments)))


def vector_data(path) -> str:
    with zipfile.ZipFile(path, "w") as out:
        for i in range(len(VECTORS)):
            with out.open(f"{i}.png", "w") as file:
                Image.fromarray(np.full((32, 32, 3), i * 9, np.uint8)).save(file, "png")
        out.writestr("dataset.json", json.dumps({"labels": [[f"{i}.png", v] for i, v in enumerate(VECTORS)]}))
    return str(path)


def test_label_reaches_the_network(network, tmp_path):
    assert run(f"--network={network}", f"--outdir={tmp_path}/o", "--seeds=3", "--label=0.1,0.3").exit_code == 0
    G = networks.load(network)["G_ema"]
    want = to_pil(image_of_seed(G, 3, torch.tensor([[0.1, 0.3]])))
    assert Image.open(tmp_path / "o/seed0003.png").tobytes() == want.tobytes()
    other = to_pil(image_of_seed(G, 3, torch.tensor([[0.1, 3.0]])))
    assert other.tobytes() != want.tobytes()


@pytest.mark.parametrize("text", ["0.5,1\n-1 2\n", "[[0.5, 1], [-1, 2]]"])
def test_label_file_gives_the_seeds_their_labels_in_turn(network, tmp_path, text):
    (tmp_path / "labels.txt").write_text(text)
    arguments = (f"--network={network}", f"--outdir={tmp_path}/o", f"--label-file={tmp_path}/labels.txt")
    assert run(*arguments, "--seeds=0-2").exit_code == 0
    G = networks.load(network)["G_ema"]
    for seed, label in enumerate([[0.5, 1], [-1, 2], [0.5, 1]]):
        want = to_pil(image_of_seed(G, seed, torch.tensor([label], dtype=torch.float32)))
        assert Image.open(tmp_path / f"o/seed{seed:04d}.png").tobytes() == want.tobytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--class=1"], "--class=1: this network knows no classes. Its labels are vectors of 2: --label="),
        ([], "which label? Its labels are vectors of 2"),
        (["--label=1"], "a label of 1 numbers, but this network takes 2"),
        (["--label=1,x"], "'1,x' is no list of numbers"),
        (["--label=1,nan"], "is not finite"),
        (["--label=1,2", "--class=0"], "give one of --class, --label and --label-file"),
        (["--label-file=nowhere"], "cannot read nowhere"),
    ],
)
@pytest.mark.parametrize("command", [[], ["mix"], ["project", "--target=x.png"]])
def test_labels_that_do_not_fit(network, tmp_path, command, options, message):
    place = f"--out={tmp_path}/o.png" if command == ["mix"] else f"--outdir={tmp_path}/o"
    seeds = [] if command else ["--seeds=0"]
    done = run(*command, f"--network={network}", place, *seeds, *options)
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())
    assert not (tmp_path / "o").exists()


def test_unconditional_networks_take_no_label(tmp_path):
    networks.save(tmp_path / "net.pkl", {"G_ema": small_generator()})
    done = run(f"--network={tmp_path}/net.pkl", f"--outdir={tmp_path}/o", "--seeds=0", "--label=1,2")
    assert (done.exit_code, "this network is unconditional" in done.output) == (2, True)


def test_count_draws_labels_of_the_network_file(network, tmp_path):
    assert run("count", f"--network={network}", "--count=6", f"--out={tmp_path}/c.zip").exit_code == 0
    labels = json.loads(zipfile.ZipFile(tmp_path / "c.zip").read("dataset.json"))["labels"]
    assert all(label in VECTORS for _, label in labels)
    assert len({tuple(label) for _, label in labels}) > 2
    made, _ = open_dataset(tmp_path / "c.zip", use_labels=True).load(range(6))
    G = networks.load(network)["G_ema"]
    for i in (0, 5):
        want = image_of_seed(G, i, torch.tensor([labels[i][1]]))
        assert (made[i].int() - want.int()).abs().max() <= 1


def test_count_takes_given_labels_in_turn(network, tmp_path):
    (tmp_path / "labels.json").write_text("[[1, 2], [3, 4]]")
    arguments = ("count", f"--network={network}", "--count=3", f"--out={tmp_path}/c.zip")
    assert run(*arguments, f"--label-file={tmp_path}/labels.json").exit_code == 0
    labels = json.loads(zipfile.ZipFile(tmp_path / "c.zip").read("dataset.json"))["labels"]
    assert [label for _, label in labels] == [[1, 2], [3, 4], [1, 2]]


def test_grid_and_explorer_draw_labels(network, tmp_path):
    assert run("grid", f"--network={network}", "--seeds=0-3", "--scale=1", f"--out={tmp_path}/g.png").exit_code == 0
    G = networks.load(network)["G_ema"]
    G.label_vectors = torch.tensor(VECTORS)
    c = drawn_labels(G, [2])
    assert c[0].tolist() in VECTORS
    want = to_pil(image_of_seed(G, 2, c)).convert("RGB")
    sheet = Image.open(tmp_path / "g.png")
    assert sheet.crop((2 * 34, 0, 2 * 34 + 32, 32)).tobytes() == want.tobytes()
    explorer = Explorer(G, "net")
    assert explorer.info()["classes"] == 0
    assert explorer.picture(View(seed=2)).resize((32, 32), Image.Resampling.NEAREST).tobytes() == want.tobytes()


def test_files_of_earlier_versions_tell_by_their_data_set(tmp_path):
    path = vector_data(tmp_path / "v.zip")
    assert vectors_trained_on({"training_set_kwargs": {"path": path}}).tolist() == VECTORS
    assert vectors_trained_on({"training_set_kwargs": {"path": "gone.zip"}}) is None
    assert vectors_trained_on({"training_set_kwargs": {"path": path, "labels": {"classes": 2}}}) is None
    assert vectors_trained_on({"training_set_kwargs": None}) is None


def test_what_a_network_file_keeps_of_the_labels(tmp_path):
    path = vector_data(tmp_path / "v.zip")
    assert open_dataset(path, use_labels=True).label_examples() == {"vectors": VECTORS}
    assert open_dataset(path).label_examples() is None
    assert open_dataset("datasets/noto-emoji-32.zip", use_labels=True).label_examples() == {"classes": 9}


def test_a_run_folder_means_its_newest_snapshot(tmp_path):
    run_folder = tmp_path / "00000-x"
    run_folder.mkdir()
    done = run(f"--network={run_folder}", f"--outdir={tmp_path}/o", "--seeds=0")
    assert (done.exit_code, "holds no network-snapshot-*.pkl" in done.output) == (2, True)
    for kimg, seed in ((999, 1), (1000, 2)):
        networks.save(run_folder / f"network-snapshot-{kimg:06d}.pkl", {"G_ema": small_generator(seed)})
    done = run(f"--network={run_folder}", f"--outdir={tmp_path}/o", "--seeds=0")
    assert done.output == f"1 picture in {tmp_path}/o\n"
    want = to_pil(image_of_seed(small_generator(2), 0, torch.zeros(1, 0)))
    assert Image.open(tmp_path / "o/seed0000.png").tobytes() == want.tobytes()


def test_vectors_in_text(tmp_path):
    assert parse_vector("-1,2e3", "--label") == [-1, 2000]
    (tmp_path / "x").write_text("\n")
    with pytest.raises(UserError, match="is empty"):
        read_vectors(str(tmp_path / "x"))
