"""Templates as files, and the book that keeps them."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file
from tiny import shipped_head, tiny_head
from tiny_uploads import FakeRegistration, mesh_file, same_template

from models import templates
from models.errors import CheckpointError, Conflict, OutOfRange, Protected, TooLarge, UnknownName
from models.template import Template, default_template
from models.template_file import Origin, StoredTemplate, read_facts, read_template, save_template
from models.templates import TemplateBook

ORIGIN = Origin.of(tiny_head(), 1)


def registered(id: str = "mine") -> Template:
    return FakeRegistration().template(id)


def book(folder: Path | None = None, origin: Origin | None = ORIGIN) -> TemplateBook:
    return TemplateBook([default_template(tiny_head())], folder, origin)


@pytest.mark.parametrize(
    "template",
    [
        registered(),
        replace(registered(), mesh=replace(registered().mesh, base_color_png=b"\x89PNG")),
        replace(registered(), form=None, report=None, mesh=replace(registered().mesh, source=None), regions={}),
        default_template(tiny_head()),
        FakeRegistration(shipped_head()).template("large", mesh_file(shipped_head(), 0.3)),
    ],
    ids=["all", "textured", "bare", "default", "large"],
)
def test_a_template_is_read_as_it_was_written(template: Template, tmp_path: Path) -> None:
    """Every field and every number, bit for bit; the facts are those of the whole."""
    save_template(tmp_path / "t", template, ORIGIN)
    assert same_template(read_template(tmp_path / "t", ORIGIN), template)
    facts = read_facts(tmp_path / "t", ORIGIN)
    for name in ("id", "licence", "vertex_count", "face_count", "region_sizes", "report"):
        assert same_template(getattr(facts, name), getattr(template, name)), name
    assert same_template(facts.mesh, template.mesh)
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


def test_the_same_template_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        save_template(tmp_path / name, registered(), ORIGIN)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_book_does_without_torch() -> None:
    """The service imports it."""
    code = "import models.templates, models.uploads, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def changed(path: Path, **changes: object) -> None:
    """The file with another header."""
    with safe_open(path, framework="numpy") as file:
        header = json.loads(file.metadata()["talker"]) | changes
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a mapping
    save_file(arrays, path, metadata={"talker": json.dumps(header)})


def damage(path: Path, how: str) -> None:
    if how == "cut":
        path.write_bytes(path.read_bytes()[:-9])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "no header":
        save_file({"maps": np.zeros(1)}, path)
    elif how == "other version":
        changed(path, origin={"head": ORIGIN.head, "version": 2})
    else:
        changed(path, **{how: None})


DAMAGES = ("cut", "empty", "no header", "other version", "kind", "format", "origin")


@pytest.mark.parametrize("how", [*DAMAGES, "head"])
def test_what_cannot_be_read_is_refused_and_left_aside(
    how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, other = tmp_path / "mine.template", Origin("other", 1)
    save_template(path, registered(), other if how == "head" else ORIGIN)
    save_template(tmp_path / "good.template", registered("good"), ORIGIN)
    if how != "head":
        damage(path, how)
    for read in (read_template, read_facts):
        with pytest.raises(CheckpointError, match="no template of this head"):
            read(path, ORIGIN)
    assert set(book(tmp_path)) == {"default", "good"}
    assert f"left out: {path}" in caplog.text
    assert path.exists()


def test_users_templates_survive_a_restart(tmp_path: Path) -> None:
    first = book(tmp_path)
    first.add(registered("one"))
    first.add(registered("two"))
    first.remove("two")
    later = book(tmp_path)
    assert set(later) == {"default", "one"}
    assert isinstance(later["one"], StoredTemplate)
    assert same_template(later.open("one"), registered("one"))
    assert later.open("one") is later.open("one")
    assert [path.name for path in tmp_path.iterdir()] == ["one.template"]


def test_without_a_folder_they_last_as_long_as_the_book() -> None:
    own = book()
    template = registered()
    own.add(template)
    assert own.open("mine") is template
    assert own["default"] is own.open("default")
    assert set(book()) == {"default"}


def test_an_id_is_given_once(tmp_path: Path) -> None:
    own = book(tmp_path)
    own.add(registered())
    for id in ("mine", "default"):
        with pytest.raises(Conflict, match=f"there is a template {id} already") as refusal:
            own.add(registered(id))
        assert (refusal.value.code, refusal.value.field) == ("id_exists", "name")
    own.remove("mine")
    own.add(registered())


def test_of_many_that_add_one_id_at_once_one_does(tmp_path: Path) -> None:
    own = book(tmp_path)

    def add(_: int) -> bool:
        try:
            own.add(registered())
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(add, range(8))) == 1


def test_a_file_that_cannot_be_used_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.template").write_bytes(b"of somebody else")
    with pytest.raises(Conflict, match=r"mine\.template exists"):
        book(tmp_path).add(registered())
    assert (tmp_path / "mine.template").read_bytes() == b"of somebody else"


@pytest.mark.parametrize("id", ["", "My", "../x", "a" * 65, "-a", "a b"])
def test_what_is_no_id_is_refused(id: str) -> None:
    with pytest.raises(OutOfRange, match="template id") as refusal:
        book().add(registered(id))
    assert refusal.value.field == "name"


def test_there_may_be_no_more_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "MAX_MADE", 2)
    own = book()
    own.add(registered("a"))
    own.add(registered("b"))
    with pytest.raises(TooLarge, match="the limit is 2"):
        own.add(registered("c"))


def test_the_shipped_one_stays_and_an_unknown_one_cannot_go(tmp_path: Path) -> None:
    own = book(tmp_path)
    with pytest.raises(Protected) as protected:
        own.remove("default")
    assert (protected.value.code, protected.value.field) == ("shipped_template", "template")
    for act in (own.remove, own.open):
        with pytest.raises(UnknownName, match="known: default"):
            act("nobody")


def test_a_stored_template_of_a_shipped_id_or_another_name_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, id in (("default", "default"), ("yours", "mine")):
        save_template(tmp_path / f"{name}.template", registered(id), ORIGIN)
    assert set(book(tmp_path)) == {"default"}
    assert caplog.text.count("rename or remove it") == 2
