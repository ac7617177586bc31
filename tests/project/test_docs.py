"""README.md and docs/: every block of shell and Python runs, every option, link, picture and path is there.

How a block is run: in tests/support/docs, pages.py (marks), commands.py (commands), stand_ins.py (files).
A block or command that these don't know fails.
"""

import ast
import importlib
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import huggingface_hub.constants
import pytest
import yaml
from support.docs import stand_ins
from support.docs.commands import SCRIPTS, Runner, invoke
from support.docs.pages import PAGES, ROOT, Block, Page, anchors, indented_blocks, inline_code, links, read_page
from support.web.hub_server import Hub, serving, table_of
from torch.distributed.run import get_args_parser

from dnnlib import plugins
from metrics import names
from metrics.baselines import BASELINES
from metrics.detectors import registry
from metrics.families import FAMILIES
from training.conversion import sources
from training.dataset.embedded import EMBEDDED
from training.networks import registry as networks_registry
from training.networks.registry import NetworkConfig
from training.objectives import base as objectives
from training.objectives.base import ObjectiveConfig
from training.options import check_config
from training.presets import PRESETS

RUN = ("sh", "bash", "python")
SHOWN = ("text", "json", "html", "yaml")  # output, layouts, formats: nothing to run
SKIPS = ("gpu", "root", "minutes")  # needs a GPU; changes the system; is long, and run elsewhere (make demo in CI)
IN_PROCESSES = {"README.md": ("generate.py",), "quick-start.md": ("dataset_tool.py",)}
IMAGES = 40  # that metrics generate here

pages = pytest.mark.parametrize(
    "page", [read_page(path) for path in PAGES], ids=lambda p: str(p.path.relative_to(ROOT))
)


@pytest.fixture
def registries():
    """What a page registers is forgotten after it, so that pages may use the same names."""
    tables = [
        FAMILIES,
        NetworkConfig.kinds,
        networks_registry._classes,
        PRESETS,
        ObjectiveConfig.kinds,
        objectives._classes,
    ]
    lists = [sources._own_kinds, plugins._imported]
    before, lists_before, modules = [dict(t) for t in tables], [list(x) for x in lists], set(sys.modules)
    yield
    for table, content in zip(tables, before):
        table.clear()
        table.update(content)
    for found, content in zip(lists, lists_before):
        found[:] = content
    for name in set(sys.modules) - modules:
        if not (getattr(sys.modules[name], "__file__", None) or str(ROOT)).startswith((str(ROOT), sys.prefix)):
            del sys.modules[name]


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Toy detectors, few images, no server that waits, a cache of its own."""
    monkeypatch.setattr(registry, "_DETECTORS", stand_ins.toy_detectors(tmp_path / "toy.bin"))
    parse = names.parse_name

    def parse_small(name):
        metric = parse(name)
        changes = {"num_generated": IMAGES, "num_real": IMAGES if metric.num_real else None}
        return names.Metric(**{**vars(metric), **changes})

    monkeypatch.setattr(names, "parse_name", parse_small)
    monkeypatch.setitem(BASELINES, "pca64", 0)
    monkeypatch.setattr("socketserver.BaseServer.serve_forever", lambda self: None)
    monkeypatch.setenv("STYLELOOM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The Hub, with what its page names."""
    standing_in = Hub()
    stand_ins.make(tmp_path / "network-snapshot-010000.pkl")
    network = (tmp_path / "network-snapshot-010000.pkl").read_bytes()
    standing_in.put("owner/name", {"network-snapshot-010000.pkl": network})
    standing_in.put("owner/pictures", {"pictures64.zip": Path(EMBEDDED).read_bytes()}, "datasets")
    standing_in.put("owner/table", {"data/train-0.parquet": table_of(["red", "blue"])}, "datasets")
    with serving(standing_in) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        yield


