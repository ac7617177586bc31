"""The build of the compiled ops: what fails falls back with one warning, what is interrupted recovers."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from torch_utils.ops.build import inline_cpp, library, toolchain
from torch_utils.ops.build.toolchain import BuildError, Recipe

ROOT = Path(__file__).parents[2]
TINY = """
rule link
  command = sh -c 'echo run >> %s; sleep %s; echo library > $out'
build kernels.so: link
"""
USE_AN_OP = """
import warnings
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    import torch
    from torch_utils.ops.bias_act import bias_act
    y = bias_act(torch.tensor([[-1.0, 2.0]]), torch.ones(2), act="relu", gain=1)
    bias_act(torch.zeros(1, 2))
assert y.tolist() == [[0.0, 3.0]]
for warning in seen:
    if "compiled cpu ops" in str(warning.message):
        print(warning.message)
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "cache"))


def _run(code, **environment):
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    result = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout


def _script(path, body):
    path.parent.mkdir(exist_ok=True)
    path.write_text("#!/bin/sh\n" + body)
    path.chmod(0o755)
    return str(path)


def test_a_failing_compiler_falls_back_with_one_warning(tmp_path):
    compiler = _script(
        tmp_path / "bin" / "broken",
        'case "$1" in --version) echo 1.0; exit 0;; esac\necho "x.cpp:1:2: error: no luck today" >&2\nexit 1\n',
    )
    out = _run(USE_AN_OP, CXX=compiler)
    assert out.count("\n") == 1
    assert "the compiler failed: x.cpp:1:2: error: no luck today" in out


def test_a_missing_compiler_is_named():
    out = _run(USE_AN_OP, CXX="no-such-compiler")
    assert out.count("\n") == 1
    assert "'no-such-compiler' ($CXX) is missing: install g++" in out


def test_a_missing_ninja_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(BuildError, match="ninja is missing: pip install ninja"):
        toolchain.find_ninja()


def test_an_unwritable_cache_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "file"))
    with pytest.raises(BuildError, match="set TORCH_EXTENSIONS_DIR"):
        library.build(Recipe("cpu", "", "key"))


def test_forcing_what_cannot_be_had_raises():
    code = (
        "import torch\nfrom torch_utils import ops\nfrom torch_utils.ops.bias_act import bias_act\n"
        "try:\n    with ops.use('compiled'):\n        bias_act(torch.zeros(1, 2))\n"
        "except RuntimeError as e:\n    print(e)\n"
    )
    assert "no kernels for cpu: the C++ compiler 'nope'" in _run(code, CXX="nope")


def test_unknown_implementation():
    from torch_utils import ops

    with pytest.raises(ValueError, match="choose one of auto, ref, compiled, natten"), ops.use("fast"):
        pass


BUILD_TINY = """
import sys
from torch_utils.ops.build import library
from torch_utils.ops.build.toolchain import Recipe
print(library.build(Recipe("cpu", open(sys.argv[1]).read(), "tiny")).read_text().strip())
"""


def _start(recipe):
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", BUILD_TINY, str(recipe)]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True, start_new_session=True)


def test_two_processes_at_once_build_once(tmp_path):
    runs, recipe = tmp_path / "runs", tmp_path / "recipe"
    recipe.write_text(TINY % (runs, 1))
    processes = [_start(recipe) for _ in range(3)]
    for process in processes:
        assert process.communicate(timeout=120)[0] == "library\n"
    assert runs.read_text() == "run\n"


def test_a_killed_build_is_repeated(tmp_path):
    runs, recipe = tmp_path / "runs", tmp_path / "recipe"
    recipe.write_text(TINY % (runs, 60))
    process = _start(recipe)
    deadline = time.monotonic() + 100
    while not runs.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, 9)  # this process and its compiler, which the test started in a session of their own
    process.communicate()
    assert list((library.cache_root() / "styleloom_cpu_tiny").glob("work-*"))  # what it left behind
    recipe.write_text(TINY % (runs, 0))
    assert _start(recipe).communicate(timeout=120)[0] == "library\n"
    left = {path.name for path in (library.cache_root() / "styleloom_cpu_tiny").iterdir()}
    assert left == {"kernels.so", "kernels.so.sha256"}


def test_the_key_follows_flags_compiler_and_place(monkeypatch):
    first = toolchain.recipe("cpu")
    assert toolchain.recipe("cpu") == first
    monkeypatch.setenv("STYLELOOM_OPS_CFLAGS", "-g")
    assert toolchain.recipe("cpu").key != first.key


def test_importing_builds_nothing(tmp_path):
    _run("import torch_utils.ops.bias_act, torch_utils.ops.upfirdn2d, torch_utils.ops.neighborhood_attention")
    assert not library.cache_root().exists()


@pytest.mark.skipif(not library.ensure("cpu").loaded, reason="no compiled kernels here")
@pytest.mark.parametrize("isa", ["baseline", "avx2"])
def test_every_instruction_set_of_the_binary(isa, monkeypatch):
    monkeypatch.delenv("TORCH_EXTENSIONS_DIR")
    code = """
import torch
from torch_utils import ops
from torch_utils.ops.neighborhood_attention import na2d
from torch_utils.ops.upfirdn2d import upsample2d, setup_filter
from torch_utils.ops.bias_act import bias_act
def run():
    torch.manual_seed(0)
    q = torch.randn(1, 9, 11, 2, 12, requires_grad=True)
    x = torch.randn(2, 3, 9, 9)
    g, = torch.autograd.grad(na2d(q, q, q, 5, 1, torch.randn(2, 9, 9)).square().sum(), q)
    return g, upsample2d(x, setup_filter([1, 3, 3, 1])), bias_act(x, act="swish")
fast = run()
with ops.use("ref"):
    slow = run()
print(torch.ops.styleloom.cpu_isa(), all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(fast, slow)))
"""
    name, equal = _run(code, STYLELOOM_OPS_ISA=isa).split()
    assert equal == "True"
    assert name in (isa, "baseline")


