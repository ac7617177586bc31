"""A pickle machine that executes nothing: it builds plain data and hands every constructor to an allow-list.

No name in a file is ever imported. `Reader` interprets the opcodes itself, so that sizes are checked against the
bytes that are there before anything is allocated, and so that every error is one line that names the file.
Opcode semantics: CPython's `pickletools`, protocols 0 to 5.
"""

import struct
from collections.abc import Callable, Collection, Mapping
from typing import Any

from dnnlib.errors import UserError

MAX_OPCODES = 1_000_000  # of one pickle; a one-byte opcode can cost 64 bytes of memory
MAX_PICKLES = 10  # so many times MAX_OPCODES for all pickles within a file, which may hold one per tensor
MAX_INTEGER_BYTES = 32
MAX_LINE = 4096  # of the textual opcodes of protocol 0
MAX_DEPTH = 200  # of nested containers
EXPANSION = 4  # what a file makes may be so many times its own size,
ALLOWANCE = 16 * 2**20  # and so many bytes more
ENTRY = 64  # bytes that one entry of a container is taken to cost
MAX_NAME = 1024  # characters of a dict's key
MAX_KEY = 2**53  # dict keys of this size and beyond could be made to collide

Constructor = Callable[..., Any]

# What reading nonsense may raise; anything else is a fault of ours and stays visible.
DAMAGE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, struct.error, RuntimeError, MemoryError)


class UnsafeFile(UserError):
    """A file asks for something that is not on the allow-list."""


class DamagedFile(UserError):
    """A file is truncated, corrupted or of an unexpected structure."""


class Stateful:
    """Base of what a constructor may return if BUILD is allowed on it."""

    def set_state(self, state: Any) -> None:
        """Takes the state that the file gives."""
        raise NotImplementedError


class Constant:
    """An allow-list entry that stands for a value (a storage type, a dtype), not for something to call."""

    def __init__(self, value: Any) -> None:
        self.value = value


class _Global:
    """An allowed constructor on the stack."""

    def __init__(self, name: str, build: Constructor) -> None:
        self.name, self.build = name, build


class Budget:
    """What the reading of one file may still make: opcodes run, and bytes produced beyond those that it holds."""

    def __init__(self, size: int, source: str) -> None:
        self.limit = EXPANSION * size + ALLOWANCE
        self.source = source
        self._bytes = self.limit
        self._opcodes = MAX_PICKLES * MAX_OPCODES

    def spend(self, count: int) -> None:
        """Before `count` bytes are made. Raises UnsafeFile."""
        self._bytes -= count
        if self._bytes < 0:
            raise UnsafeFile(f"refusing {self.source}: it makes more than {self.limit:,} bytes out of those it has")

    def run(self) -> None:
        """Before an opcode is run. Raises DamagedFile."""
        self._opcodes -= 1
        if self._opcodes < 0:
            raise DamagedFile(f"{self.source}: more than {MAX_PICKLES * MAX_OPCODES} pickle opcodes in all")


