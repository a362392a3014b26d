"""`talker jobs`: animations that a service makes while nobody waits."""

import argparse
import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from service.cli.options import add_form, add_output, add_server, add_speech, form_fields, form_files
from service.cli.paths import checked_output, opened
from service.cli.there import asked

if TYPE_CHECKING:
    from talker_client.cards import JobCard


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "jobs",
        help="long audio, by jobs of a service",
        description="Submit speech to a service as a job, follow it and fetch its result. The service is --server, or "
        "TALKER_SERVER.",
        allow_abbrev=False,
    )
    add_server(parser)
    parser.set_defaults(run=list_jobs)
    actions = parser.add_subparsers(title="actions", metavar="action")
    _add_action(actions, "list", list_jobs, "print a line a job")
    submit_action = _add_action(actions, "submit", submit, "submit speech, and print the job's id")
    add_speech(submit_action)
    add_form(submit_action, "as of `talker animate` (default: glb)")
    for name, run, text in (
        ("show", show, "print how a job stands, as JSON"),
        ("wait", wait, "return when a job is done, and fetch it if an output is given"),
        ("result", result, "fetch what a job made; goes on where it was cut"),
        ("cancel", cancel, "stop a job, and drop what it made"),
    ):
        action = _add_action(actions, name, run, text)
        action.add_argument("id", metavar="ID")
        if name in ("wait", "result"):
            add_output(action, required=name == "result")


def list_jobs(options: argparse.Namespace) -> None:
    """Print a line a job."""
    with asked(options) as talker:
        for job in talker.jobs():
            print(f"{job.id:34}{job.state:11}{job.progress:>4.0%}")


def submit(options: argparse.Namespace) -> None:
    """Submit speech; print the job's id alone."""
    with asked(options) as talker, opened({"audio": options.speech} | form_files(options)) as files:
        audio = files.pop("audio")
        print(talker.submit(audio, **form_fields(options), **files).id)  # type: ignore[arg-type]


def show(options: argparse.Namespace) -> None:
    """Print the card of a job."""
    with asked(options) as talker:
        print(json.dumps(talker.job(options.id).card, indent=2))


def wait(options: argparse.Namespace) -> None:
    """Follow a job to its end, with a bar on stderr where that is a terminal."""
    from tqdm import tqdm

    output = None if options.output is None else checked_output(options.output)
    with asked(options) as talker:
        job = talker.job(options.id)
        with tqdm(total=100, unit="%", leave=False, disable=None) as bar:

            def progress(card: "JobCard") -> None:
                bar.update(100 * card["progress"] - bar.n)

            job.wait(progress)
        if output is None:
            print(f"{job.id} is done; talker jobs result {job.id} -o FILE")
        else:
            job.result(output)
            print(f"wrote {options.output}")


def result(options: argparse.Namespace) -> None:
    """Fetch the result of a job that is done."""
    output = checked_output(options.output)
    with asked(options) as talker:
        talker.job(options.id).result(output)
    print(f"wrote {options.output}")


def cancel(options: argparse.Namespace) -> None:
    """Stop a job."""
    with asked(options) as talker:
        talker.job(options.id).cancel()
    print(f"cancelled {options.id}")


def _add_action(
    actions: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    run: Callable[[argparse.Namespace], None],
    text: str,
) -> argparse.ArgumentParser:
    action = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False)
    add_server(action)
    action.set_defaults(run=run)
    return action
