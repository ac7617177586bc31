"""A page on this machine to turn a generator's knobs: seed, truncation, noise, class, mixing, attention."""

import io
import json
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import torch
from PIL import Image

from dnnlib.errors import UserError
from training.networks.shared.generator import NOISE_MODES, Generator, NoiseMode
from training.sampling.attention.maps import Point, attention_maps, layer_maps
from training.sampling.attention.picture import overlay
from training.sampling.directions.factorisation import Directions
from training.sampling.labels import drawn_labels
from training.sampling.pictures import enlarged, to_pil
from training.sampling.seeds import class_label, images_of_styles, styles_of_seeds
from training.sampling.sheets import mixed, sheet_scale

HOST = "127.0.0.1"  # never anything else: there is no login
PAGE = Path(__file__).with_name("explorer.html")
SHOWN = 512  # pixels: about the size at which images are shown
GROUPS = ("coarse", "middle", "fine")


@dataclass
class View:
    """What the page asks to see."""

    seed: int = 0
    psi: float = 1.0
    guidance: float = 1.0
    level: int | None = None  # which output of a generator with several, None: the last one, the picture
    noise_mode: NoiseMode = "const"
    class_index: int | None = None
    other_seed: int | None = None  # style mixing with this seed
    groups: tuple[str, ...] = ()  # style groups that come from it
    at: Point | None = None  # attention of the query here
    layer: str | None = None  # attention of this layer
    head: int | None = None  # None: the mean over heads
    amounts: tuple[float, ...] = ()  # along each of the directions, in standard deviations


def view_of(query: str) -> View:
    """URL query -> View. UserError for values that make no sense."""
    given = {name: values[-1] for name, values in parse_qs(query).items()}
    try:
        y, x = (float(given[name]) if name in given else None for name in ("y", "x"))
        view = View(
            seed=int(given.get("seed", "0")),
            psi=float(given.get("psi", "1")),
            guidance=float(given.get("guidance", "1")),
            level=int(given["level"]) if "level" in given else None,
            noise_mode=given.get("noise", "const"),  # type: ignore[arg-type]
            class_index=int(given["class"]) if "class" in given else None,
            other_seed=int(given["other"]) if "other" in given else None,
            groups=tuple(g for g in given.get("groups", "").split(",") if g),
            at=None if y is None or x is None else (y, x),
            layer=given.get("layer"),
            head=int(given["head"]) if "head" in given else None,
            amounts=tuple(float(a) for a in given.get("d", "").split(",") if a),
        )
    except ValueError as e:
        raise UserError(f"not a number: {e}") from e
    if view.at is not None and not all(math.isfinite(v) for v in view.at):
        raise UserError("a query is at a finite place")
    if not all(-20 <= amount <= 20 for amount in view.amounts):
        raise UserError("a direction's amount lies between -20 and 20")
    for seed in (view.seed, view.other_seed or 0):
        if not 0 <= seed < 2**32:
            raise UserError(f"seed {seed} is not between 0 and 2^32 - 1")
    if view.noise_mode not in NOISE_MODES or set(view.groups) - set(GROUPS):
        raise UserError("unknown noise mode or style group")
    for name, value in (("truncation", view.psi), ("guidance", view.guidance)):
        if not -5 <= value <= 5:
            raise UserError(f"{name} {value} is not between -5 and 5")
    return view


def style_groups(num_ws: int) -> dict[str, list[int]]:
    """The styles in three groups, as even as can be."""
    cuts = [round(i * num_ws / 3) for i in range(4)]
    return {name: list(range(cuts[i], cuts[i + 1])) for i, name in enumerate(GROUPS)}


