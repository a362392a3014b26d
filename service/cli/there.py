"""A service, as commands ask it."""

import argparse
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from models.errors import MalformedInput
from models.files import whole_file
from service.cli.outcomes import Made

if TYPE_CHECKING:
    from talker_client.client import Talker

SERVER, API_KEY = "TALKER_SERVER", "TALKER_API_KEY"
RETRIES = 20
"""Of a request that finds the service busy: whoever waits at a terminal or for a batch rather waits than fails."""


class There:
    """Animates through a service."""

    def __init__(self, talker: "Talker") -> None:
        self._talker = talker

    def animate(self, fields: Mapping[str, Any], files: Mapping[str, BinaryIO], output: Path) -> Made:
        """Write one animation, whole or not at all. Raises what the service refuses."""
        from tqdm import tqdm

        given = {**fields, **files}
        with (
            self._talker.animate(given.pop("audio"), **given) as animation,
            whole_file(output) as file,
            tqdm(unit="B", unit_scale=True, leave=False, disable=None) as bar,
        ):
            for chunk in animation:
                bar.update(file.write(chunk))
        return Made(animation.frame_count, animation.fps)


def server_of(options: argparse.Namespace) -> str | None:
    """The service that is to be asked; None where this process does the work."""
    return getattr(options, "server", None) or os.environ.get(SERVER) or None


@contextmanager
def asked(options: argparse.Namespace) -> Iterator["Talker"]:
    """The service that is to be asked. MalformedInput where none is named."""
    from talker_client.client import Talker

    if (server := server_of(options)) is None:
        raise MalformedInput(f"no service is named; wanted its address: give --server URL, or set {SERVER}")
    with Talker(server, os.environ.get(API_KEY) or None, retries=RETRIES) as talker:
        yield talker
