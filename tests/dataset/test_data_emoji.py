"""The embedded emoji data set is what its description says, and its script makes it from the npm package's layout."""

import io
import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image
from support.dataset_samples import add_file, read_dataset_zip

from training.dataset import open_dataset

ROOT = Path(__file__).parents[2]
ZIP, TEXT = ROOT / "datasets/noto-emoji-32.zip", ROOT / "datasets/noto-emoji-32.md"


def test_the_zip_is_what_its_description_says():
    assert ZIP.stat().st_size <= 5_000_000
    dataset = open_dataset(ZIP, use_labels=True)
    images, labels = dataset.load(range(len(dataset)))
    assert dataset.image_shape == (3, 32, 32)
    assert len(np.unique(images.numpy().reshape(len(images), -1), axis=0)) == len(images), "no duplicates"
    table = re.findall(r"^\| (\d) \| [^|]+ \| (\d+) \|$", TEXT.read_text(), re.MULTILINE)
    assert [int(n) for _, n in table] == labels.sum(0).int().tolist()
    assert sum(int(n) for _, n in table) == len(dataset) == 1892
    assert (images[:, :, 0, 0] == 255).all(1).float().mean() > 0.8, "on white"
    assert "Apache License" in TEXT.read_text()


def test_the_script_makes_it_from_the_package(tmp_path):
    random = np.random.RandomState(0)
    emoji, pictures = [], {}
    for order, (name, category) in enumerate(
        [("b", "Flags"), ("a", "Smileys & Emotion"), ("twin", "Flags"), ("swatch", "Component"), ("gone", "Flags")]
    ):
        pictures[name] = pictures["a"] if name == "twin" else random.randint(0, 256, (64, 64, 4), np.uint8)
        emoji.append({"image": f"{name}.png", "unified": name, "category": category, "sort_order": order ^ 1,
                      "has_img_google": name != "gone",
                      "skin_variations": {"1F3FB": {"image": "dark.png"}}})  # fmt: skip
    with tarfile.open(tmp_path / "p.tgz", "w:gz") as tar:
        add_file(tar, "package/emoji.json", json.dumps(emoji).encode())
        for name, pixels in {**pictures, "dark": pictures["b"] // 2}.items():
            out = io.BytesIO()
            Image.fromarray(pixels).save(out, "png")
            add_file(tar, f"package/img/google/64/{name}.png", out.getvalue())
    command = [sys.executable, "-m", "training.conversion.noto_emoji", f"--package={tmp_path}/p.tgz"]
    done = subprocess.run([*command, f"--dest={tmp_path}/o.zip"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "2 emoji" in done.stdout
    images, labels = read_dataset_zip(tmp_path / "o.zip")
    assert labels == [0, 1], "a comes first, by sort_order"
    pixels = pictures["b"].astype(float)
    alpha = pixels[..., 3:] / 255
    flat = pixels[..., :3] * alpha + 255 * (1 - alpha)
    expected = flat.reshape(32, 2, 32, 2, 3).mean((1, 3))
    assert np.abs(images[1] - expected).max() <= 1.5
    again = subprocess.run([*command, f"--dest={tmp_path}/p.zip"], cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 0
    assert (tmp_path / "o.zip").read_bytes() == (tmp_path / "p.zip").read_bytes()