class Explorer:
    """Renders views of one generator, one at a time."""

    def __init__(self, G: Generator, name: str, directions: Directions | None = None):
        self._G, self._lock, self._directions = G, threading.Lock(), directions
        self._groups = style_groups(G.num_ws)
        self._scale = sheet_scale(G.picture_size, SHOWN)
        self._info = {
            "name": name,
            "kind": G.cfg.kind,
            "size": list(G.picture_size),
            "levels": G.num_levels,
            "guidance": G.mapping.guidance is not None,
            "classes": G.c_dim if G.label_vectors is None else 0,  # vectors come with the seed
            "groups": {g: [i[0], i[-1]] if i else [] for g, i in self._groups.items()},
            "layers": self._layers(),
            "directions": 0 if directions is None else len(directions.vectors),
        }

    def _layers(self) -> dict[str, int]:
        """Attention layers and their heads."""
        if all(layer_maps.dispatch(type(m)) is layer_maps.dispatch(object) for m in self._G.modules()):
            return {}
        ws = styles_of_seeds(self._G, [0], self._label(seed=0, class_index=0))
        return {name: len(m) for name, m in attention_maps(self._G, ws, (0.5, 0.5))[1].items()}

    def info(self) -> dict[str, object]:
        """What the page has to know of the network."""
        return self._info

    def picture(self, view: View) -> Image.Image:
        """The view's image, under the attention if a query is chosen."""
        with self._lock:
            if self._G.mapping.guidance is not None:
                self._G.mapping.guidance = view.guidance
            ws = self._styles(view)
            if view.level is not None and view.at is None:
                return self._level(view.level, ws, view.noise_mode)
            if view.at is None:
                image = images_of_styles(self._G, ws, view.noise_mode, [view.seed])[0]
                return enlarged(to_pil(image), self._scale)
            return self._attention(view, ws)

    @torch.no_grad()
    def _level(self, level: int, ws: torch.Tensor, noise_mode: NoiseMode) -> Image.Image:
        """One of the generator's outputs, coarsest first."""
        levels = self._G.levels(ws, noise_mode="const" if noise_mode == "random" else noise_mode)
        if not 0 <= level < len(levels):
            raise UserError(f"no level {level}: this network has {len(levels)}")
        return enlarged(to_pil(self._G.space.to_pixels(levels[level])[0].cpu()), self._scale)

    def _label(self, seed: int, class_index: int | None) -> torch.Tensor:
        """[1, c_dim]: the class, or where labels are vectors the seed's own."""
        if self._G.label_vectors is not None:
            return drawn_labels(self._G, [seed])
        return class_label(self._G, class_index if self._G.c_dim else None)

    def _styles(self, view: View) -> torch.Tensor:
        G = self._G
        c = self._label(view.seed, view.class_index)
        ws = styles_of_seeds(G, [view.seed], c, view.psi)
        if view.other_seed is not None:
            chosen = [i for group in view.groups for i in self._groups[group]]
            ws = mixed(ws, styles_of_seeds(G, [view.other_seed], c, view.psi), chosen)
        known = 0 if self._directions is None else len(self._directions.vectors)
        if len(view.amounts) > known:
            raise UserError(f"{len(view.amounts)} amounts, but {known} directions are loaded")
        return ws if self._directions is None else self._directions.moved(ws, view.amounts)

    def _attention(self, view: View, ws: torch.Tensor) -> Image.Image:
        mode: NoiseMode = "const" if view.noise_mode == "random" else view.noise_mode
        image, maps = attention_maps(self._G, ws, view.at, mode)
        layer = view.layer or next(iter(maps))
        if layer not in maps or (view.head is not None and not 0 <= view.head < len(maps[layer])):
            raise UserError(f"no layer {layer} with head {view.head}; layers: {', '.join(maps)}")
        chosen = maps[layer].mean(0) if view.head is None else maps[layer][view.head]
        return overlay(self._G.space.to_pixels(image)[0].cpu(), chosen, view.at, self._scale)


def _handler(explorer: Explorer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            # A page elsewhere may point its own host name at 127.0.0.1; its requests carry that name.
            if (self.headers.get("Host") or "").rsplit(":", 1)[0] not in (HOST, "localhost"):
                self._send(403, "text/plain", b"only for this machine")
                return
            path = urlsplit(self.path)
            routes: dict[str, Callable[[str], None]] = {"/": self._page, "/info": self._info, "/image": self._image}
            route = routes.get(path.path)
            if route is None:
                self._send(404, "text/plain", b"nothing here")
                return
            try:
                route(path.query)
            except UserError as e:
                self._send(400, "text/plain; charset=utf-8", str(e).encode())
            except ConnectionError:
                self.close_connection = True  # the page was closed in the meantime

        def _page(self, query: str) -> None:
            self._send(200, "text/html; charset=utf-8", PAGE.read_bytes())

        def _info(self, query: str) -> None:
            self._send(200, "application/json", json.dumps(explorer.info()).encode())

        def _image(self, query: str) -> None:
            buffer = io.BytesIO()
            explorer.picture(view_of(query)).save(buffer, "PNG")
            self._send(200, "image/png", buffer.getvalue())

        def _send(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """A line per request would bury the address on the terminal."""

    return Handler


class _Server(ThreadingHTTPServer):
    request_queue_size = 512  # connections that may wait to be accepted: a page asks for many pictures at once
    daemon_threads = True


def serve(G: Generator, name: str, port: int, directions: Directions | None = None) -> ThreadingHTTPServer:
    """A server for 127.0.0.1 only, not yet running (`serve_forever`); port 0 takes a free one.

    UserError if the port is taken.
    """
    try:
        return _Server((HOST, port), _handler(Explorer(G, name, directions)))
    except OSError as e:
        raise UserError(f"--port={port}: {e.strerror}; choose another one") from e