def test_table():
    env = {**os.environ, "PYTHONPATH": str(ROOT), "CXX": "nope"}
    out = subprocess.run(
        [sys.executable, "-m", "torch_utils.ops"], env=env, capture_output=True, text=True, check=True
    ).stdout
    assert "na2d" in out
    assert "the C++ compiler 'nope' ($CXX) is missing" in out


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
@pytest.mark.parametrize("kernel", ["attention", "bias_act", "upfirdn2d"])
def test_cuda_sources_compile_without_spills(kernel, tmp_path):
    import re

    archs = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in (80, 90)]
    source = toolchain.CSRC / "cuda" / f"{kernel}.cu"
    command = [
        "nvcc",
        "-std=c++17",
        "-O3",
        "--threads",
        "2",
        "-Xptxas",
        "-v",
        *archs,
        "-c",
        source,
        "-o",
        tmp_path / "k.o",
    ]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    registers = [int(n) for n in re.findall(r"Used (\d+) registers", result.stderr)]
    spills = re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", result.stderr)
    assert len(registers) >= 8
    assert max(registers) <= 128
    assert set(spills) == {("0", "0")}


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs the CUDA headers")
def test_cuda_binding_is_valid_cpp(tmp_path):
    """torch's CPU wheel lacks one generated header that torch's CUDA headers include; an empty one stands in for it."""
    stub = tmp_path / "c10" / "cuda" / "impl" / "cuda_cmake_macros.h"
    stub.parent.mkdir(parents=True)
    stub.write_text("#pragma once\n")
    toolkit = toolchain.cuda_home() / "include"
    flags = toolchain.binding_flags().split()
    command = [
        "g++",
        *flags,
        f"-I{tmp_path}",
        "-isystem",
        toolkit,
        "-fsyntax-only",
        toolchain.CSRC / "cuda" / "binding.cpp",
    ]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]


# -- damaged caches, unusual tools ------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"libr", b"another of the same len"])
def test_a_damaged_library_is_built_again(tmp_path, content):
    """Loading one that was cut off would end the process with a bus error."""
    recipe = Recipe("cpu", TINY % (tmp_path / "runs", 0), "damaged")
    built = library.build(recipe)
    assert library.build(recipe) == built
    assert (tmp_path / "runs").read_text().count("run") == 1
    built.write_bytes(content)
    assert library.build(recipe).read_text() == "library\n"
    assert (tmp_path / "runs").read_text().count("run") == 2
    built.with_name("kernels.so.sha256").unlink()
    assert library.build(recipe).read_text() == "library\n"
    assert (tmp_path / "runs").read_text().count("run") == 3
    assert library.is_whole(built)


def test_paths_with_spaces_are_single_words(tmp_path, monkeypatch):
    torch_file = tmp_path / "my env" / "torch" / "__init__.py"
    monkeypatch.setattr(toolchain.torch, "__file__", str(torch_file))
    compiler = _script(tmp_path / "my bin" / "g++", 'exec g++ "$@"\n')
    monkeypatch.setenv("CXX", f"'{compiler}'")
    text = toolchain.recipe("cpu").ninja_file
    assert f"-isystem '{torch_file.parent}/include'" in text
    assert f"-L'{torch_file.parent}/lib'" in text
    assert f"command = '{compiler}' $flags" in text


def test_a_compiler_of_several_words(tmp_path, monkeypatch):
    log = tmp_path / "log"
    cache = _script(tmp_path / "bin" / "ccache", f'echo "$1" >> {log}\nexec "$@"\n')
    monkeypatch.setenv("PATH", f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CXX", "ccache g++")
    assert toolchain.find_compiler() == [cache, "g++"]
    assert toolchain._host_compiler([cache, "g++"]) == shutil.which("g++")
    built = inline_cpp.load_source("words", 'extern "C" int seven() { return 7; }')
    assert built is not None
    assert built.seven() == 7
    assert set(log.read_text().split()) == {"g++"}
    assert "ccache g++ $flags" in toolchain.recipe("cpu").ninja_file


def test_a_build_says_what_it_does_and_its_failure_names_the_first_error(tmp_path, monkeypatch, capsys):
    ninja = _script(tmp_path / "ninja", "echo '[1/2] c++ a.cpp'\necho 'a.cpp:1:2: error: no luck today' >&2\nexit 1\n")
    monkeypatch.setattr(toolchain, "find_ninja", lambda: str(ninja))
    with pytest.raises(BuildError, match=r"^the compiler failed: a.cpp:1:2: error: no luck today$"):
        library._run_ninja(toolchain.recipe("cpu"), tmp_path)
    assert capsys.readouterr().err == "compiling the cpu ops, once on this machine\n"
    assert (tmp_path / "build.ninja").is_file()


def test_a_broken_ninja_is_passed_over_or_named(tmp_path, monkeypatch):
    broken = _script(tmp_path / "bin" / "ninja", "exit 3\n")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert toolchain.find_ninja() != broken, "there is another one beside the interpreter"
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(BuildError, match=r"bin/ninja does not run: exit status 3; install another one: pip install"):
        toolchain.find_ninja()
