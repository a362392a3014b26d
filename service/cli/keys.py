"""`talker keys`: who may use the service."""

import argparse
from pathlib import Path

from models.errors import MalformedInput
from service.cli.here import read_settings


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `keys` and its actions."""
    parser = commands.add_parser(
        "keys",
        help="make, list and remove API keys",
        description="Make, list and remove the API keys of the file TALKER_KEYS. A service that is running sees it at "
        "once.",
        allow_abbrev=False,
    )
    actions = parser.add_subparsers(title="actions", metavar="action", required=True)
    for name, run, text in (
        ("add", add_key, "make a key and print it; it cannot be had again"),
        ("list", list_keys, "print the names"),
        ("remove", remove_key, "let a key in no longer"),
    ):
        action = actions.add_parser(name, help=text, allow_abbrev=False)
        if run is not list_keys:
            action.add_argument("name", metavar="NAME", help="who uses it, as it stands in logs")
        action.set_defaults(run=run)


def list_keys(options: argparse.Namespace) -> None:
    """Print the name of each API key."""
    from service.keys import read_keys

    print(*read_keys(_keys_file()), sep="\n")


def add_key(options: argparse.Namespace) -> None:
    """Make an API key, and print it, alone on stdout."""
    from service.keys import add_key

    print(add_key(_keys_file(), options.name))


def remove_key(options: argparse.Namespace) -> None:
    """Take an API key off the file."""
    from service.keys import remove_key

    remove_key(_keys_file(), options.name)
    print(f"removed {options.name}")


def _keys_file() -> Path:
    if (path := read_settings().keys) is None:
        raise MalformedInput("TALKER_KEYS is not set; wanted the file of API keys: set it", field="keys")
    return path
