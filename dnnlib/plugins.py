"""`--import=FILE.py`: the user's own code, which registers networks, metrics, detectors or sources when it runs."""

import importlib.util
import sys
from pathlib import Path

from dnnlib.errors import UserError

_imported: list[str] = []


def import_file(path: str) -> None:
    """Runs a Python file as a module named after it. UserError if there is none or it fails, with its last words."""
    file = Path(path).expanduser().absolute()
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if not file.is_file() or spec is None or spec.loader is None:
        raise UserError(f"--import: {path} is no Python file")
    if file.stem in sys.modules:
        if getattr(sys.modules[file.stem], "__file__", None) == str(file):
            return
        raise UserError(f"--import: a module called {file.stem} is loaded already; rename {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    try:
        spec.loader.exec_module(module)
    except Exception as e:
        del sys.modules[file.stem]
        raise UserError(f"--import: {path} failed: {type(e).__name__}: {e}") from e
    _imported.append(str(file))


def imported_files() -> tuple[str, ...]:
    """What `import_file` has run in this process, in order: processes that it starts have to run the same."""
    return tuple(_imported)
