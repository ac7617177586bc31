"""Draws docs/images/objectives.svg from what benchmarks/learning.py left in docs/recipes/objectives.jsonl: KID and
coverage (mobilenetv2) over processor minutes, a line for each seed."""

import json
from pathlib import Path

DOCS = Path(__file__).parent.parent
RESULTS = DOCS / "recipes" / "objectives.jsonl"
PICTURE = DOCS / "images" / "objectives.svg"
COLUMNS = {"demo": "demo", "nat": "demo_nat's networks", "cond": "demo, conditional"}
ROWS = {
    "kid2k_mobilenetv2": ("KID, lower is better", 1.3),
    "cov2k_mobilenetv2_coverage": ("coverage, higher is better", 0.3),
}
COLOURS = {"relativistic": "#c0392b", "logistic": "#2c6fbb"}
WIDTH, HEIGHT, LEFT, TOP, GAP = 230, 150, 46, 44, 40


def main() -> None:
    """Draws the picture."""
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    parts = [
        panel(rows, name, metric, (LEFT + x * (WIDTH + GAP), TOP + y * (HEIGHT + GAP)))
        for x, name in enumerate(COLUMNS)
        for y, metric in enumerate(ROWS)
    ]
    width, height = LEFT + 3 * (WIDTH + GAP), TOP + 2 * (HEIGHT + GAP)
    named = enumerate(COLOURS.items())
    legend = "".join(f'<text x="{LEFT + 90 * i}" y="14" fill="{colour}">{name}</text>' for i, (name, colour) in named)
    size, font = f'viewBox="0 0 {width} {height}"', 'font-family="sans-serif" font-size="11"'
    PICTURE.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font}>'
        f'<rect width="{width}" height="{height}" fill="white"/>{legend}{"".join(parts)}</svg>\n'
    )


def panel(rows: list[dict], column: str, metric: str, corner: tuple[int, int]) -> str:
    """One set of axes with its lines."""
    title, top = ROWS[metric]
    own = [row for row in rows if row["name"].startswith(column + "-")]
    last = max(row["minutes"] for row in own)
    x0, y0 = corner

    def place(row: dict) -> str:
        x, y = row["minutes"] / last, min(row[metric] / top, 1)
        return f"{x0 + x * WIDTH:.1f},{y0 + HEIGHT * (1 - y):.1f}"

    shapes = [f'<rect x="{x0}" y="{y0}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#999"/>']
    for tick in (0.0, top / 2, top):
        y = y0 + HEIGHT * (1 - tick / top)
        shapes.append(f'<text x="{x0 - 5}" y="{y + 4:.1f}" text-anchor="end" fill="#555">{tick:.2g}</text>')
        shapes.append(f'<line x1="{x0}" x2="{x0 + WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
    for minute in range(1, int(last) + 1):
        x = x0 + WIDTH * minute / last
        shapes.append(f'<text x="{x:.1f}" y="{y0 + HEIGHT + 13}" text-anchor="middle" fill="#555">{minute}</text>')
    shapes.append(f'<text x="{x0}" y="{y0 - 6}" font-weight="bold">{COLUMNS[column]}: {title}</text>')
    for objective, colour in COLOURS.items():
        runs = [row for row in own if row["name"] == f"{column}-{objective}"]
        for seed in sorted({row["seed"] for row in runs}):
            points = " ".join(place(row) for row in runs if row["seed"] == seed)
            shapes.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
    return "".join(shapes)


if __name__ == "__main__":
    main()
