"""report.html of a run folder: one self-contained page with samples over time, curves, settings and environment.

It is made from the run's own files, so it is the same whether a run was continued or not.
"""

import base64
import io
import json
import os
import platform
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from markupsafe import Markup
from PIL import Image

from dnnlib.config import from_dict
from dnnlib.errors import UserError
from dnnlib.files import read_json, read_jsonl, write_file
from metrics import larger_is_better
from metrics.result import is_figure, read_results
from training.networks.image_space import ImageSpaceConfig, build_space
from training.objectives.base import Curve, curves_of
from training.run.checkpoint import OPTIONS_FILE
from training.run.report.charts import Series, chart, number
from training.run.report.style import STYLE
from training.run.report.templates import TEMPLATES
from training.run.starts import STARTS_FILE

TILES = 8  # samples in a strip
STRIPS = 12  # snapshots shown, spread evenly over the run
TILE_SIDE = 128  # pixels, at most
SMALL = 64  # tiles below this are shown with hard pixels
Line = dict[str, Any]
_OF_ADA = {"Loss/signs/real", "Progress/augment"}  # statistics that say something where p is adapted

RESOURCES: list[Curve] = [  # title, legend -> statistic, how to read it
    ("Seconds per kimg", {"training": "Timing/sec_per_kimg"}, ""),
    ("Memory in GiB", {"CPU": "Resources/cpu_mem_gb", "GPU, peak": "Resources/peak_gpu_mem_gb"}, ""),
]


def write_report(folder: Path) -> str | None:
    """Writes report.html anew, atomically. Returns a line that says why, where that isn't possible: a report never
    stops a training."""
    try:
        write_file(folder / "report.html", page(folder).encode("utf-8", "replace"))
    except Exception as e:
        return f"warning: no report: {' '.join(str(e).split())[:200]}"
    return None


def page(folder: Path) -> str:
    """The whole page as text. A part whose files are damaged says so, the others are as ever."""
    options = _options(folder)
    stats = [_figures(line) for line in read_jsonl(folder / "stats.jsonl")]
    metrics = {p.stem.removeprefix("metric-"): read_results(p) for p in sorted(folder.glob("metric-*.jsonl"))}
    parts = [
        _part("", "header", lambda: _header(folder, options, stats, metrics)),
        _part("Samples", "strips", lambda: _strips(folder, _picture_size(options))),
        _part("Metrics", "charts", lambda: _metric_charts(metrics)),
        _part("Final figures", "figures", lambda: _final_figures(metrics)),
        _part("Training", "charts", lambda: _curves(stats, _curves_shown(options))),
        _part("Settings", "folds", lambda: _settings(options)),
        _part("Environment", "folds", lambda: _environment(folder)),
    ]
    return TEMPLATES.get_template("report.html").render(
        title=folder.name,
        style=Markup(STYLE),
        parts=[part for part in parts if part is not None],
        when=time.strftime("%Y-%m-%d at %H:%M"),
    )


def _curves_shown(options: Line) -> list[Curve]:
    """The objective's curves; those of the augmentation where there is one that adapts."""
    ada = options.get("ada")
    adapts = not isinstance(ada, dict) or ada.get("mode", "ada") == "ada"
    return [curve for curve in curves_of(_kind_of_loss(options)) if adapts or not _OF_ADA & set(curve[1].values())]


def _options(folder: Path) -> Line:
    try:
        options = read_json(folder / OPTIONS_FILE)
    except (UserError, FileNotFoundError):
        return {}
    return options if isinstance(options, dict) else {}


def _picture_size(options: Line) -> tuple[int, int]:
    """(height, width) of the pictures that the run's generator makes; a plug-in's space is not known here."""
    h, w = options["G"]["img_resolution"]
    space = options["G"].get("space")
    known = isinstance(space, dict) and space.get("kind") in ImageSpaceConfig.kinds
    return build_space(from_dict(ImageSpaceConfig, space)).picture_size((h, w)) if known else (h, w)


def _kind_of_loss(options: Line) -> str:
    """The objective's name; run folders of the first release name none."""
    loss = options.get("loss")
    return str(loss.get("kind", "logistic")) if isinstance(loss, dict) else "logistic"


