"""StyleLoom from Python: `styleloom.load(path)` gives a network that samples, projects and shows what it makes.

`styleloom --help` in a terminal has the scripts.
"""

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from styleloom.network import Network

__all__ = ["load"]


def load(path: str | PathLike[str], imports: Sequence[str] = (), device: str | None = None) -> "Network":
    """G_ema of a network file (ours or an official one), of a URL, or of a run folder's newest snapshot.

    `imports`: Python files that register networks of your own. `device`: a GPU's, where there is one, unless said.
    Raises dnnlib.UserError, one line, whatever is wrong with the file.
    """
    from styleloom.network import Network  # the libraries behind it take seconds
    from styleloom.network import load_network as found

    loaded: Network = found(path, imports, device)
    return loaded
