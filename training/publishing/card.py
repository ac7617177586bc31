"""A model card for a network file: Markdown of what the file and its run folder say, with marked fields for the rest.

The fields follow Mitchell et al. 2019, "Model Cards for Model Reporting". Nothing is guessed: what isn't in the file is
marked `TO FILL IN`.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dnnlib.cache import file_sha256, is_url
from dnnlib.config import to_dict
from dnnlib.files import atomic_file
from dnnlib.hub import is_hub
from metrics.result import read_results
from torch_utils.files.persistence import NetworkFile, NetworkRecord
from torch_utils.files.safe_pickle import DAMAGE
from training.networks import files
from training.networks.registry import GeneratorConfig, NetworkConfig, config_from_dict, known_kinds

TO_FILL_IN = "**TO FILL IN**"
_SHOWN_TRAINING = ("preset", "seed", "gpus", "batch", "total_kimg", "resume", "precision")
_ORDER = ("G_ema", "G", "D")  # the first one that is there is the one to sample from
_VERSIONS = ("program", "torch")  # of the provenance
_FIXED = {"truncation_psi": "truncation psi", "noise_mode": "noise"}  # of the provenance, for exported programs
_HOW = ("detector", "resize_mode", "num_generated", "num_real", "dataset", "dataset_hash")
_RUN = {
    ".onnx": """```python
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("{name}")
z = np.random.RandomState(0).randn(1, {z_dim}).astype(np.float32){seed}
inputs = {{"z": z, "c": np.zeros((1, {c_dim}), np.float32)}}
wanted = {{value.name for value in session.get_inputs()}}
(images,) = session.run(None, {{k: v for k, v in inputs.items() if k in wanted}})
# images: [1, {channels}, {height}, {width}], about [-1, 1]
```""",
    ".pt2": """```python
import numpy as np
import torch

program = torch.export.load("{name}").module()
z = torch.from_numpy(np.random.RandomState(0).randn(1, {z_dim})).float(){seed}
images = program(z, torch.zeros(1, {c_dim}))
# images: [1, {channels}, {height}, {width}], about [-1, 1]
```""",
}


@dataclass(frozen=True)
class Published:
    """Where a network can be had, and under which licence."""

    repo: str  # on the Hugging Face Hub
    licence: str | None = None


def write_card(card: Path, made: Path, content: NetworkFile, source: str) -> None:
    """Writes the card of file `made`, which holds what `content` says; metrics come from the run folder of `source`."""
    text = model_card(made, content, run_metrics(source))
    with atomic_file(card) as file:
        file.write(text.encode("utf-8", "backslashreplace"))


def run_metrics(source: str) -> list[dict[str, Any]]:
    """The lines about network file `source` in the metric-*.jsonl beside it, the newest of each metric."""
    if is_url(source):
        return []
    path = Path(source)
    found: dict[str, dict[str, Any]] = {}
    for file in sorted(path.parent.glob("metric-*.jsonl")):
        for entry in read_results(file):
            if entry.get("snapshot_pkl") == path.name and entry.get("metric"):
                found[entry["metric"]] = entry
    return list(found.values())


def model_card(
    made: Path, content: NetworkFile, metrics: list[dict[str, Any]], published: "Published | None" = None
) -> str:
    """The card as Markdown."""
    records = {name: record for name in _ORDER if (record := content.networks.get(name)) is not None}
    main = next(iter(records.values()), None)
    address = made.name if published is None else f"hf://{published.repo}"
    sections = {
        "": _said(lambda: _about(made, content, published)),
        "Intended use": f"{TO_FILL_IN}: what it is for, who should use it, what it must not be used for.",
        "Networks": _said(lambda: _networks(records)),
        "Training data": _said(lambda: _data(content, main)),
        "Training": _said(lambda: _training(content)),
        "Measured": _said(lambda: _measured(metrics)),
        "Sampling": _said(lambda: _sampling(address, made, main, _label_examples(content))),
        "Limits": f"{TO_FILL_IN}: what it does badly, what its data lack or distort, whom its pictures could harm.",
    }
    title = f"# Model card: {made.stem}\n\n"
    note = f"Written from the file by StyleLoom. {TO_FILL_IN} marks what the file doesn't say.\n\n"
    body = "\n\n".join(f"## {head}\n\n{text}" if head else text for head, text in sections.items())
    return f"{title}{note}{body}\n"


def _said(section: Callable[[], str]) -> str:
    """A section; it is left to be filled in where the file says something that makes no sense."""
    try:
        return section()
    except DAMAGE:
        return TO_FILL_IN


def _about(made: Path, content: NetworkFile, published: "Published | None") -> str:
    origin = content.provenance
    rows: dict[str, Any] = {
        "file": f"`{made.name}`, {made.stat().st_size:,} bytes",
        "SHA-256 of the file": f"`{file_sha256(made)}`",
    }
    if made.suffix not in _RUN:
        rows["digest of its content"] = f"`{content.sha256(content.tensor_digests())}`"
    if fixed := [f"{name} {origin[key]}" for key, name in _FIXED.items() if key in origin]:
        rows["fixed when it was exported"] = ", ".join(fixed)
    rows |= {
        "made by": ", ".join(f"{k} {v}" if k != "program" else str(v) for k, v in origin.items() if k in _VERSIONS),
        "converted from": origin.get("converted_from"),
        "author, contact": None,
        "licence": published and published.licence,
        "citation": None,
    }
    return _table("about", rows)


def _networks(records: Mapping[str, NetworkRecord]) -> str:
    lines = ["| network | kind | parameters | all its numbers |", "|---|---|---|---|"]
    for name, record in records.items():
        stored = sum(t.numel() for t in record.tensors.values())
        lines.append(f"| {name} | `{record.kind}` | {_parameters(name, record)} | {stored:,} |")
    parts = ["\n".join(lines)]
    for name, record in records.items():
        if name == "G" and "G_ema" in records and records["G_ema"].config == record.config:
            continue
        parts.append(
            _table(
                f"config of {name}",
                {k: f"`{json.dumps(without_autoencoders_folder(v))}`" for k, v in record.config.items()},
            )
        )
    return "\n\n".join(parts)


def _parameters(name: str, record: NetworkRecord) -> str:
    """Their number; a kind that no `--import` has registered can't be built, and so not be counted."""
    if record.kind not in known_kinds():
        return TO_FILL_IN
    return f"{sum(p.numel() for p in files.build_record(record, name).parameters()):,}"


