"""`talker templates`: the heads, here or of a service."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

from models.files import whole_file
from service.cli.here import open_engine, read_form, read_settings
from service.cli.options import add_server
from service.cli.paths import checked_output, opened
from service.cli.there import asked, server_of


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "templates",
        help="list the heads, or keep one of your own",
        description="List the heads that --template may name, add one of your own, or remove it. They lie in "
        "TALKER_TEMPLATES; a service that is running sees them when it starts again, or with --server at once.",
        allow_abbrev=False,
    )
    add_server(parser)
    parser.set_defaults(run=templates)
    actions = parser.add_subparsers(title="actions", metavar="action")
    add = actions.add_parser(
        "add",
        help="register a head and keep it",
        description="Place a head of any topology, unit and up axis on the atlas, and keep it; docs/heads.md explains "
        "the report.",
        allow_abbrev=False,
    )
    add.add_argument("mesh", type=Path, metavar="FILE", help="OBJ, PLY or GLB")
    add.add_argument("--name", help="its id (default: head- and 12 hex digits of what the files hold)")
    add.add_argument(
        "--texture", type=Path, metavar="FILE", help="its texture at rest, PNG or JPEG, instead of its own"
    )
    add.add_argument("--landmarks", type=Path, metavar="FILE", help="JSON that says where places of the face are")
    add.add_argument("--preview", type=Path, metavar="PNG", help="where to save a picture of it")
    add_server(add)
    add.set_defaults(run=add_template)
    remove = actions.add_parser("remove", help="remove a head that was added", allow_abbrev=False)
    remove.add_argument("id", metavar="ID")
    add_server(remove)
    remove.set_defaults(run=remove_template)


def templates(options: argparse.Namespace) -> None:
    """Print a line a head."""
    if server_of(options) is None:
        for id, template in sorted(open_engine(read_settings()).templates.items()):
            _print(id, template.vertex_count, template.face_count, template.licence)
        return
    with asked(options) as talker:
        for card in talker.templates():
            _print(card["id"], card["vertices"], card["faces"], card["licence"])


def add_template(options: argparse.Namespace) -> None:
    """Register a head and keep it, then print the report."""
    picture = None if options.preview is None else checked_output(options.preview)
    started = perf_counter()
    if server_of(options) is None:
        id, report, preview = _added_here(options, picture is not None)
    else:
        id, report, preview = _added_there(options, picture is not None)
    print(f"registered {id} in {perf_counter() - started:.1f} s; talker animate --template {id}")
    if report is not None:
        _print_report(report)
    if picture is not None:
        with whole_file(picture) as out:
            out.write(preview)
        print(f"wrote {options.preview}")


def remove_template(options: argparse.Namespace) -> None:
    """Remove a head that was added."""
    if server_of(options) is None:
        open_engine(read_settings()).remove_template(options.id)
    else:
        with asked(options) as talker:
            talker.delete_template(options.id)
    print(f"removed {options.id}")


Added = tuple[str, Mapping[str, Any] | None, bytes]
"""Id, report, and picture where one is wanted."""


def _added_here(options: argparse.Namespace, wants_picture: bool) -> Added:
    from service.schemas import ReportCard, TemplateForm
    from service.templates import register_and_add

    settings = read_settings()
    with opened(_uploads(options)) as files:
        form = read_form(TemplateForm, {"name": options.name}, files)
        engine = open_engine(settings)
        if form.name is not None:
            engine.check_free(form.name)
        template = register_and_add(engine, form, settings.mesh_limits)
    report = None if template.report is None else ReportCard.model_validate(template.report).model_dump()
    return template.id, report, engine.preview(template) if wants_picture else b""


def _added_there(options: argparse.Namespace, wants_picture: bool) -> Added:
    with asked(options) as talker:
        with opened(_uploads(options)) as files:
            card = talker.add_template(
                files["mesh"], name=options.name, texture=files.get("texture"), landmarks=files.get("landmarks")
            )
        return card["id"], card["report"], talker.template_preview(card["id"]).read() if wants_picture else b""


def _uploads(options: argparse.Namespace) -> dict[str, Path | None]:
    return {"mesh": options.mesh, "texture": options.texture, "landmarks": options.landmarks}


def _print(id: str, vertices: int, faces: int, licence: str) -> None:
    print(f"{id:24}{vertices:>9,} vertices {faces:>9,} faces  {licence}")


def _print_report(report: Mapping[str, Any]) -> None:
    print(
        f"  off the face    {report['registration_error_mm']:.2f} mm, at the lips {report['lips_error_mm']:.2f} mm "
        "(medians)"
    )
    print(f"  one unit        {report['unit_m']:g} m, {report['up_axis']} up, {report['forward_axis']} forward")
    for piece in report["components"]:
        print(f"  {piece['kind']:16}{piece['vertices']:,} vertices, {piece['faces']:,} faces")
    print(f"  holes           {report['holes']}")
    for name, place in sorted(report["landmarks"].items()):
        print(f"  {name:16}{' '.join(f'{number:g}' for number in place)}")
    for warning in report["warnings"]:
        print(f"  warning         {warning}")