class Reader:
    """Reads pickles from `data` (bytes-like), one after another.

    Args:
        data: The bytes; strings of bytes in the result are copies of their part.
        allowed: "module.name" -> what to call instead.
        source: The file's name, for messages.
        persistent_load: Called with each persistent id; None refuses them.
        budget: Of the whole file, where `data` is but a part of one.
    """

    def __init__(
        self,
        data: Any,
        allowed: Mapping[str, Constructor | Constant],
        source: str,
        persistent_load: Constructor | None = None,
        budget: Budget | None = None,
    ) -> None:
        self.data = memoryview(data).cast("B")
        self.allowed = allowed
        self.source = source
        self.persistent_load = persistent_load
        self.position = 0
        self.budget = budget or Budget(len(self.data), source)

    def load(self) -> Any:
        """The next pickle's object. Raises UnsafeFile or DamagedFile; a cycle or too deep a nesting is damage, too."""
        try:
            result = self._run()
        except UserError:
            raise
        except DAMAGE as e:
            detail = str(e)[:120] or type(e).__name__
            raise DamagedFile(f"{self.source} is damaged at byte {self.position}: {detail}") from e
        check_extent(result, self.source, self.budget.limit)
        return result

    def _run(self) -> Any:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        for _ in range(MAX_OPCODES):
            self.budget.run()
            code = self.take(1)[0]
            if code == 0x2E:  # STOP
                if len(self.stack) != 1:
                    raise ValueError("the pickle ends with an unbalanced stack")
                return self._plain(self.stack.pop())
            step = _STEPS.get(code)
            if step is None:
                raise UnsafeFile(f"refusing pickle opcode 0x{code:02x} in {self.source}")
            step(self)
        raise DamagedFile(f"{self.source}: more than {MAX_OPCODES} pickle opcodes")

    def take(self, count: int) -> memoryview:
        """The next `count` bytes."""
        end = self.position + count
        if count < 0 or end > len(self.data):
            raise DamagedFile(f"{self.source} is truncated or damaged: {count} bytes announced, fewer are there")
        part = self.data[self.position : end]
        self.position = end
        return part

    def number(self, form: str) -> Any:
        """The next number of a `struct` format."""
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self) -> str:
        """Text up to the next newline (protocol 0)."""
        window = bytes(self.data[self.position : self.position + MAX_LINE])
        end = window.find(b"\n")
        if end < 0:
            raise ValueError("a line does not end")
        self.position += end + 1
        return window[:end].decode("utf-8")

    def push(self, value: Any) -> None:
        """Puts a value on the stack."""
        self.stack.append(value)

    def pop(self) -> Any:
        """Takes the topmost value, which must lie above the last mark."""
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise ValueError("a value is missing on the stack")
        return self.stack.pop()

    def pop_plain(self) -> Any:
        """Takes the topmost value, which must not be a constructor."""
        return self._plain(self.pop())

    def top(self, kind: type) -> Any:
        """The topmost value, which must be of class `kind`, left where it is."""
        value = self.stack[-1]
        if not isinstance(value, kind) or len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise ValueError(f"a {kind.__name__} is expected on the stack")
        return value

    def pop_to_mark(self) -> list[Any]:
        """Takes all values above the last mark."""
        start = self.marks.pop()
        values = [self._plain(v) for v in self.stack[start:]]
        del self.stack[start:]
        return values

    def resolve(self, module: str, name: str) -> None:
        """Pushes the allowed constructor or constant of that name; refuses all others."""
        full = f"{module}.{name}"
        if full not in self.allowed:
            raise UnsafeFile(f"refusing to load {full[:200]!a} from {self.source}".replace("'", ""))
        entry = self.allowed[full]
        self.push(entry.value if isinstance(entry, Constant) else _Global(full, entry))

    def call(self, arguments: Any) -> None:
        """Replaces the constructor on the stack by what it makes of `arguments`."""
        constructor = self.pop()
        if not isinstance(constructor, _Global):
            raise UnsafeFile(f"refusing to call {type(constructor).__name__} in {self.source}")
        if not isinstance(arguments, tuple):
            raise ValueError(f"{constructor.name} is called without an argument tuple")
        self.budget.spend(sum(cost(argument) for argument in arguments))
        self.push(constructor.build(*arguments))

    def _plain(self, value: Any) -> Any:
        if isinstance(value, _Global):
            raise UnsafeFile(f"refusing {value.name} as a value in {self.source}")
        return value


def cost(value: Any, levels: int = 2) -> int:
    """Bytes that a copy of `value` takes, of containers in containers down to so many levels."""
    if isinstance(value, (str, bytes)):
        return ENTRY + len(value)
    if isinstance(value, memoryview):
        return ENTRY + value.nbytes
    children = _children(value)
    inner = sum(cost(child, levels - 1) for child in children) if levels > 1 else 0
    return ENTRY * (1 + len(children)) + inner


def check_extent(value: Any, source: str, limit: int) -> None:
    """DamagedFile if containers nest beyond MAX_DEPTH (cycles do), or if parts that are shared make the data explode:
    text, buffers and tensors count wherever they are referred to, up to `limit` bytes in all."""
    level, depth, visits, extent = [value], 0, 0, 0
    while level:
        deeper: list[Any] = []
        for item in level:
            children = _children(item)
            visits += len(children)
            extent += _bytes_in(item)
            if depth > MAX_DEPTH or visits > MAX_OPCODES or extent > limit:
                raise DamagedFile(
                    f"{source}: data nested deeper than {MAX_DEPTH} levels or expanding without end "
                    f"(to more than {MAX_OPCODES:,} parts or {limit:,} bytes)"
                )
            deeper.extend(children)
        level, depth = deeper, depth + 1


