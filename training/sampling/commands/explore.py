"""`generate.py explore`: the page in the browser."""

import webbrowser
from pathlib import Path

import click

from dnnlib.cli import PATH, Command
from training.sampling.commands.options import NETWORK, PLUGINS, WIDE, load_generator
from training.sampling.directions.factorisation import Directions
from training.sampling.explorer import serve


@click.command(cls=Command, context_settings=WIDE)
@NETWORK
@click.option("--port", type=click.IntRange(0, 65535), default=8765, show_default=True, help="0: any free one")
@click.option("--directions", type=PATH, help="A slider for each direction of this file of generate.py directions")
@click.option("--open/--no-open", "browse", default=True, show_default=True, help="Open the page in a browser")
@PLUGINS
def explore(network: str, port: int, directions: str | None, browse: bool, plugins: tuple[str, ...]) -> None:
    """A local web page (127.0.0.1 only): seed, truncation, noise, class, mixing, and attention at a click."""
    G = load_generator(network, plugins)
    found = None if directions is None else Directions.load(directions, G)
    server = serve(G, Path(network).name, port, found)
    url = f"http://{server.server_address[0]!s}:{server.server_address[1]}/"
    click.echo(f"{url} (stop with Ctrl-C)")
    if browse:
        webbrowser.open(url)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        click.echo("stopped")
    finally:
        server.server_close()
