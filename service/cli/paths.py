"""Files that the command line names: read, or written whole."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from models.errors import MalformedInput


@contextmanager
def opened(paths: Mapping[str, Path | None]) -> Iterator[dict[str, BinaryIO]]:
    """The files that are asked for, by field. MalformedInput for one that cannot be read."""
    with ExitStack() as held:
        yield {field: held.enter_context(_open(path, field)) for field, path in paths.items() if path is not None}


def checked_output(output: Path) -> Path:
    """The path with links followed, so that what they point to is replaced. Refuses what no file can be written to."""
    path = output.resolve()
    if not path.parent.is_dir():
        raise MalformedInput(f"{output} lies in no folder that exists; make {path.parent} first", field="output")
    if path.exists() and not path.is_file():
        raise MalformedInput(f"{output} is no regular file; wanted a file to write: choose another", field="output")
    return path


def format_of(output: Path) -> str:
    """The one format that writes such files; MalformedInput where there is none, or several."""
    from service.encoders import ENCODERS

    fitting = [name for name, encoder in ENCODERS.items() if encoder.extension == output.suffix.lower()]
    if len(fitting) != 1:
        raise MalformedInput(
            f"{output.name} does not tell the format; it may be {', '.join(fitting or ENCODERS)}: add --format",
            field="format",
        )
    return fitting[0]


def _open(path: Path, field: str) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        message = f"{path} cannot be read ({error.strerror}); wanted the file for {field}: check the path"
        raise MalformedInput(message, field=field) from error
