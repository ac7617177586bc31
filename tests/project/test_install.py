"""What is installed: the wheel's content, the one command, the lists of packages, the Dockerfile."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from dnnlib import cli

ROOT = Path(__file__).parents[2]
SCRIPTS = ("train", "generate", "calc_metrics", "dataset_tool")


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The modules and data of the wheel in an empty folder."""
    work = tmp_path_factory.mktemp("build")
    code = f"""
import setuptools.build_meta as build
places = ["egg_info", "--egg-base={work}", "build", "--build-base={work}/build"]
build.build_wheel({str(work)!r}, {{"--global-option": places}})
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = work.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(work / "site")
    return work / "site"


def styleloom(*args: str, site: Path, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:] = [{str(site)!r}, *[p for p in sys.path if p]]\n"
         "sys.argv[0] = 'styleloom'\nfrom styleloom.__main__ import main\nmain()", *args],
        cwd=cwd, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def test_the_wheel_has_the_scripts_and_the_demo_but_no_module_called_train(installed):
    top = {p.name for p in installed.iterdir() if p.suffix != ".dist-info"}
    assert top == {"styleloom", "dnnlib", "torch_utils", "training", "metrics"}
    for name in SCRIPTS:
        packed = installed / "styleloom" / "scripts" / f"{name}.py"
        assert packed.read_bytes() == (ROOT / f"{name}.py").read_bytes()
    assert (installed / "training" / "dataset" / "embedded" / "noto-emoji-32.zip").stat().st_size > 2e6


def test_the_command_trains_the_demo_from_an_empty_folder(installed, tmp_path):
    done = styleloom("train", "--cfg=demo", "--dry-run", site=installed, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "G: styleformer_c, " in done.stdout
    assert str(installed) in done.stdout  # where its pictures are
    done = styleloom("train", "--data=nowhere.zip", site=installed, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "or make it: styleloom dataset --source=YOUR_IMAGES" in done.stderr


def test_the_command_lists_its_commands_without_importing_them(tmp_path):
    code = """
import sys
from styleloom.__main__ import main
sys.argv[1:] = ["--help"]
try:
    main()
except SystemExit:
    sys.exit("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in ("train", "generate", "metrics", "dataset", "networks"):
        assert re.search(rf"^  {name} ", done.stdout, re.MULTILINE)


def test_messages_name_the_command_that_was_called(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/styleloom", "dataset"])
    assert cli.command_line("calc_metrics.py") == "styleloom metrics"
    monkeypatch.setattr(sys, "argv", ["train.py"])
    assert cli.command_line("calc_metrics.py") == "python calc_metrics.py"


def test_what_only_tests_compare_with_is_in_no_extra_of_users():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    users = " ".join(d for name, listed in extras.items() if name != "dev" for d in listed)
    peers = re.findall(r"^([\w-]+)==", (ROOT / "requirements-peers.txt").read_text(), re.MULTILINE)
    assert len(peers) == 4
    assert not [p for p in peers if p in users + (ROOT / "requirements-nodeps.txt").read_text()]
    assert "requirements-peers" not in (ROOT / "Dockerfile").read_text()


def test_the_dockerfile_has_no_lint():
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("hadolint is not installed")
    done = subprocess.run([hadolint, "--no-color", ROOT / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
