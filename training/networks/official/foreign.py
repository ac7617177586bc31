"""Network files of programs whose networks are not known here: which program it was, and what can be done."""

from collections.abc import Iterable

_MEASURE = "its pictures can be measured with calc_metrics.py --images=FOLDER"
_PROGRAMS = (  # a name inside the file -> what it tells
    (
        "dnnlib.tflib",
        "StyleGAN's TensorFlow program wrote it: convert it with legacy.py of stylegan2-ada-pytorch, whose files load",
    ),
    ("tensorflow", f"a TensorFlow program wrote it, whose networks are not known here; {_MEASURE}"),
    ("torch_utils.ops", f"a program related to StyleGAN wrote it, with classes not known here; {_MEASURE}"),
    ("torch.nn.modules", "it holds whole modules, whose code would have to run: save a state_dict with the program"),
    ("__main__", "it holds classes of a script: save the tensors with the program that it comes from"),
)


def origin_of(message: str) -> str:
    """What to add to `refusing to load NAME from FILE`; nothing for names that tell no program."""
    return next((f"; {text}" for name, text in _PROGRAMS if f"refusing to load {name}" in message), "")


def foreign_checkpoint(names: Iterable[str]) -> str | None:
    """Which program's checkpoint has tensors of these names, where it is one that is not known here."""
    names = set(names)
    if "conv1.conv.weight" in names and "to_rgb1.conv.weight" in names:
        return (
            "a checkpoint of rosinality's stylegan2-pytorch, which is not known here: sample it with that program; "
            f"{_MEASURE}"
        )
    return None
