"""docs/troubleshooting.md quotes messages: each is one that the source can print."""

import ast
import re
from collections.abc import Iterator

import pytest
from support.docs.pages import ROOT, read_page

PAGE = read_page(ROOT / "docs" / "troubleshooting.md")
QUOTED = [line for block in PAGE.blocks if block.language == "text" for line in block.text.splitlines()]
LEAST = 12  # letters that a template must have besides its variable parts


def templates() -> Iterator[str]:
    """Every text in the source as a regular expression, what is computed standing for anything."""
    files = [*ROOT.glob("*.py"), *(f for d in ("styleloom", "dnnlib", "torch_utils", "training", "metrics") for f in
             (ROOT / d).rglob("*.py"))]  # fmt: skip
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [p.value if isinstance(p, ast.Constant) else None for p in node.values]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                parts = [node.value]
            else:
                continue
            if sum(len(p) for p in parts if p) >= LEAST:
                yield "".join(".*" if p is None else re.escape(p) for p in parts).removesuffix(r"\ ")


TEMPLATES = [re.compile(t) for t in set(templates())]


def literal(template: re.Pattern[str]) -> int:
    return len(template.pattern.replace(".*", "").replace("\\", ""))


def is_printed(message: str) -> bool:
    """Whether a template matches from the message's start, after the file that it is about, to its end."""
    text = re.sub(r"^(Error|UserWarning): (\S+: G_ema: (?=tensor))?", "", message)
    return any(t.fullmatch(text) for t in TEMPLATES if literal(t) >= LEAST)


def test_there_are_many():
    assert len(QUOTED) > 50


@pytest.mark.parametrize("message", QUOTED)
def test_message_is_in_the_source(message):
    assert is_printed(message)
    if inner := re.search(r"not in use: (.*)\. Slower", message):
        assert is_printed(inner[1])


def test_this_test_can_fail():
    assert not is_printed("Error: --gpus=4, but this computer has 1")
    assert not is_printed("Error: no such thing is said anywhere: never")
