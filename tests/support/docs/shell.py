"""A real shell whose commands are answered by the test: bash expands, quotes and loops, the test runs what comes out.

Every command that the pages may use is a small stub in a folder of its own, which is all of PATH but for a few harmless
tools. So a command that the test doesn't know isn't found, and fails.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

TOOLS = ("bash", "cat", "cp", "env", "head", "ls", "make", "mkdir", "rm", "sh", "sort", "tail", "touch")
_END = b"\4"
_STUB = """#!/bin/bash
{ printf '%s\\0' "${0##*/}" "$PWD" "$@" $'\\4'; env -0; printf '\\4\\0'; } >&3
read -r status output <&4
cat "$output"
exit "$status"
"""
_BEGIN = """set -euo pipefail
trap 'echo "failed: $BASH_COMMAND" >&2' ERR
"""


@dataclass(frozen=True)
class Call:
    """A command as the shell hands it over."""

    name: str
    folder: Path
    args: list[str]
    env: dict[str, str]


Answer = Callable[[Call], str]  # runs a command and returns what it prints; raises if it fails


class Shell:
    """Runs blocks of shell commands in `folder`; `names` are the commands that `answer` knows."""

    def __init__(self, folder: Path, names: Iterable[str], answer: Answer):
        self.folder, self._answer = folder, answer
        self._bin = Path(tempfile.mkdtemp(dir=folder.parent, prefix="bin-"))
        for name in names:
            (self._bin / name).write_text(_STUB)
            (self._bin / name).chmod(0o755)
        for name in TOOLS:
            (self._bin / name).symlink_to(shutil.which(name) or f"/bin/{name}")
        self._output = self._bin / ".output"
        self._variables: list[str] = []

    def run(self, text: str, env: dict[str, str] | None = None, args: list[str] | None = None) -> None:
        """Runs a block, or a script with its arguments. Assignments such as NET=... hold for later blocks too.

        Raises what a command raised.
        """
        lines = text.splitlines()
        script = _BEGIN + "\n".join([*self._variables, text])
        self._variables += [line for line in lines if line.split("=")[0].isupper() and "=" in line]
        to_us, from_bash = os.pipe()
        to_bash, from_us = os.pipe()
        places = {"PATH": str(self._bin), "HOME": str(self.folder), "MAKEFLAGS": f"BIN={self._bin}"}
        redirect = f"exec 3>&{from_bash} 4<&{to_bash}\n"
        bash = subprocess.Popen(
            ["/bin/bash", "-c", redirect + script, "bash", *(args or [])],
            cwd=self.folder,
            env=places | (env or {}),
            pass_fds=(from_bash, to_bash),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        os.close(from_bash)
        os.close(to_bash)
        error: BaseException | None = None
        with os.fdopen(to_us, "rb") as requests, os.fdopen(from_us, "w") as replies:
            while (call := _read_call(requests)) is not None:
                try:
                    self._output.write_text(self._answer(call) if error is None else "")
                    status = 0 if error is None else 1
                except BaseException as e:
                    error, status = e, 1
                    self._output.write_text("")
                replies.write(f"{status} {self._output}\n")
                replies.flush()
        _, said = bash.communicate(timeout=20)
        if error is not None:
            raise error
        assert bash.returncode == 0, said


def _read_call(requests) -> Call | None:
    words = _read_words(requests)
    if words is None:
        return None
    env = dict(word.partition("=")[::2] for word in _read_words(requests) or [] if "=" in word)
    return Call(words[0], Path(words[1]), words[2:], env)


def _read_words(requests) -> list[str] | None:
    words, word = [], b""
    while byte := requests.read(1):
        if byte != b"\0":
            word += byte
        elif word == _END:
            return words
        else:
            words.append(os.fsdecode(word))
            word = b""
    return None
