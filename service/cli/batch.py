"""`talker batch`: every audio file of a folder."""

import argparse
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from models.errors import InputError, MalformedInput
from service.cli.animate import animator
from service.cli.options import FORMATS, add_form, add_server, form_fields, form_files
from service.cli.outcomes import FAILED, REFUSED, is_refusal
from service.cli.paths import opened
from service.cli.there import server_of
from talker_client.problems import StreamCut, TalkerBusy, TalkerProblem

SUFFIXES = (".aac", ".aif", ".aiff", ".caf", ".flac", ".m4a", ".mp3", ".mp4", ".oga", ".ogg", ".opus", ".wav", ".webm")
WORKERS_THERE = 4
"""Files at once through a service, which may have that many slots; here one takes every core."""


@dataclass(frozen=True)
class Task:
    """A file, and what it becomes."""

    speech: Path
    output: Path


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "batch",
        help="animate every audio file of a folder",
        description="Animate every audio file of a folder, with one engine, or with --server through a service. What "
        "is there already, by its name, is left as it is; a file that is refused is told at the end, and the others "
        "are made. The exit code is 2 where one was refused, 1 where something broke.",
        epilog=FORMATS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help=f"files that end in {', '.join(SUFFIXES)}")
    parser.add_argument("-o", "--output", type=Path, metavar="OUT", required=True, help="a folder; made if need be")
    parser.add_argument(
        "--workers", type=int, metavar="N", help=f"files at once (default: 1, with --server {WORKERS_THERE})"
    )
    add_form(parser, "see below (default: glb)")
    add_server(parser)
    parser.set_defaults(run=batch)


def batch(options: argparse.Namespace) -> int:
    """Make what is missing; returns the exit code."""
    from service.formats import format_named

    workers = options.workers if options.workers is not None else 1 if server_of(options) is None else WORKERS_THERE
    if workers < 1:
        raise MalformedInput(f"workers = {workers}; wanted 1 or more: ask for one", field="workers")
    name = format_named(options.format or "glb")
    tasks = tasks_of(options.folder, options.output, name)
    left = [task for task in tasks if not task.output.exists()]
    options.output.mkdir(parents=True, exist_ok=True)
    with animator(options) as place:

        def made(task: Task) -> Exception | None:
            """None, or why this file alone could not be made."""
            try:
                with opened({"audio": task.speech} | form_files(options)) as files:
                    place.animate(form_fields(options) | {"format": name}, files, task.output)
            except (InputError, StreamCut, TalkerProblem) as error:
                if isinstance(error, TalkerBusy):
                    raise
                return error
            return None

        failures = [(task, error) for task, error in _each(made, left, workers) if error is not None]
    return _told(len(tasks) - len(left), len(left) - len(failures), failures)


def tasks_of(folder: Path, output: Path, format_name: str) -> list[Task]:
    """The audio files of a folder by name, and what each becomes. MalformedInput where two would become one."""
    from service.encoders import ENCODERS

    if not folder.is_dir():
        raise MalformedInput(f"{folder} is no folder; wanted one with audio files: check the path", field="folder")
    tasks: dict[Path, Task] = {}
    for speech in sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file()):
        task = Task(speech, output / (speech.stem + ENCODERS[format_name].extension))
        if task.output in tasks:
            raise MalformedInput(
                f"{tasks[task.output].speech.name} and {speech.name} would both become {task.output.name}; wanted "
                "names that differ before the suffix: rename one",
                field="folder",
            )
        tasks[task.output] = task
    if not tasks:
        raise MalformedInput(f"{folder} holds no audio file; wanted {', '.join(SUFFIXES)}: check it", field="folder")
    return list(tasks.values())


def _each(
    make: Callable[[Task], Exception | None], tasks: list[Task], workers: int
) -> Iterator[tuple[Task, Exception | None]]:
    """Each task and what came of it, with a bar on stderr where that is a terminal; one worker is this thread."""
    from tqdm import tqdm

    with ThreadPoolExecutor(workers) as pool:
        results = map(make, tasks) if workers == 1 else pool.map(make, tasks)
        yield from zip(tasks, tqdm(results, total=len(tasks), unit=" files", leave=False, disable=None), strict=True)


def _told(there: int, written: int, failures: list[tuple[Task, Exception]]) -> int:
    for task, error in failures:
        print(f"talker: {task.speech.name}: {error}", file=sys.stderr)
    refused = sum(is_refusal(error) for _, error in failures)
    broken = len(failures) - refused
    print(f"{written} written, {there} there already, {refused} refused, {broken} broken off")
    return FAILED if broken else REFUSED if refused else 0
