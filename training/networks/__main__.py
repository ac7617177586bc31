"""`python -m training.networks {show,verify,convert,card,push,ema}`: look at, check, convert, describe, publish
and compute network files."""

import json
import textwrap
from pathlib import Path
from typing import Any

import click

from dnnlib import cli
from dnnlib.errors import UserError
from dnnlib.plugins import import_file
from torch_utils.files.persistence import NETWORKS, NetworkFile, NetworkRecord
from training.ema.posthoc import reconstruct
from training.networks import files
from training.networks.shared.generator import NOISE_MODES, NoiseMode
from training.publishing import export, hub
from training.publishing.card import write_card

LARGE_MISFIT = 0.1  # of a profile, above which the result deserves a warning
_WIDTH, _LONG = 100, 60  # columns of what is shown, characters of one value
_SHOWN = ("preset", "seed", "gpus", "batch", "total_kimg", "precision", "resume")  # of the config of the training
FORMS = {"pkl": ".pkl", "safetensors": ".safetensors", "onnx": ".onnx", "torch-export": ".pt2"}


@click.group(cls=cli.Group)
def main() -> None:
    """Look at, check and convert network files: ours, and official StyleGAN2-ADA, Styleformer and StyleNAT ones."""


@main.command(cls=cli.Command)
@click.argument("file", type=cli.NETWORK_FILE)
@click.option("--json", "as_json", is_flag=True, help="Everything, the whole config of the training too, for programs")
def show(file: str, as_json: bool) -> None:
    """Print what FILE holds: configs, sizes, digest, origin. Builds no network."""
    content = files.read(file)
    digest = content.sha256(content.tensor_digests())
    if as_json:
        networks = {
            name: record and {"kind": record.kind, "config": record.config} for name, record in content.networks.items()
        }
        about = {"networks": networks, "trained_on": content.training_set_kwargs, "origin": content.provenance}
        cli.say(json.dumps(about | {"config": content.training_config, "sha256": digest}, indent=1))
        return
    for name in NETWORKS:
        record = content.networks.get(name)
        cli.say(f"{name:13s} {'-' if record is None else _summary(record)}")
        if record is not None:
            _say_facts("", record.config)
    _say_facts("trained on", content.training_set_kwargs)
    _say_facts("origin", content.provenance)
    config = content.training_config
    _say_facts("training", {k: config[k] for k in _SHOWN if k in config} if isinstance(config, dict) else config)
    cli.say(f"sha256        {digest}")


def _say_facts(head: str, facts: Any) -> None:
    """`name value` pairs in lines of a terminal's width; long values are cut, --json has them."""
    if isinstance(facts, dict):
        shown = {key: json.dumps(value) for key, value in facts.items()}
        text = ", ".join(f"{key} {v if len(v) <= _LONG else v[:_LONG] + '...'}" for key, v in shown.items())
    else:
        text = "-" if facts is None else json.dumps(facts)
    for i, line in enumerate(textwrap.wrap(text, _WIDTH - 14, break_on_hyphens=False) or ["-"]):
        cli.say(f"{head if i == 0 else '':13s} {line}")


@main.command(cls=cli.Command)
@click.argument("file", type=cli.NETWORK_FILE)
@click.option("--import", "plugins", type=cli.PATH, multiple=True, help="Python file that registers your own networks")
def verify(file: str, plugins: tuple[str, ...]) -> None:
    """Check FILE's digest, rebuild every network in it and check every tensor's name, shape and type."""
    _import_all(plugins)
    content = files.read(file)
    for name, record in content.networks.items():
        if record is not None:
            files.build_record(record, f"{file}: {name}")
            cli.say(f"{name:13s} ok: {_summary(record)}")


@main.command(cls=cli.Command)
@click.argument("file", type=cli.NETWORK_FILE)
@click.argument("dest", type=cli.PATH, required=False)
@click.option("--to", "form", type=click.Choice(list(FORMS)), help="form to write; otherwise DEST's suffix says it")
@click.option("--only", help="networks to keep, e.g. G_ema; ONNX and torch-export take one generator (default G_ema)")
@click.option(
    "--trunc", "psi", type=cli.NUMBER, default=1.0, show_default=True, help="truncation psi of an exported program"
)
@click.option("--noise-mode", type=click.Choice(NOISE_MODES[1:]), default="const", show_default=True)
@click.option("--card/--no-card", "with_card", default=True, help="write a model card beside DEST, unless one is there")
@click.option("--import", "plugins", type=cli.PATH, multiple=True, help="Python file that registers your own networks")
def convert(
    file: str,
    dest: str | None,
    form: str | None,
    only: str | None,
    psi: float,
    noise_mode: NoiseMode,
    with_card: bool,
    plugins: tuple[str, ...],
) -> None:
    """Write FILE as DEST in another form: our pickle, safetensors, ONNX or a torch.export program."""
    _import_all(plugins)
    form = form or _form_of(dest)
    path = Path(dest or Path(file).with_suffix(FORMS[form]).name)
    if path.suffix != FORMS[form]:
        raise UserError(f"a file of form {form} ends in {FORMS[form]}, not {path.suffix or 'nothing'}")
    if Path(file).exists() and path.exists() and path.samefile(file):
        raise UserError(f"{path} is the file to convert itself: name another DEST")
    if form in ("onnx", "torch-export"):
        only = only or "G_ema"
        _export(file, path, form, only, psi, noise_mode)
        content = _kept(files.read(file), only, file)
        content.provenance |= {"truncation_psi": psi, "noise_mode": noise_mode}
    else:
        content = _kept(files.read(file), only, file)
        files.write(path, content)
        cli.say(f"{path}: {', '.join(name for name, r in content.networks.items() if r)}")
    if with_card:
        _write_card(path.with_name(f"{path.name}.md"), path, content, file)