def _figures(line: Line) -> Line:
    """The statistics of a line of stats.jsonl that have a mean."""
    found = {name: value for name, value in line.items() if isinstance(value, dict)}
    return {name: v for name, v in found.items() if is_figure(v.get("mean")) or v.get("mean") != v.get("mean")}


def _part(title: str, kind: str, build: Callable[[], Any]) -> Line | None:
    """A part of the page for the template; None where there is nothing to show."""
    try:
        data, problem = build(), ""
    except Exception as e:  # whatever damaged files lead to
        data, problem = None, " ".join(str(e).split())[:200] or type(e).__name__
    return {"title": title, "kind": kind, "data": data, "problem": problem} if data or problem else None


def _header(folder: Path, options: Line, stats: list[Line], metrics: dict[str, list[Line]]) -> Line:
    last = {name: value["mean"] for name, value in (stats[-1] if stats else {}).items()}
    kimg, total = last.get("Progress/kimg", 0.0), options["total_kimg"]
    tiles = [("Trained", f"{number(kimg)} kimg"), ("Of the plan", f"{min(kimg / max(total, 1e-9), 1):.0%}")]
    tiles.append(("Time", _duration(last.get("Timing/total_sec", 0.0))))
    if last.get("Timing/sec_per_kimg"):
        tiles.append(("Speed", f"{number(1000 / last['Timing/sec_per_kimg'])} img/s"))
    for name, lines in metrics.items():
        best = _best(name, lines)
        if best is not None:
            tiles.append((f"Best {best[0]}", number(best[1])))
    h, w = _picture_size(options)
    about = f"{options['preset']} · {options['G']['kind']} on {Path(options['data']['path']).name}, {w}×{h}"
    return {"title": folder.name, "about": about, "tiles": tiles}


def _best(metric: str, lines: list[Line]) -> tuple[str, float] | None:
    """The metric's first value by its name, where it was best."""
    values = [next(iter(line["results"].items())) for line in lines if line["snapshot_pkl"]]
    choose = max if larger_is_better(metric) else min
    return choose(values, key=lambda item: item[1]) if values else None


# -- samples ----------------------------------------------------------------------------------------------------------


def _strips(folder: Path, size: tuple[int, int]) -> list[Line]:
    """Reals, then the same latents at snapshots from first to last."""
    found = [("start", folder / "fakes_init.png")]
    for path in sorted(folder.glob("fakes*.png")):
        match = re.fullmatch(r"fakes(\d+)", path.stem)
        if match:
            found.append((f"{number(int(match[1]))} kimg", path))
    found = spread([(label, path) for label, path in found if path.is_file()], STRIPS)
    if (folder / "reals.png").is_file():
        found.insert(0, ("real", folder / "reals.png"))
    return [_strip(label, path, size) for label, path in found]


def spread(items: list[Any], count: int) -> list[Any]:
    """At most `count` of the items, first and last among them, evenly spread."""
    if len(items) <= count:
        return items
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]


def _strip(label: str, path: Path, size: tuple[int, int]) -> Line:
    try:
        image = _first_tiles(path, size)
    except Exception:  # a cut or foreign picture; decoders fail in many ways
        image = ""
    return {"label": label, "name": path.name, "image": image, "small": max(size) < SMALL}