def _children(item: Any) -> Collection[Any]:
    if isinstance(item, dict):
        return item.values()
    if isinstance(item, (list, tuple, set, frozenset)):
        return item
    return vars(item).values() if isinstance(item, Stateful) else ()


def _bytes_in(item: Any) -> int:
    if isinstance(item, (str, bytes)):
        return len(item)
    if isinstance(item, memoryview):
        return item.nbytes
    return item.numel() * item.element_size() if hasattr(item, "element_size") else 0  # a tensor


def _skip(reader: Reader, count: int) -> None:
    reader.take(count)


def _drop(reader: Reader) -> None:
    reader.pop()


def _drop_to_mark(reader: Reader) -> None:
    reader.pop_to_mark()


def _set_items(reader: Reader, items: list[Any]) -> None:
    target = reader.top(dict)
    if len(items) % 2:
        raise ValueError("a key without a value")
    for key, value in zip(items[::2], items[1::2]):
        target[checked_key(key)] = value


def checked_key(key: Any) -> str | int:
    """A short text or a small whole number. Raises ValueError for anything else."""
    if (isinstance(key, str) and len(key) <= MAX_NAME) or (type(key) is int and abs(key) < MAX_KEY):
        return key
    raise ValueError(f"a {type(key).__name__} as key")


def _extend(reader: Reader, items: list[Any]) -> None:
    reader.top(list).extend(items)


def _add_items(reader: Reader) -> None:
    items = reader.pop_to_mark()
    reader.top(set).update(checked_key(v) for v in items)


def _dictionary(reader: Reader) -> None:
    items = reader.pop_to_mark()
    reader.push({})
    _set_items(reader, items)


def _build(reader: Reader) -> None:
    state = reader.pop_plain()
    target = reader.stack[-1]
    reader.budget.spend(cost(state))
    if isinstance(target, Stateful):
        target.set_state(state)
    elif not isinstance(target, dict):  # attributes beside the items (state_dict's `_metadata`) are dropped
        raise UnsafeFile(f"refusing to set the state of {type(target).__name__} in {reader.source}")


def _new_object_with_keywords(reader: Reader) -> None:
    keywords, arguments = reader.pop_plain(), reader.pop_plain()
    if keywords:
        raise UnsafeFile(f"refusing keyword arguments of a constructor in {reader.source}")
    reader.call(arguments)


def _stack_global(reader: Reader) -> None:
    name, module = reader.pop(), reader.pop()
    if not (isinstance(name, str) and isinstance(module, str)):
        raise ValueError("a constructor's name is no text")
    reader.resolve(module, name)


def _integer(reader: Reader, length: int) -> None:
    if length > MAX_INTEGER_BYTES:
        raise DamagedFile(f"{reader.source}: an integer of {length} bytes")
    reader.push(int.from_bytes(reader.take(length), "little", signed=True))


def _text_integer(reader: Reader) -> None:
    text = reader.line().removesuffix("L")
    if len(text) > 2 * MAX_INTEGER_BYTES:
        raise DamagedFile(f"{reader.source}: an integer of {len(text)} digits")
    reader.push({"00": False, "01": True}[text] if text in ("00", "01") else int(text))


def _text_global(reader: Reader) -> None:
    reader.resolve(reader.line(), reader.line())


def _get(reader: Reader, index: int) -> None:
    if index not in reader.memo:
        raise ValueError(f"memo entry {index} is missing")
    reader.push(reader.memo[index])


def _put(reader: Reader, index: int) -> None:
    reader.memo[index] = reader.stack[-1]


def _persistent(reader: Reader, pid: Any) -> None:
    if reader.persistent_load is None:
        raise UnsafeFile(f"refusing persistent ids in {reader.source}")
    reader.push(reader.persistent_load(pid))


