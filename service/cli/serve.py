"""`talker serve`."""

import argparse

from service.cli.here import read_settings


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "serve",
        help="serve the HTTP API",
        description="Serve the HTTP API until SIGTERM or Ctrl-C. TALKER_* variables set it up, see docs/settings.md.",
        allow_abbrev=False,
    )
    parser.add_argument("--host", help="address to listen on, instead of TALKER_HOST's")
    parser.add_argument("--port", help="port to listen on, instead of TALKER_PORT's; 0 takes a free one")
    parser.set_defaults(run=serve)


def serve(options: argparse.Namespace) -> None:
    """Serve until a signal. SystemExit with the reason when the engine does not start."""
    settings = read_settings(host=options.host, port=options.port)
    from service.app import create_app
    from service.server import Server

    Server(create_app(settings)).run()