@main.command(cls=cli.Command)
@click.argument("file", type=cli.NETWORK_FILE)
@click.argument("dest", type=cli.PATH, required=False)
@click.option("--import", "plugins", type=cli.PATH, multiple=True, help="Python file that registers your own networks")
def card(file: str, dest: str | None, plugins: tuple[str, ...]) -> None:
    """Write the model card of FILE, as Markdown: to DEST, or beside FILE under its name. Nothing is overwritten."""
    _import_all(plugins)
    path = Path(file)
    content = files.read(file)
    if not path.is_file():
        raise UserError(f"{file}: a card describes a file on this machine; download it first")
    goal = Path(dest) if dest else path.with_name(f"{path.name}.md")
    if goal.exists():
        raise UserError(f"{goal} is there already, perhaps filled in: name another DEST or remove it")
    _write_card(goal, path, content, file)


@main.command(cls=cli.Command)
@click.argument("file", type=cli.NETWORK_FILE)
@click.argument("repo")
@click.option("--only", help="Networks to publish, e.g. G_ema  [default: all, which further training wants]")
@click.option("--licence", help="As the Hub abbreviates it, e.g. mit or cc-by-4.0")
@click.option("--dataset", help="The data set's name on the Hub, owner/name")
@click.option("--private", is_flag=True, help="A new repository is seen by you alone")
@click.option("--folder", type=cli.PATH, help="Only write what would be published, into this new folder")
@click.option("--import", "plugins", type=cli.PATH, multiple=True, help="Python file that registers your own networks")
def push(
    file: str,
    repo: str,
    only: str | None,
    licence: str | None,
    dataset: str | None,
    private: bool,
    folder: str | None,
    plugins: tuple[str, ...],
) -> None:
    """Publish FILE on the Hugging Face Hub as REPO (owner/name): safetensors, a card, samples. The token is that of
    `hf auth login`, or HF_TOKEN."""
    _import_all(plugins)
    content = _kept(files.read(file), only, file)
    release = hub.Release(repo, licence, dataset, private)
    if folder is None:
        cli.say(f"{hub.push(content, file, release)}: {hub.NETWORK}, README.md; fill in what is marked there")
        return
    try:
        Path(folder).mkdir(parents=True)
    except FileExistsError:
        raise UserError(f"--folder={folder} is there already: name a new one") from None
    cli.say(f"{folder}: {', '.join(hub.prepare(Path(folder), content, file, release))}")


@main.command(cls=cli.Command)
@click.argument("run", type=cli.PATH)
@click.option("--length", type=cli.NUMBER, required=True, help="Of the average: sigma_rel, e.g. 0.08")
@click.option("--kimg", type=cli.NUMBER, help="End of the average, where some were stored  [default: the last]")
@click.option("--out", type=cli.PATH, required=True, help="Network file to write, .pkl or .safetensors")
def ema(run: str, length: float, kimg: float | None, out: str) -> None:
    """Compute G_ema of another length, from the averages that RUN (trained with --posthoc-ema=1) has stored."""
    if Path(out).suffix not in (".pkl", ".safetensors"):
        raise UserError(f"--out={out}: a network file ends in .pkl or .safetensors")
    made = reconstruct(Path(run), length, kimg)
    files.write(out, made.content)
    at = made.content.provenance["kimg"]
    cli.say(
        f"{out}: length {length:g} at kimg {at:.1f} from {cli.counted(made.count, 'average')}; "
        f"its profile is met within {made.misfit:.2%}"
    )
    if made.misfit > LARGE_MISFIT:
        cli.say("that is coarse: store averages more often (ema.posthoc_kimg), or take a length nearer to theirs")


def _write_card(goal: Path, made: Path, content: NetworkFile, source: str) -> None:
    """A card that somebody may have filled in stays."""
    if goal.exists():
        cli.say(f"{goal} is left as it is; its figures may be another file's")
        return
    write_card(goal, made, content, source)
    cli.say(f"{goal}: model card; fill in what is marked")


def _export(file: str, path: Path, form: str, name: str, psi: float, noise_mode: NoiseMode) -> None:
    if name not in ("G", "G_ema"):
        raise UserError(f"--only={name}: {form} takes one generator, G or G_ema")
    G = files.load(file, names=[name])[name]
    if G is None:
        raise UserError(f"{file} holds no {name}")
    writer = export.write_onnx if form == "onnx" else export.write_program
    error = writer(path, G, psi, noise_mode)
    cli.say(f"{path}: {name}, psi {psi:g}, noise {noise_mode}; largest difference from the network {error:.1e}")


def _kept(content: NetworkFile, only: str | None, file: str) -> NetworkFile:
    if only is not None:
        names = only.split(",")
        absent = [name for name in names if content.networks.get(name) is None]
        if absent:
            raise UserError(f"{file} holds no {', '.join(absent)}")
        content.networks = {name: content.networks[name] for name in names}
    content.provenance = content.provenance | {"converted_from": Path(file).name}
    return content


def _form_of(dest: str | None) -> str:
    suffix = Path(dest or "").suffix
    if suffix not in FORMS.values():
        raise UserError(f"say what to write: DEST with one of {', '.join(FORMS.values())}, or --to")
    return next(form for form, known in FORMS.items() if known == suffix)


def _summary(record: NetworkRecord) -> str:
    count = sum(t.numel() for t in record.tensors.values())
    size = sum(t.numel() * t.element_size() for t in record.tensors.values())
    return f"{record.kind}, {len(record.tensors)} tensors, {count:,} numbers, {size / 2**20:.2f} MiB"


def _import_all(plugins: tuple[str, ...]) -> None:
    for path in plugins:
        import_file(path)


if __name__ == "__main__":
    main()
