"""Data of official files as JSON has it."""

from typing import Any

from torch_utils.files.torch_files import PlainNamespace


def json_data(value: Any) -> Any:
    """Namespaces become dicts, tuples lists; what JSON has no form for (sets, tensors) becomes short text."""
    if isinstance(value, PlainNamespace):
        value = value.attributes
    if isinstance(value, dict):
        return {str(k): json_data(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_data(v) for v in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)[:200]
