"""The project's own rules: which floor may import which, and that the lists of dependencies agree."""

import ast
import re
import subprocess
import tomllib
from collections import Counter
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SCRIPTS = {"train", "generate", "calc_metrics", "dataset_tool"}
# From the top down; a module imports only from its own floor or below. The longest matching prefix counts.
FLOORS = {
    **dict.fromkeys(SCRIPTS, 7),
    "styleloom": 7,
    "training": 6,
    "metrics": 5,
    "training.conversion": 5,
    "training.networks": 4,
    "training.networks.__main__": 6,  # a command, whose path is known
    "training.dataset": 4,
    "training.augment": 3,  # network files hold an augmentation pipe too
    "torch_utils": 2,
    "dnnlib": 1,
}


def floor(module: str) -> int | None:
    parts = module.split(".")
    prefixes = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((FLOORS[p] for p in prefixes if p in FLOORS), None)


def own_modules() -> dict[str, Path]:
    files = [ROOT / f"{s}.py" for s in SCRIPTS]
    for package in ("styleloom", "dnnlib", "torch_utils", "training", "metrics"):
        files += sorted((ROOT / package).rglob("*.py"))
    return {".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): f for f in files}


def imports(path: Path) -> set[str]:
    """Every module that the file names in an import, wherever in the file it stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_imports_only_go_down():
    for module, path in own_modules().items():
        for name in imports(path):
            target = floor(name)
            if target is None:
                continue
            assert target <= floor(module), f"{module} imports {name} from a floor above"
            if target == 7 and floor(module) != 7:
                raise AssertionError(f"{module} imports the script {name}")
            if floor(module) == 4 and target == 4:
                assert name.split(".")[1] == module.split(".")[1], f"{module} imports {name} beside it"


@pytest.mark.parametrize("module", ["dnnlib"])
def test_dnnlib_needs_no_torch(module):
    for name, path in own_modules().items():
        if name.split(".")[0] == module:
            assert not any(i.split(".")[0] == "torch" for i in imports(path)), name


def test_the_conda_environment_takes_its_list_from_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = next(d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    assert pip == ["-e .[all]"]
    assert f"python{project['requires-python']}" in environment["dependencies"]


def test_constraints_pin_what_the_project_installs():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = dict(
        line.strip().split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    )
    assert pins["torch"] == "2.13.0"
    names = {re.split(r"[<>=!~\[ ]", d)[0].lower() for d in project["dependencies"]}
    for extra in project["optional-dependencies"].values():
        names |= {re.split(r"[<>=!~\[ ]", d)[0].lower() for d in extra}
    without = {"styleloom", *re.findall(r"^([\w-]+)==", (ROOT / "requirements-nodeps.txt").read_text(), re.M)}
    missing = names - {p.lower() for p in pins} - without
    assert not missing, f"constraints.txt pins no version of {sorted(missing)}"


def test_the_page_on_dependencies_has_all_of_them():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = [*project["dependencies"], *(d for extra in project["optional-dependencies"].values() for d in extra)]
    for file in ("requirements-nodeps.txt", "requirements-peers.txt"):
        listed += re.findall(r"^[\w-]+", (ROOT / file).read_text(), re.MULTILINE)
    names = {re.split(r"[<>=!~\[ ]", d)[0] for d in listed} - {"styleloom"}
    page = (ROOT / "docs" / "dependencies.md").read_text()
    tables = page[: page.index("## Development")]
    rows = [name for name in re.findall(r"^\| ([\w-]+) \|", tables, re.MULTILINE) if name != "package"]
    assert not {name for name in rows if rows.count(name) > 1}
    development = page[page.index("## Development") : page.index("## Two packages")]
    missing = {n for n in names if n not in rows and not re.search(rf"(?<![\w-]){re.escape(n)}(?![\w-])", development)}
    assert not missing
    assert set(rows) <= names


def test_an_installed_package_has_its_data():
    """The embedded pictures, the kernels' sources, the explorer's page: without them a wheel can't train the demo."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    packed = {
        str(found.relative_to(ROOT))
        for package, patterns in listed.items()
        for pattern in patterns
        for found in ROOT.joinpath(*package.split(".")).glob(pattern)
    }
    packages = ["styleloom", "dnnlib", "torch_utils", "training", "metrics"]
    git = subprocess.run(["git", "ls-files", *packages], cwd=ROOT, capture_output=True, text=True, check=True)
    data = {name for name in git.stdout.split() if not name.endswith(".py")}
    assert len(data) > 20
    assert not data - packed


def test_no_folder_is_a_pile():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    code = (".py", ".cpp", ".h", ".cu", ".cuh")
    counts = Counter(str(Path(f).parent) for f in tracked if f.endswith(code))
    piles = {folder: n for folder, n in counts.items() if n > 12}
    assert not piles


def test_test_data_stay_small():
    assert sum(f.stat().st_size for f in (ROOT / "tests" / "data").rglob("*") if f.is_file()) < 15e6
