"""Progress bars: on a terminal, in a notebook as the notebook draws them, and nowhere else."""

import sys
import warnings
from typing import Any

from tqdm import TqdmWarning

with warnings.catch_warnings():
    warnings.simplefilter("ignore", TqdmWarning)  # a notebook without ipywidgets shows the bar as text
    from tqdm import auto


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return type(shell).__name__ in ("ZMQInteractiveShell", "Shell")  # Jupyter's, Colab's


class tqdm(auto.tqdm):
    """tqdm's bar. With `disable=None`, which everything here says, it is shown on a terminal and in a notebook."""

    def __init__(self, *args: Any, disable: bool | None = False, **kwargs: Any) -> None:
        if disable is None and in_notebook():
            disable = False
        super().__init__(*args, disable=disable, **kwargs)  # type: ignore[call-overload]