def _data(content: NetworkFile, main: NetworkRecord | None) -> str:
    said = (content.training_config or {}).get("data") or content.training_set_kwargs or {}
    config = main.config if main is not None else {}
    height, width = config.get("img_resolution") or (0, 0)
    channels = {1: "grey", 3: "RGB"}.get(config.get("img_channels", 0), f"{config.get('img_channels')} channels")
    mirrored = said.get("mirror", said.get("xflip"))
    count = (content.training_set_kwargs or {}).get("num_images", said.get("max_size"))
    labels = config.get("c_dim")
    space = config.get("space") or {}
    encoded = {"latents of the autoencoder": f"SHA-256 `{space['digest']}`"} if space.get("digest") else {}
    rows = encoded | {
        "name": Path(said["path"]).name if said.get("path") else None,
        "resolution": f"{width}x{height}, {channels}" if height else None,
        "images": f"{count:,}" if count else None,
        "mirrored images added": None if mirrored is None else ("yes" if mirrored else "no"),
        "labels": None if labels is None else (f"vectors of length {labels}" if labels else "none"),
        "where from, licence, consent": None,
    }
    return _table("data", rows)


def _training(content: NetworkFile) -> str:
    kimg = content.provenance.get("kimg")
    config = content.training_config or {}
    rows: dict[str, Any] = {"images seen": None if kimg is None else f"{round(kimg * 1000):,}"}
    rows |= {key: f"`{json.dumps(config[key])}`" for key in _SHOWN_TRAINING if key in config}
    rows |= {"hardware, duration": None}
    table = _table("training", rows)
    if not config:
        return f"{table}\n\nThe file doesn't hold the options of its training. {TO_FILL_IN}"
    whole = json.dumps(
        without_autoencoders_folder(config | {"data": _without_folders(config.get("data") or {})}), indent=1
    )
    return f"{table}\n\n<details><summary>All options</summary>\n\n```json\n{whole}\n```\n\n</details>"


