"""Publishing a network on the Hugging Face Hub: safetensors, a card with the Hub's header, a sheet of samples."""

import copy
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from dnnlib import hub
from dnnlib.errors import UserError
from torch_utils.files.persistence import NetworkFile
from training.networks import files
from training.networks.registry import GeneratorConfig, known_kinds
from training.networks.shared.generator import Generator
from training.publishing.card import Published, model_card, run_metrics, without_autoencoders_folder
from training.sampling.labels import drawn_labels, vectors_trained_on
from training.sampling.pictures import write_picture
from training.sampling.seeds import class_label
from training.sampling.sheets import seed_sheet, sheet_scale

NETWORK = "network.safetensors"
SAMPLES = "samples.png"
_SEEDS = range(32)
_COLUMNS = 8


@dataclass(frozen=True)
class Release:
    """Where a network goes, and what its file doesn't say."""

    repo: str  # owner/name
    licence: str | None = None  # as the Hub abbreviates it, e.g. mit
    dataset: str | None = None  # the data set's name on the Hub
    private: bool = False


def prepare(folder: Path, content: NetworkFile, source: str, release: Release) -> list[str]:
    """Writes what is published into an empty folder; returns the names of the files.

    `source`: the network's file, whose run folder has its metrics.
    """
    G = _generator(content)
    content = without_folders(content)
    files.write(folder / NETWORK, content)
    if G is not None:
        sheet = seed_sheet(G, _SEEDS, _labels(G), 1.0, "const", _COLUMNS, sheet_scale(G.picture_size))
        write_picture(sheet, folder / SAMPLES)
    metrics = run_metrics(source)
    card = model_card(folder / NETWORK, content, metrics, Published(release.repo, release.licence))
    pictures = f"![Samples of seeds {_SEEDS[0]} to {_SEEDS[-1]}]({SAMPLES})\n\n" if G is not None else ""
    title, _, rest = card.partition("\n\n")
    text = f"---\n{header(content, metrics, release)}\n---\n\n{title}\n\n{pictures}{rest}"
    (folder / "README.md").write_text(text, encoding="utf-8", errors="backslashreplace")
    return sorted(path.name for path in folder.iterdir())


def header(content: NetworkFile, metrics: list[dict[str, Any]], release: Release) -> str:
    """The YAML that the Hub reads: what it is, licence, data set, metrics."""
    library = hub.library("push")
    record = next((r for name in ("G_ema", "G") if (r := content.networks.get(name)) is not None), None)
    kinds = sorted({r.kind for r in content.networks.values() if r is not None and "pipe" not in r.kind})
    conditional = bool(record is not None and record.config.get("c_dim"))
    name = release.repo.rpartition("/")[2]
    trained_on = Path(str((content.training_set_kwargs or {}).get("path") or "unknown")).stem
    results = [
        library.EvalResult(
            task_type="unconditional-image-generation",
            dataset_type=release.dataset or trained_on,
            dataset_name=trained_on,
            metric_type=key,
            metric_value=value,
        )
        for entry in metrics
        for key, value in entry["results"].items()
    ]
    data = library.ModelCardData(
        license=release.licence,
        library_name="styleloom",
        pipeline_tag="unconditional-image-generation",
        tags=["gan", "image-generation", *(["class-conditional"] if conditional else []), *kinds],
        datasets=[release.dataset] if release.dataset else None,
        model_name=name if results else None,
        eval_results=results or None,
    )
    return str(data.to_yaml())


def without_folders(content: NetworkFile) -> NetworkFile:
    """A copy that doesn't tell in which folders of a machine data, autoencoder and the start of the training lay."""
    config = copy.deepcopy(without_autoencoders_folder(content.training_config))
    trained_on = copy.deepcopy(content.training_set_kwargs)
    for table in ((config or {}).get("data"), trained_on):
        if isinstance(table, dict) and isinstance(table.get("path"), str):
            table["path"] = Path(table["path"]).name
    if isinstance(config, dict) and isinstance(config.get("resume"), str) and "://" not in config["resume"]:
        config["resume"] = Path(config["resume"]).name
    networks = {
        name: record and replace(record, config=without_autoencoders_folder(record.config))
        for name, record in content.networks.items()
    }
    return replace(content, networks=networks, training_config=config, training_set_kwargs=trained_on)


def push(content: NetworkFile, source: str, release: Release) -> str:
    """Makes the repository where there is none, and uploads network, card and samples. Returns the page's address.

    The token is the library's affair (hf auth login, or HF_TOKEN). UserError, one line without it, if that fails.
    """
    library = hub.library("push")
    what = f"{hub.SCHEME}{release.repo}"
    hub.parse(what, "model")
    with tempfile.TemporaryDirectory() as made, hub.one_line(library, what):
        prepare(Path(made), content, source, release)
        if not library.get_token():
            raise UserError("push wants a token that may write: hf auth login, or HF_TOKEN")
        api = library.HfApi(endpoint=hub.endpoint())
        api.create_repo(release.repo, private=release.private, exist_ok=True)
        done = api.upload_folder(repo_id=release.repo, folder_path=made, commit_message=f"{NETWORK}, by StyleLoom")
    return str(done.repo_url)


def _generator(content: NetworkFile) -> Generator | None:
    """The generator to draw the samples with; None where the file holds none that is known here."""
    for name in ("G_ema", "G"):
        record = content.networks.get(name)
        if record is not None and record.kind in known_kinds(GeneratorConfig):
            G: Generator = files.build_record(record, name)  # type: ignore[assignment]
            if G.c_dim:
                G.label_vectors = vectors_trained_on({"training_set_kwargs": content.training_set_kwargs})
            return G
    return None


def _labels(G: Generator) -> torch.Tensor:
    """[N, c_dim]: classes in turn, or labels that it was trained on."""
    if G.label_vectors is not None:
        return drawn_labels(G, _SEEDS)
    if not G.c_dim:
        return class_label(G, None).expand(len(_SEEDS), -1)
    return torch.cat([class_label(G, seed % G.c_dim) for seed in _SEEDS])