@pages
def test_blocks_have_a_language_that_tells_whether_they_run(page: Page):
    for block in page.blocks:
        assert block.language in RUN + SHOWN, f"{block.place}: the block's language is {block.language or 'missing'!r}"
        assert block.marks.get("skip", SKIPS[0]) in SKIPS, f"{block.place}: reason to skip: {', '.join(SKIPS)}"
    assert not indented_blocks(page), f"{page.path}: blocks by indentation in lines {indented_blocks(page)}"


@pages
def test_blocks_run(page: Page, tmp_path, monkeypatch, small, registries, request):
    if not any(b.language in RUN for b in page.blocks):
        return
    if page.path.name == "hub.md":
        request.getfixturevalue("hub")
    runner = Runner(tmp_path / "checkout", monkeypatch, IN_PROCESSES.get(page.path.name, ()))
    known: dict[str, object] = {"__name__": "page"}
    for block in page.blocks:
        try:
            _run(block, runner, known, monkeypatch)
        except (AssertionError, SystemExit, Exception) as e:
            raise AssertionError(f"{block.place}: {e}") from e


def _run(block: Block, runner: Runner, known: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    _check_syntax(block)
    if "skip" in block.marks or block.language not in RUN:
        return
    if "file" in block.marks:
        (runner.folder / block.marks["file"]).write_text(block.text)
    elif block.language == "python":
        for name in filter(None, re.split("[, ]+", block.marks.get("given", ""))):
            known[name] = stand_ins.GIVEN[name]()
        with monkeypatch.context() as patch:
            patch.chdir(runner.folder)
            for text in re.findall(r'"([^"\n]+)"', block.text):
                stand_ins.make(Path(text))
            exec(compile(block.text, block.place, "exec"), known)
    else:
        runner.run(block.text, is_dry="dry-run" in block.marks)


def _check_syntax(block: Block) -> None:
    if block.language == "python":
        ast.parse(block.text)
    elif block.language in RUN:
        done = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.fixture
def script(monkeypatch):
    """A script of docs/ as a module."""
    monkeypatch.syspath_prepend(ROOT / "docs" / "scripts")
    return importlib.import_module


def test_the_options_page_is_what_the_scripts_say(script):
    make_options = script("make_options")
    assert make_options.PAGE.read_text() == make_options.page(), "run: python docs/scripts/make_options.py"


def test_recipes_state_the_sizes_of_their_networks(script):
    count_operations = script("count_operations")
    index = (ROOT / "docs" / "recipes.md").read_text()
    for name in count_operations.ROWS:
        g, d = (f"{size:,}" for size in check_config(count_operations.resolved(name)))
        (row,) = [line for line in index.splitlines() if line.startswith("| [") and f"[`{name}`]" in line]
        page = (ROOT / "docs" / "recipes" / f"{name}.md").read_text()
        assert row.endswith(f"| {g} |"), row
        assert f"| parameters of G | {g} " in page, g
        assert "wavelet" not in page or d in page, d


def test_a_recipe_states_its_operations(script):
    row = script("count_operations").row("cifar")
    assert row in (ROOT / "docs" / "recipes.md").read_text().splitlines(), row
    sample, training, total = row.replace(" ", "").strip("|").split("|")[1:]
    page = (ROOT / "docs" / "recipes" / "cifar.md").read_text()
    assert f"{sample} GFLOP per sample, {training} GFLOP per training image, {total} EFLOP" in page


def test_the_computed_cost_of_gat(script):
    """The smallest is counted again; the hours of all follow from what the page says of their operations."""
    count_operations = script("count_operations")
    page = (ROOT / "docs" / "recipes" / "gat.md").read_text().splitlines()
    assert count_operations.row_with_hours("gat_s2") in page
    index = (ROOT / "docs" / "recipes.md").read_text()
    for name in count_operations.IN_LATENTS:
        (row,) = [line for line in page if line.startswith(f"| `{name}` |")]
        *operations, a100, h100 = row.strip("| ").split(" | ")
        assert f"| {' | '.join(operations)} |" in index
        for said, rate in ((a100, 312), (h100, 989)):
            assert float(said) == round(count_operations.hours(float(operations[-1]) * 1e18, rate)), row


def test_the_ported_stylenat_config_means_the_same():
    """Key by key: the YAML of docs/coming-from.md against what its command resolves to."""
    blocks = read_page(ROOT / "docs" / "coming-from.md").blocks
    (theirs,) = [yaml.safe_load(b.text)["runs"] for b in blocks if b.language == "yaml"]
    (command,) = [b.text for b in blocks if "mine256" in b.text]
    said = invoke("train.py", shlex.split(command.replace("\\\n", " "))[2:])
    ours = json.loads(said[: said.rindex("}") + 1])
    G, D, loss = ours["G"], ours["D"], ours["loss"]
    g, d, run = theirs["generator"], theirs["discriminator"], theirs["training"]
    assert (G["kind"], D["kind"]) == ("stylenat", "wavelet_discriminator")
    assert G["img_resolution"] == [theirs["size"]] * 2
    assert G["z_dim"] == G["w_dim"] == g["style_dim"]
    assert (G["mapping_layers"], G["checkpoint"]) == (g["n_mlp"], g["use_checkpoint"])
    for key in ("channel_multiplier", "min_heads", "mlp_ratio", "kernels", "dilations", "block_type"):
        assert G[key] == g[key], key
    assert (D["channel_multiplier"], D["spectral_norm"]) == (d["channel_multiplier"], d["sn"])
    assert (ours["D_opt"]["lr"]["start"], loss["r1_interval"]) == (d["lr"], d["reg_every"])
    assert ours["G_opt"]["lr"]["start"] == (g["lr"] / 4 if run["ttur"] else g["lr"])
    assert ours["total_kimg"] == run["iter"] * run["batch"] / 1000
    for optimizer in (ours["G_opt"], ours["D_opt"]):
        assert optimizer["lr"]["begin_kimg"] + optimizer["lr"]["kimg"] == ours["total_kimg"]
    assert (ours["batch"], ours["data"]["mirror"]) == (run["batch"], run["use_flip"])
    assert (loss["r1_gamma"], loss["bcr_real"] > 0, loss["bcr_fake"] > 0) == (run["r1"], run["bcr"], run["bcr"])


@pages
def test_links_and_pictures_are_there(page: Page):
    for line, target in links(page):
        place = f"{page.path.relative_to(ROOT)}:{line}: {target}"
        if re.match(r"[a-z]+:", target):
            assert target.startswith("https://"), place
            continue
        file, _, anchor = target.partition("#")
        path = (page.path.parent / file).resolve() if file else page.path
        assert path.exists(), place
        assert path.is_relative_to(ROOT), place
        if anchor:
            assert anchor in anchors(read_page(path)), place


def _known_options() -> set[str]:
    found: set[str] = set()
    for command in SCRIPTS.values():
        commands = [command, *(command.commands.values() if isinstance(command, click.Group) else ())]
        for option in (p for c in commands for p in c.params):
            found |= {*option.opts, *option.secondary_opts, "--help"}
    for action in get_args_parser()._actions:
        found |= set(action.option_strings)
    return found


@pages
def test_options_and_paths_in_the_text_exist(page: Page):
    options = _known_options()
    for line, text in inline_code(page):
        place = f"{page.path.relative_to(ROOT)}:{line}: {text}"
        for option in re.findall(r"(?<![\w-])--[a-zA-Z_][\w-]*", text):
            if not re.search(r"#SBATCH|srun|pip|pytest", text):
                assert option in options, f"{place}: no script has the option {option}"
        if re.fullmatch(r"(training|metrics|torch_utils|dnnlib|tests|benchmarks|docs)/[\w/.-]*\.(py|md|svg|png)", text):
            assert (ROOT / text).exists(), place
