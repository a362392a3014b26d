"""Heads that come as files: what is checked, what dresses them, and that each is registered but once."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import tiny_head
from tiny_uploads import FakeRegistration, picture, same_template

from models.errors import InputError, MalformedInput, OutOfRange, TooLarge, UnsupportedMedia
from models.meshes.record import MeshFile, MeshLimits
from models.registrations import Registrations
from models.template import Template
from models.template_file import Origin
from models.uploads import MAX_LANDMARK_BYTES, Upload, Uploads, read_landmarks

LIMITS = MeshLimits()
NOSE = b'{"nose_tip": [0, 1.5, -2e-3]}'


def upload(mesh: bytes = b"head 1", texture: bytes | None = None, landmarks: bytes | None = None) -> Upload:
    return Upload(BytesIO(mesh), texture, landmarks)


def decoded(png: bytes) -> np.ndarray:
    with Image.open(BytesIO(png)) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        return np.asarray(image)


# Once.


def test_the_same_upload_is_registered_once_and_not_after_a_restart(tmp_path: Path) -> None:
    made = FakeRegistration()
    first = Uploads(tiny_head(), tmp_path, made.ways)
    template = first.template(upload(texture=picture(64, 64)), LIMITS, id="one")
    again = first.template(upload(texture=picture(64, 64)), LIMITS, id="two")
    later = Uploads(tiny_head(), tmp_path, made.ways).template(upload(texture=picture(64, 64)), LIMITS, id="one")
    assert made.registered == ["one"]
    assert again.id == "two"
    assert same_template(template, later)
    assert same_template(template, replace(again, id="one"))


@pytest.mark.parametrize(
    "other",
    [
        upload(b"head 1.5"),
        upload(texture=picture(64, 64)),
        upload(landmarks=NOSE),
        upload(landmarks=b'{"nose_tip": [0, 1.5, -3e-3]}'),
    ],
    ids=["mesh", "texture", "landmarks", "other landmarks"],
)
def test_another_upload_is_registered_anew(other: Upload, tmp_path: Path) -> None:
    made = FakeRegistration()
    uploads = Uploads(tiny_head(), tmp_path, made.ways)
    for each in (upload(), upload(landmarks=b' {"chin":[1,1,1]}'), other):
        uploads.template(each, LIMITS)
    assert len(made.registered) == len(set(made.registered)) == 3


def test_another_version_other_limits_another_head_or_other_shapes_register_anew(tmp_path: Path) -> None:
    made, head = FakeRegistration(), tiny_head()
    moved = replace(head, atlas=replace(head.atlas, vertices=head.atlas.vertices + np.float32(1)))
    Uploads(head, tmp_path, made.ways).template(upload(), LIMITS)
    Uploads(head, tmp_path, made.ways).template(upload(), replace(LIMITS, max_vertices=10_000))
    Uploads(head, tmp_path, replace(made.ways, version=made.ways.version + 1)).template(upload(), LIMITS)
    Uploads(moved, tmp_path, made.ways).template(upload(), LIMITS)
    Uploads(head, tmp_path, replace(made.ways, shapes="others")).template(upload(), LIMITS)
    assert len(made.registered) == 5


def test_landmarks_are_the_same_however_they_are_written(tmp_path: Path) -> None:
    made = FakeRegistration()
    uploads = Uploads(tiny_head(), tmp_path, made.ways)
    for text in (b'{"nose_tip": [0, 1, 2], "chin": [0, 0, 0]}', b'{"chin":[0.0,0,0],\n"nose_tip":[0,1.0,2]}'):
        uploads.template(upload(landmarks=text), LIMITS)
    assert len(made.registered) == 1
    assert made.landmarks == [{"nose_tip": (0.0, 1.0, 2.0), "chin": (0.0, 0.0, 0.0)}]


def test_without_an_id_the_content_names_it() -> None:
    """The same name for the same files, another for others; it fits the rule of ids."""
    uploads = Uploads(tiny_head(), None, FakeRegistration().ways)
    names = [uploads.template(each, LIMITS).id for each in (upload(), upload(), upload(landmarks=NOSE))]
    assert names[0] == names[1] != names[2]
    assert all(len(name) == 17 and int(name.removeprefix("head-"), 16) for name in names)


def test_two_that_ask_at_once_register_once(tmp_path: Path) -> None:
    """The second waits for the first; a third, with another head, does not."""
    made = FakeRegistration()
    uploads, entered, gate = Uploads(tiny_head(), tmp_path, made.ways), threading.Event(), threading.Event()

    def hold(step: str) -> None:
        entered.set()
        assert gate.wait(20)

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(uploads.template, upload(), LIMITS, id="first", progress=hold)
        assert entered.wait(20)
        second = pool.submit(uploads.template, upload(), LIMITS, id="second")
        other = pool.submit(uploads.template, upload(b"head 2"), LIMITS, id="other")
        assert other.result(20).id == "other"
        assert not second.done()
        gate.set()
        assert (first.result(20).id, second.result(20).id) == ("first", "second")
    assert made.registered == ["other", "first"]


def test_a_client_who_leaves_ends_the_work_and_whoever_waits_does_it(tmp_path: Path) -> None:
    made = FakeRegistration()
    uploads = Uploads(tiny_head(), tmp_path, made.ways)

    def leave(step: str) -> None:
        raise RuntimeError(step)

    with pytest.raises(RuntimeError, match="reading the file"):
        uploads.template(upload(), LIMITS, progress=leave)
    assert made.registered == []
    assert uploads.template(upload(), LIMITS, id="mine").id == "mine"


def test_every_step_is_told() -> None:
    steps: list[str] = []
    Uploads(tiny_head(), None, FakeRegistration().ways).template(upload(), LIMITS, progress=steps.append)
    assert steps == ["reading the file", "reading its texture", "registering"]


def test_the_least_recently_used_registrations_are_dropped(tmp_path: Path) -> None:
    made, origin = FakeRegistration(), Origin.of(tiny_head(), 1)
    kept = Registrations(tmp_path, origin, most=2)
    asked: list[str] = []

    def get(content: str) -> None:
        def make() -> Template:
            asked.append(content)
            return made.template(content)

        kept.get(content, make)

    for content in ("a", "b", "a", "c", "a", "b"):
        get(content)
    assert asked == ["a", "b", "c", "b"]
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["a", "b"]


def test_registrations_stay_under_their_bytes_though_one_is_always_kept(tmp_path: Path) -> None:
    made = FakeRegistration()
    kept = Registrations(tmp_path, Origin.of(tiny_head(), 1), most_bytes=1)
    for content in ("a", "b"):
        kept.get(content, partial(made.template, content))
    assert [path.stem for path in tmp_path.iterdir()] == ["b"]


@pytest.mark.parametrize("damage", [bytes, lambda data: data[:-8], lambda data: b"x" + data])
def test_a_damaged_registration_is_made_anew(
    damage: Callable[[bytes], bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = FakeRegistration()
    uploads = Uploads(tiny_head(), tmp_path, made.ways)
    uploads.template(upload(), LIMITS)
    (file,) = tmp_path.iterdir()
    file.write_bytes(damage(file.read_bytes()) if damage is not bytes else b"")
    uploads.template(upload(), LIMITS)
    assert len(made.registered) == 2
    assert "made anew" in caplog.text


def test_a_folder_that_cannot_be_written_only_forgets(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_bytes(b"")
    made = FakeRegistration()
    uploads = Uploads(tiny_head(), tmp_path / "file" / "folder", made.ways)
    for _ in range(2):
        assert uploads.template(upload(), LIMITS, id="mine").id == "mine"
    assert len(made.registered) == 2
    assert "not remembered" in caplog.text


# Texture.


@pytest.mark.parametrize(
    ("size", "wanted"),
    [((64, 64), 64), ((100, 100), 100), ((100, 60), 128), ((64, 128), 128), ((1, 1), 16), ((8, 3), 16)],
)
def test_a_texture_of_any_aspect_becomes_square(size: tuple[int, int], wanted: int) -> None:
    """A square one that is large enough stays as it is, texel for texel."""
    sent = picture(*size)
    png = Uploads(tiny_head(), None, FakeRegistration().ways).template(upload(texture=sent), LIMITS).mesh.base_color_png
    assert png is not None
    image = decoded(png)
    assert image.shape == (wanted, wanted, 3)
    if size == (wanted, wanted):
        assert np.array_equal(image, decoded(sent))


def test_the_files_own_texture_is_taken_unless_another_came() -> None:
    ways = FakeRegistration(texture=picture(64, 64, 1)).ways
    own, other = (
        Uploads(tiny_head(), None, ways).template(upload(texture=sent), LIMITS).mesh.base_color_png
        for sent in (None, picture(64, 64, 2))
    )
    assert own is not None
    assert other is not None
    assert np.array_equal(decoded(own), decoded(picture(64, 64, 1)))
    assert np.array_equal(decoded(other), decoded(picture(64, 64, 2)))


def test_without_uvs_the_files_own_texture_has_no_place() -> None:
    ways = FakeRegistration(texture=picture(64, 64), uvs=False).ways
    assert Uploads(tiny_head(), None, ways).template(upload(), LIMITS).mesh.base_color_png is None


# Refusals, and the field that they name.


@pytest.mark.parametrize(
    ("came", "error", "code", "field"),
    [
        (upload(b"cube"), UnsupportedMedia, "not_a_mesh", "mesh"),
        (upload(b"closed"), OutOfRange, "mouth_sealed", "mesh"),
        (upload(texture=b"no picture"), UnsupportedMedia, "bad_texture", "texture"),
        (upload(texture=picture(64, 64)[:-40]), MalformedInput, "bad_texture", "texture"),
        (upload(landmarks=b"{"), MalformedInput, "malformed", "landmarks"),
        (upload(landmarks=b"\xff"), MalformedInput, "malformed", "landmarks"),
        (upload(landmarks=b"[" * 50_000), MalformedInput, "malformed", "landmarks"),
        (upload(landmarks=b"[1, 2, 3]"), MalformedInput, "malformed", "landmarks"),
        (upload(landmarks=b"{}"), OutOfRange, "unknown_landmark", "landmarks"),
        (upload(landmarks=b'{"nose": [1, 2, 3]}'), OutOfRange, "unknown_landmark", "landmarks"),
        (upload(landmarks=b'{"nose_tip": [1, 2]}'), MalformedInput, "malformed", "landmarks"),
        (upload(landmarks=b'{"nose_tip": "1 2 3"}'), MalformedInput, "malformed", "landmarks"),
        (upload(landmarks=b'{"nose_tip": [1, 2, true]}'), MalformedInput, "malformed", "landmarks"),
        (upload(landmarks=b'{"nose_tip": [1, 2, NaN]}'), MalformedInput, "not_finite", "landmarks"),
        (upload(landmarks=b'{"nose_tip": [1, 2, 1e999]}'), MalformedInput, "not_finite", "landmarks"),
        (upload(landmarks=b'{"nose_tip": [1, 2, %s]}' % (b"9" * 400)), MalformedInput, "not_finite", "landmarks"),
        (upload(landmarks=b" " * (MAX_LANDMARK_BYTES + 1)), TooLarge, "too_large", "landmarks"),
    ],
)
def test_what_cannot_be_used_is_refused(came: Upload, error: type[InputError], code: str, field: str) -> None:
    with pytest.raises(error) as refusal:
        Uploads(tiny_head(), None, FakeRegistration().ways).template(came, LIMITS)
    assert (refusal.value.code, refusal.value.field) == (code, field)


def test_landmarks_that_do_not_fit_are_the_landmarks_fault() -> None:
    """Where the registration says so itself."""
    made = FakeRegistration(refusal=OutOfRange("a nose behind the head; look again", field="landmarks"))
    with pytest.raises(OutOfRange) as refusal:
        Uploads(tiny_head(), None, made.ways).template(upload(landmarks=NOSE), LIMITS)
    assert refusal.value.field == "landmarks"


def test_a_texture_for_a_mesh_without_uvs_is_refused() -> None:
    with pytest.raises(OutOfRange, match="without uvs") as refusal:
        Uploads(tiny_head(), None, FakeRegistration(uvs=False).ways).template(upload(texture=picture(64, 64)), LIMITS)
    assert (refusal.value.code, refusal.value.field) == ("impossible_combination", "texture")


def test_an_id_that_is_none_is_refused() -> None:
    with pytest.raises(OutOfRange, match="template id 'My Head'"):
        Uploads(tiny_head(), None, FakeRegistration().ways).template(upload(), LIMITS, id="My Head")


def test_the_limits_reach_the_reader() -> None:
    seen: list[MeshLimits] = []
    ways = FakeRegistration().ways

    def read(file: object, limits: MeshLimits) -> MeshFile:
        seen.append(limits)
        return ways.read(BytesIO(b"head 1"), limits)

    limits = MeshLimits(max_vertices=7)
    Uploads(tiny_head(), None, replace(ways, read=read)).template(upload(), limits)
    assert seen == [limits]


def test_landmarks_are_places_by_name() -> None:
    places = {"chin": [1, 2.5, -3]}
    assert read_landmarks(json.dumps(places).encode(), ("nose_tip", "chin")) == {"chin": (1.0, 2.5, -3.0)}
