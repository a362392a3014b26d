"""`talker styles`."""

import argparse

from service.cli.here import open_engine, read_settings
from service.cli.options import add_server
from service.cli.there import asked, server_of


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "styles",
        help="list the styles",
        description="List the styles that --style may name: id, what it styles, and what it looks like.",
        allow_abbrev=False,
    )
    add_server(parser)
    parser.set_defaults(run=styles)


def styles(options: argparse.Namespace) -> None:
    """Print a line a style."""
    if server_of(options) is None:
        for id, style in sorted(open_engine(read_settings()).styles.items()):
            _print(id, style.motion is not None, style.wrinkle is not None, style.description)
        return
    with asked(options) as talker:
        for card in talker.styles():
            _print(card["id"], card["motion"], card["wrinkle"], card["description"])


def _print(id: str, motion: bool, wrinkle: bool, description: str) -> None:
    parts = [name for name, has in (("motion", motion), ("wrinkles", wrinkle)) if has]
    print(f"{id:24}{'+'.join(parts):17}{description}")