def _first_tiles(path: Path, size: tuple[int, int]) -> str:
    """The beginning of a grid as a data URL."""
    h, w = size
    with Image.open(path, formats=["PNG"]) as sheet:
        columns = min(TILES, sheet.width // w)
        strip = sheet.convert("RGB").crop((0, 0, columns * w, h))
    scale = min(1.0, TILE_SIDE / max(h, w))
    if scale < 1:
        strip = strip.resize((round(strip.width * scale), round(strip.height * scale)), Image.Resampling.LANCZOS)
    form, options = ("jpeg", {"quality": 88}) if scale < 1 else ("png", {"optimize": True})
    buffer = io.BytesIO()
    strip.save(buffer, form, **options)
    return f"data:image/{form};base64,{base64.b64encode(buffer.getvalue()).decode()}"


# -- curves -----------------------------------------------------------------------------------------------------------


def _metric_charts(metrics: dict[str, list[Line]]) -> list[Markup]:
    figures = []
    for name, lines in metrics.items():
        points: dict[str, list[tuple[float, float]]] = {}
        for line in lines:
            match = re.fullmatch(r"network-snapshot-(\d+)\.\w+", line["snapshot_pkl"] or "")
            for key, value in line["results"].items():
                if match and not key.endswith("_std"):
                    points.setdefault(key, []).append((float(match[1]), value))
        if all(len(p) < 2 for p in points.values()):
            continue  # a single value is in the table of final figures
        series = [Series(key.removeprefix(f"{name}_"), sorted(p)) for key, p in points.items()]
        better = "larger" if larger_is_better(name) else "smaller"
        figures.append(chart(name, series, f"{better.capitalize()} is better.", may_be_log=True))
    return figures


def _final_figures(metrics: dict[str, list[Line]]) -> Line | None:
    """What the metrics say of the newest network that each has measured, beside baselines that were measured, too."""
    columns: dict[str, dict[str, str]] = {}
    for lines in metrics.values():
        networks = [line for line in lines if line["snapshot_pkl"]]
        newest = networks[-1]["snapshot_pkl"] if networks else None
        for line in lines:
            if line["snapshot_pkl"] == newest or not line["snapshot_pkl"]:
                column = columns.setdefault(line["snapshot_pkl"] or str(line.get("generated", "images")), {})
                column |= {name: number(value) for name, value in line["results"].items()}
    names = dict.fromkeys(name for column in columns.values() for name in column)
    if not names:
        return None
    return {
        "head": ["", *columns],
        "rows": [[name, *(column.get(name, "") for column in columns.values())] for name in names],
    }


def _curves(stats: list[Line], curves: Sequence[Curve]) -> list[Markup]:
    figures = []
    scheduled = {
        name: name.removeprefix("Schedule/") for line in stats for name in line if name.startswith("Schedule/")
    }
    ramps = [(title, {"value": name}, "Scheduled.") for name, title in scheduled.items()]
    for title, names, note in (*curves, *ramps, *RESOURCES):
        series = [Series(label, _points(stats, name)) for label, name in names.items()]
        series = [s for s in series if any(y for _, y in s.points)]  # all 0: it doesn't happen in this run
        figures.append(chart(title, series, note))
    return [figure for figure in figures if figure]


def _points(stats: list[Line], name: str) -> list[tuple[float, float]]:
    is_time = name.startswith("Timing/")
    found = [(s["Progress/kimg"]["mean"], s[name]["mean"]) for s in stats if name in s and "Progress/kimg" in s]
    return found[1:] if is_time else found  # nothing was trained before the first report


# -- tables -----------------------------------------------------------------------------------------------------------


def _settings(options: Line) -> list[Line]:
    groups = {"Run": {k: v for k, v in options.items() if not isinstance(v, dict)}}
    groups |= {k: v for k, v in options.items() if isinstance(v, dict)}
    return [{"title": name, "rows": _flat(fields), "open": False} for name, fields in groups.items()]


def _flat(fields: Line, prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in fields.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: _text(value)}
    return found


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _environment(folder: Path) -> list[Line]:
    """How the run was started, each time, and what this machine is."""
    starts = {
        f"{start.get('when', '')}": f"{start.get('command', '')} ({start.get('version', '')})"
        for start in read_jsonl(folder / STARTS_FILE)
    }
    found = [{"title": "Commands", "rows": starts, "open": True}] if starts else []
    return [*found, {"title": "This machine", "rows": _machine(), "open": True}]


def _machine() -> dict[str, str]:
    rows = {
        "Python": platform.python_version(),
        "PyTorch": str(torch.__version__),
        "System": platform.platform(),
        "CPU": f"{os.cpu_count()} cores, {torch.get_num_threads()} threads used",
    }
    if torch.cuda.is_available():
        rows["GPU"] = torch.cuda.get_device_name()
    return rows


def _duration(seconds: float) -> str:
    minutes = int(seconds) // 60
    if minutes < 60:
        return f"{minutes} min" if minutes else f"{int(seconds)} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d}" if hours < 48 else f"{hours / 24:.1f} days"
