"""Reads the Markdown pages: code blocks with the marks above them, links, headings, inline code.

A mark is an HTML comment on the line above a block, invisible to readers, its parts parted by `;`:

    <!-- docs-test: dry-run -->               train.py only resolves its config, other scripts only parse their options
    <!-- docs-test: file mine.py -->          the block is that file, for the blocks below it
    <!-- docs-test: given G, z -->            names that exist before the block (tests/support/docs/stand_ins.py)
    <!-- docs-test: skip gpu -->              not run, only checked for syntax; test_docs.py lists the reasons
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

_FENCE = re.compile(r"( *)(`{3,}|~{3,})([^`]*)$")
_MARK = re.compile(r" *<!-- docs-test: (.*) -->")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)(?: \"[^\"]*\")?\)")
_LIST_ITEM = re.compile(r" *([-*+]|\d+\.) ")


@dataclass(frozen=True)
class Block:
    """A fenced block of code."""

    page: Path
    line: int  # of the opening fence, from 1
    language: str
    text: str
    marks: dict[str, str]  # the first word of each part of the mark -> the rest

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@dataclass(frozen=True)
class Page:
    """A page, parted into blocks and prose."""

    path: Path
    blocks: list[Block]
    prose: list[tuple[int, str]]  # (line number, line) of everything outside blocks


def read_page(path: Path) -> Page:
    """Parts a page. AssertionError for a block without an end, and for a mark without a block."""
    blocks: list[Block] = []
    prose: list[tuple[int, str]] = []
    lines = enumerate(path.read_text().splitlines(), start=1)
    marks: dict[str, str] = {}
    for number, line in lines:
        if match := _MARK.fullmatch(line):
            marks = dict(_mark(part) for part in match[1].split(";"))
        elif match := _FENCE.match(line):
            text = "\n".join(_until(lines, match[2], len(match[1]), f"{path}:{number}"))
            blocks.append(Block(path, number, match[3].strip(), text + "\n", marks))
            marks = {}
        else:
            assert not marks, f"{path}:{number}: the mark above stands before no block"
            prose.append((number, line))
    return Page(path, blocks, prose)


def _mark(part: str) -> tuple[str, str]:
    word, _, rest = part.strip().partition(" ")
    assert word in ("dry-run", "file", "given", "skip"), f"unknown mark {word!r}"
    return word, rest.strip()


def _until(lines: Iterator[tuple[int, str]], fence: str, indent: int, place: str) -> Iterator[str]:
    for _, line in lines:
        if line.strip() == fence:
            return
        yield line[indent:]
    raise AssertionError(f"{place}: the block never ends")


def indented_blocks(page: Page) -> list[int]:
    """Lines of code blocks made by indentation, which have no language."""
    found, is_in_list, last = [], False, ""
    for number, line in page.prose:
        if line.strip() and not line.startswith(" "):
            is_in_list = bool(_LIST_ITEM.match(line))
        if line.startswith("    ") and not last.strip() and not is_in_list:
            found.append(number)
        last = line
    return found


def links(page: Page) -> Iterator[tuple[int, str]]:
    """(line, target) of every link and picture."""
    for number, line in page.prose:
        for target in _LINK.findall(re.sub(r"`[^`]*`", "", line)):
            yield number, target


def inline_code(page: Page) -> Iterator[tuple[int, str]]:
    """(line, text) of every `code` in the prose."""
    for number, line in page.prose:
        for text in re.findall(r"`([^`]+)`", line):
            yield number, text


def anchors(page: Page) -> set[str]:
    """What `#...` may name: the headings, as code hosts turn them into anchors."""
    found: set[str] = set()
    for _, line in page.prose:
        if match := re.match(r"#+ +(.*)", line):
            words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", match[1]).lower()
            slug = re.sub(r"[^\w\- ]", "", words).strip().replace(" ", "-")
            found.add(next(s for s in _numbered(slug) if s not in found))
    return found


def _numbered(slug: str) -> Iterator[str]:
    yield slug
    for i in range(1, 100):
        yield f"{slug}-{i}"
