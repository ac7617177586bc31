"""`generate.py explore`: the page in the browser."""

import webbrowser
from pathlib import Path

import click

from dnnlib.cli import Command
from training.sampling.commands.options import NETWORK, PLUGINS, WIDE, load_generator
from training.sampling.explorer import serve


@click.command(cls=Command, context_settings=WIDE)
@NETWORK
@click.option("--port", type=click.IntRange(0, 65535), default=8765, show_default=True, help="0: any free one")
@click.option("--open/--no-open", "browse", default=True, show_default=True, help="Open the page in a browser")
@PLUGINS
def explore(network: str, port: int, browse: bool, plugins: tuple[str, ...]) -> None:
    """A local web page (127.0.0.1 only): seed, truncation, noise, class, mixing, and attention at a click."""
    server = serve(load_generator(network, plugins), Path(network).name, port)
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