def _tuple(reader: Reader, count: int) -> None:
    values = [reader.pop_plain() for _ in range(count)]
    reader.push(tuple(reversed(values)))


def _set_item(reader: Reader) -> None:
    value, key = reader.pop_plain(), reader.pop_plain()
    _set_items(reader, [key, value])


def _append(reader: Reader) -> None:
    value = reader.pop_plain()
    _extend(reader, [value])


def _text(reader: Reader, length: int) -> None:
    reader.push(str(reader.take(length), "utf-8", "surrogatepass"))


def _latin(reader: Reader, length: int) -> None:
    reader.push(str(reader.take(length), "latin-1"))


def _bytes(reader: Reader, length: int) -> None:
    reader.push(reader.take(length))


# Byte strings, whatever the opcode, come as memoryviews of the file: no copy, read at no other cost than a slice.
_STEPS: dict[int, Callable[[Reader], None]] = {
    0x80: lambda r: _skip(r, 1),  # PROTO
    0x95: lambda r: _skip(r, 8),  # FRAME
    ord("("): lambda r: r.marks.append(len(r.stack)),
    ord("0"): _drop,
    ord("1"): _drop_to_mark,
    ord("2"): lambda r: r.push(r.stack[-1]),
    ord("N"): lambda r: r.push(None),
    0x88: lambda r: r.push(True),
    0x89: lambda r: r.push(False),
    ord("I"): _text_integer,
    ord("L"): _text_integer,
    ord("J"): lambda r: r.push(r.number("<i")),
    ord("K"): lambda r: r.push(r.number("<B")),
    ord("M"): lambda r: r.push(r.number("<H")),
    0x8A: lambda r: _integer(r, r.number("<B")),
    0x8B: lambda r: _integer(r, r.number("<I")),
    ord("F"): lambda r: r.push(float(r.line())),
    ord("G"): lambda r: r.push(r.number(">d")),
    0x8C: lambda r: _text(r, r.number("<B")),
    ord("X"): lambda r: _text(r, r.number("<I")),
    0x8D: lambda r: _text(r, r.number("<Q")),
    ord("V"): lambda r: r.push(r.line().encode("latin-1").decode("raw_unicode_escape")),
    ord("U"): lambda r: _latin(r, r.number("<B")),
    ord("T"): lambda r: _latin(r, r.number("<i")),
    ord("C"): lambda r: _bytes(r, r.number("<B")),
    ord("B"): lambda r: _bytes(r, r.number("<I")),
    0x8E: lambda r: _bytes(r, r.number("<Q")),
    0x96: lambda r: _bytes(r, r.number("<Q")),
    ord("}"): lambda r: r.push({}),
    ord("d"): _dictionary,
    ord("s"): _set_item,
    ord("u"): lambda r: _set_items(r, r.pop_to_mark()),
    ord("]"): lambda r: r.push([]),
    ord("l"): lambda r: r.push(r.pop_to_mark()),
    ord("a"): _append,
    ord("e"): lambda r: _extend(r, r.pop_to_mark()),
    ord(")"): lambda r: r.push(()),
    ord("t"): lambda r: r.push(tuple(r.pop_to_mark())),
    0x85: lambda r: _tuple(r, 1),
    0x86: lambda r: _tuple(r, 2),
    0x87: lambda r: _tuple(r, 3),
    0x8F: lambda r: r.push(set()),
    0x90: _add_items,
    ord("p"): lambda r: _put(r, int(r.line())),
    ord("q"): lambda r: _put(r, r.number("<B")),
    ord("r"): lambda r: _put(r, r.number("<I")),
    0x94: lambda r: _put(r, len(r.memo)),
    ord("g"): lambda r: _get(r, int(r.line())),
    ord("h"): lambda r: _get(r, r.number("<B")),
    ord("j"): lambda r: _get(r, r.number("<I")),
    ord("c"): _text_global,
    0x93: _stack_global,
    ord("R"): lambda r: r.call(r.pop_plain()),
    0x81: lambda r: r.call(r.pop_plain()),
    0x92: _new_object_with_keywords,
    ord("b"): _build,
    ord("P"): lambda r: _persistent(r, r.line()),
    ord("Q"): lambda r: _persistent(r, r.pop_plain()),
}