def _without_folders(data: dict[str, Any]) -> dict[str, Any]:
    """The config of the data; where they lay on somebody's disk is nobody's business."""
    return data | ({"path": Path(data["path"]).name} if data.get("path") else {})


def without_autoencoders_folder(value: Any) -> Any:
    """The same, at any depth, without the folder in which an autoencoder lay."""
    if isinstance(value, dict):
        place = value.get("autoencoder")
        named = {"autoencoder": Path(place).name} if isinstance(place, str) and not is_hub(place) else {}
        return {key: without_autoencoders_folder(item) for key, item in (value | named).items()}
    return value


def _measured(metrics: Iterable[dict[str, Any]]) -> str:
    rows = []
    for metric in metrics:
        how = " | ".join(str(metric.get(key, "")) for key in _HOW)
        rows += [f"| {name} | {value:.5g} | {how} |" for name, value in metric["results"].items()]
    if not rows:
        return f"No metric of this network was found beside its file. {TO_FILL_IN}"
    columns = ("metric", "value", *(key.replace("_", " ") for key in _HOW))
    head = f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}"
    return "\n".join([head, *rows]) + f"\n\n{TO_FILL_IN}: how such figures should be read for the intended use."


def _label_examples(content: NetworkFile) -> Mapping[str, Any]:
    return (content.training_set_kwargs or {}).get("labels") or {}


def _sampling(address: str, made: Path, main: NetworkRecord | None, labels: Mapping[str, Any]) -> str:
    if main is None or main.kind not in known_kinds(GeneratorConfig):
        return TO_FILL_IN
    # Records of official files hold what those files say; the other fields have their defaults.
    config = to_dict(config_from_dict(main.config | {"kind": main.kind}))
    height, width = config["img_resolution"]
    if made.suffix in _RUN:
        note = "" if config["space"]["kind"] == "pixels" else f"\n\nThese are latents. {TO_FILL_IN}: what decodes them."
        return (
            _RUN[made.suffix].format(
                name=made.name,
                z_dim=config["z_dim"],
                c_dim=config["c_dim"],
                channels=config["img_channels"],
                height=height,
                width=width,
                seed="  # seed 0" if config["seed_rule"] == "numpy" else "",
            )
            + note
        )
    is_plugin = not NetworkConfig.kinds[main.kind].__module__.startswith("training.networks.")
    label = f" --label={','.join(f'{x:.4g}' for x in labels['vectors'][0])}" if "vectors" in labels else " --class=0"
    extra = (label if config["c_dim"] else "") + (" --import=FILE.py" if is_plugin else "")
    commands = [
        f"python generate.py --network={address} --outdir=out --seeds=0-7{extra}",
        f"python generate.py grid --network={address} --seeds=0-31 --out=grid.png{extra}",
    ]
    note = f"\n\n{TO_FILL_IN}: the FILE.py that registers the kind `{main.kind}`." if is_plugin else ""
    return "```sh\n" + "\n".join(commands) + "\n```" + note


def _table(head: str, rows: Mapping[str, Any]) -> str:
    lines = [f"| {head} | |", "|---|---|"]
    return "\n".join(lines + [f"| {key} | {value or TO_FILL_IN} |" for key, value in rows.items()])
