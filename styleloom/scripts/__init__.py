"""train, generate, calc_metrics and dataset_tool as modules of this package, wherever the project lies.

In a checkout they stand at its top, where the field looks for them; a wheel has them here, beside nothing of others'.
"""

from pathlib import Path

_TOP = Path(__file__).parents[2]
if (_TOP / "pyproject.toml").is_file() and (_TOP / "train.py").is_file():
    __path__.append(str(_TOP))
