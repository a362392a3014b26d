"""Style pivots, their files and their book."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from models import pivots
from models.core import StylePivot
from models.errors import (
    CheckpointError,
    Conflict,
    InputError,
    MalformedInput,
    OutOfRange,
    Protected,
    TooLarge,
    UnknownName,
    UnsupportedMedia,
)
from models.pivots import StyleBook, load_styles, pivot_bytes, read_pivot, save_styles

WIDTHS = {"motion": 12, "wrinkle": 20}


def pivot(id: str = "calm", seed: int = 0, parts: tuple[str, ...] = pivots.PARTS, width: int | None = None):
    draw = np.random.default_rng(seed)
    latents = {part: draw.standard_normal(width or size).astype(np.float32) for part, size in WIDTHS.items()}
    chosen = {part: latents[part] if part in parts else None for part in pivots.PARTS}
    return StylePivot(id, f"{id} it is", "a test", {"lip_mm": 1.5, "seed": seed}, **chosen)


CALM, LIVELY, OLD = pivot("calm", 1), pivot("lively", 2), pivot("old", 3, ("wrinkle",))
SHIPPED = (CALM, LIVELY, OLD)


def same(one: StylePivot, other: StylePivot) -> bool:
    """Every field, latents bit for bit."""
    return pivot_bytes(one) == pivot_bytes(other)


def file_of(header: object, **tensors: np.ndarray) -> BytesIO:
    text = header if isinstance(header, str) else json.dumps(header)
    return BytesIO(save(tensors, metadata={"talker": text}))


def header(about: object, **changes: object) -> dict[str, object]:
    config = {"autoencoders": "", "pivots": about}
    return {"kind": pivots.KIND, "format": pivots.FORMAT, "config": config} | changes


ABOUT = {"description": "", "origin": "", "statistics": {}}
LATENTS = np.ones(3, np.float32)


@pytest.mark.parametrize("one", [CALM, OLD, pivot("m", 4, ("motion",))], ids=lambda one: one.id)
def test_a_pivot_is_read_as_it_was_written(one: StylePivot) -> None:
    read = read_pivot(BytesIO(pivot_bytes(one)))
    assert (read.id, read.description, read.origin, read.statistics) == (
        one.id,
        one.description,
        one.origin,
        one.statistics,
    )
    for part in pivots.PARTS:
        wanted, came = getattr(one, part), getattr(read, part)
        assert (came is None) == (wanted is None)
        assert wanted is None or (came.dtype == np.float32 and came.tobytes() == wanted.tobytes())


def test_the_same_pivot_gives_the_same_bytes_in_any_process() -> None:
    code = (
        "import sys, numpy as np; from models.core import StylePivot; from models.pivots import pivot_bytes;"
        "p = StylePivot('a', 'd', 'o', {'y': 1, 'x': 2.5}, np.arange(5, dtype=np.float32), None);"
        "sys.stdout.buffer.write(pivot_bytes(p, 'f'))"
    )
    runs = {subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout for _ in range(3)}
    own = StylePivot("a", "d", "o", {"x": 2.5, "y": 1}, np.arange(5, dtype=np.float32), None)
    assert runs == {pivot_bytes(own, "f")}


def test_pivots_do_without_torch() -> None:
    """The service imports them."""
    code = "import models.pivots, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_pivot_is_read_from_the_beginning_wherever_the_file_stands() -> None:
    file = BytesIO(pivot_bytes(CALM))
    file.read()
    assert same(read_pivot(file), CALM)


@pytest.mark.parametrize(
    ("written", "wanted"), [("a", "a"), ("", "a"), ("a", "")], ids=["the same", "unsaid by the file", "unsaid by us"]
)
def test_fingerprints_that_do_not_differ_pass(written: str, wanted: str) -> None:
    assert same(read_pivot(BytesIO(pivot_bytes(CALM, written)), wanted), CALM)


def test_a_pivot_of_other_autoencoders_is_refused() -> None:
    with pytest.raises(MalformedInput, match="wanted b") as refusal:
        read_pivot(BytesIO(pivot_bytes(CALM, "a")), "b")
    assert refusal.value.code == "other_autoencoders"


@pytest.mark.parametrize(
    "file",
    [
        BytesIO(),
        BytesIO(b"RIFF" * 10),
        BytesIO(b"PK\x03\x04" + bytes(2 * pivots.MAX_BYTES)),
        BytesIO((10).to_bytes(8, "little") + b"{}"),
        BytesIO(pivot_bytes(CALM)[:-1]),
        BytesIO(pivot_bytes(CALM)[:40]),
        BytesIO(save({"a": LATENTS})),
        file_of("{"),
        file_of("[" * 100_000),
        file_of([]),
        file_of(header({}, kind="mmtalker")),
        file_of(header({}, format=2)),
    ],
)
def test_what_is_no_pivot_file_is_refused(file: BytesIO) -> None:
    with pytest.raises(UnsupportedMedia, match="wanted a style pivot") as refusal:
        read_pivot(file)
    assert refusal.value.code == "not_a_pivot"


@pytest.mark.parametrize(
    "file",
    [
        file_of(header(None)),
        file_of(header({})),
        file_of({"kind": pivots.KIND, "format": 1}),
        file_of(header({"a": ABOUT, "b": ABOUT}), **{"a.motion": LATENTS, "b.motion": LATENTS}),
        file_of(header({"a": ABOUT}), **{"a.motion": LATENTS, "b.motion": LATENTS}),
        file_of(header({"a": {"description": ""}}), **{"a.motion": LATENTS}),
        file_of(header({"a": ABOUT | {"statistics": {"x": "much"}}}), **{"a.motion": LATENTS}),
        file_of(header({"a": ABOUT | {"statistics": {"x": None}}}), **{"a.motion": LATENTS}),
        file_of(header({"a": ABOUT | {"statistics": {"x": float("nan")}}}), **{"a.motion": LATENTS}),
        file_of(header({"a": ABOUT}), **{"a.motion": LATENTS * np.nan}),
        file_of(header({"a": ABOUT}), **{"a.motion": LATENTS.astype(np.float64)}),
        file_of(header({"a": ABOUT}), **{"a.motion": LATENTS.reshape(1, 3)}),
        file_of(header({"a": []}), **{"a.motion": LATENTS}),
    ],
)
def test_a_damaged_pivot_is_refused(file: BytesIO) -> None:
    with pytest.raises(MalformedInput):
        read_pivot(file)


@pytest.mark.parametrize("id", ["", "A", "../a", "a" * 65, "a.b", "-a"])
def test_a_pivot_with_an_id_that_is_none_is_refused(id: str) -> None:
    with pytest.raises(OutOfRange):
        read_pivot(file_of(header({id: ABOUT}), **{f"{id}.motion": LATENTS}))


def test_a_pivot_without_latents_is_refused() -> None:
    with pytest.raises(OutOfRange):
        read_pivot(file_of(header({"a": ABOUT})))


def test_a_pivot_over_the_limit_is_refused() -> None:
    with pytest.raises(TooLarge, match="1,048,576"):
        read_pivot(BytesIO(pivot_bytes(pivot(width=pivots.MAX_BYTES // 8 + 1))))


def test_shipped_styles_are_read_as_they_were_written(tmp_path: Path) -> None:
    save_styles(tmp_path / "styles.safetensors", reversed(SHIPPED), "f")
    read = load_styles(tmp_path / "styles.safetensors", "f")
    assert [one.id for one in read] == ["calm", "lively", "old"]
    assert all(map(same, read, SHIPPED))


def test_the_shipped_styles_are_a_checkpoint(tmp_path: Path) -> None:
    from models.checkpoint import read_header

    save_styles(tmp_path / "styles.safetensors", SHIPPED, "f")
    assert read_header(tmp_path / "styles.safetensors").kind == pivots.KIND


@pytest.mark.parametrize("damage", ["missing", "cut", "other autoencoders"])
def test_shipped_styles_that_cannot_be_used_are_a_fault_of_the_weights(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "styles.safetensors"
    if damage != "missing":
        save_styles(path, SHIPPED, "a")
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"styles\.safetensors"):
        load_styles(path, "b")


@pytest.mark.parametrize("expression", ["calm", "calm(0.3)", "calm(2)+lively(0)", '{"calm": 1e-9}', "calm+calm"])
@pytest.mark.parametrize("part", pivots.PARTS)
def test_a_style_alone_is_itself_bit_for_bit(expression: str, part: pivots.Part) -> None:
    tricky = np.array([-0.0, 0.0, 1e-40, 3.4e38, 1 / 3] + [0.1] * 15, np.float32)[: WIDTHS[part]]
    own = StylePivot("calm", "", "", {}, tricky, tricky)
    assert StyleBook([own, pivot("lively", width=len(tricky))]).mix(expression, part).tobytes() == tricky.tobytes()


def test_a_mix_is_the_weighted_mean() -> None:
    mixed = StyleBook(SHIPPED).mix("calm(3)+lively(1)", "motion")
    assert mixed.dtype == np.float32
    np.testing.assert_allclose(mixed, 0.75 * CALM.motion + 0.25 * LIVELY.motion, atol=1e-6)


def test_the_order_of_the_terms_does_not_matter() -> None:
    """Latents whose float64 sum depends on the order, by weights whose sum does not."""
    latents = {"a": 1e20, "b": 1.0, "c": -1e20}
    book = StyleBook([StylePivot(id, "", "", {}, np.full(3, value, np.float32), None) for id, value in latents.items()])
    assert len({book.mix("+".join(order), "motion").tobytes() for order in permutations(latents)}) == 1


def test_a_mix_moves_from_one_style_to_the_other() -> None:
    book = StyleBook(SHIPPED)
    mixes = [book.mix(f"calm({1 - share})+lively({share})", "motion") for share in (0, 0.25, 0.5, 0.75, 1)]
    away = [float(np.linalg.norm(mixed - CALM.motion)) for mixed in mixes]
    assert away[0] == 0
    assert away == sorted(away)
    assert mixes[-1].tobytes() == LIVELY.motion.tobytes()


def test_a_style_without_the_part_is_unknown_with_those_that_have_it() -> None:
    with pytest.raises(UnknownName) as refusal:
        StyleBook(SHIPPED).mix("calm+old", "motion")
    assert (refusal.value.known, refusal.value.field) == (["calm", "lively"], "motion_style")


def test_a_mix_of_parts_is_kept_as_a_style() -> None:
    book = StyleBook(SHIPPED)
    made = book.add_mix("mine", " calm+lively", "old", "half and half")
    assert book["mine"] is made
    assert (made.origin, made.statistics) == ("mix of motion calm+lively, wrinkle old", {})
    assert made.motion.tobytes() == book.mix("calm+lively", "motion").tobytes()
    assert book.mix("mine", "wrinkle").tobytes() == OLD.wrinkle.tobytes()


def test_a_mix_may_have_one_part_but_not_none() -> None:
    book = StyleBook(SHIPPED)
    assert book.add_mix("mine", None, "old").motion is None
    with pytest.raises(OutOfRange):
        book.add_mix("none", None, None)
    with pytest.raises(UnknownName) as refusal:
        book.add_mix("bad", "old", None)
    assert refusal.value.field == "motion"
    assert set(book) == {"calm", "lively", "old", "mine"}


def test_styles_survive_a_restart(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "styles"
    book = StyleBook(SHIPPED, folder, "f")
    own = pivot("mine", 9)
    book.add(own)
    assert list(folder.iterdir()) == [folder / "mine.pivot"]
    later = StyleBook(SHIPPED, folder, "f")
    assert list(later) == ["calm", "lively", "old", "mine"]
    assert same(later["mine"], own)
    later.remove("mine")
    assert list(StyleBook(SHIPPED, folder, "f")) == ["calm", "lively", "old"]
    later.add(own)
    assert len(later) == 4


def test_an_id_that_exists_is_refused(tmp_path: Path) -> None:
    book = StyleBook(SHIPPED, tmp_path)
    book.add(pivot("mine", 1))
    for id in ("mine", "calm"):
        with pytest.raises(Conflict) as refusal:
            book.add(pivot(id, 7))
        assert (refusal.value.code, refusal.value.field) == ("id_exists", "id")
    assert same(StyleBook(SHIPPED, tmp_path)["mine"], pivot("mine", 1))


def test_a_shipped_style_stays(tmp_path: Path) -> None:
    book = StyleBook(SHIPPED, tmp_path)
    with pytest.raises(Protected) as refusal:
        book.remove("calm")
    assert refusal.value.code == "shipped_style"
    assert "calm" in book


def test_an_unknown_style_cannot_be_removed() -> None:
    with pytest.raises(UnknownName, match="known: calm, lively, old"):
        StyleBook(SHIPPED).remove("clam")


def test_latents_of_another_length_are_refused() -> None:
    book = StyleBook(SHIPPED)
    with pytest.raises(MalformedInput, match="wanted 12") as refusal:
        book.add(pivot("mine", width=13))
    assert refusal.value.code == "other_autoencoders"
    assert len(book) == 3


def test_a_full_book_takes_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pivots, "MAX_MADE", 1)
    book = StyleBook(SHIPPED)
    book.add(pivot("mine"))
    with pytest.raises(TooLarge):
        book.add(pivot("more"))


def test_files_that_cannot_be_used_are_logged_and_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = {
        "damaged": b"nonsense",
        "empty": b"",
        "other": pivot_bytes(pivot("other"), "another"),
        "long": pivot_bytes(pivot("long", width=13)),
        "renamed": pivot_bytes(pivot("someone")),
        "calm": pivot_bytes(pivot("calm", 5)),
        "good": pivot_bytes(pivot("good"), "f"),
    }
    for name, data in files.items():
        (tmp_path / f"{name}.pivot").write_bytes(data)
    (tmp_path / "half.partial").write_bytes(b"half")
    book = StyleBook(SHIPPED, tmp_path, "f")
    assert list(book) == ["calm", "lively", "old", "good"]
    assert same(book["calm"], CALM)
    assert len(caplog.records) == 6
    assert all((tmp_path / f"{name}.pivot").read_bytes() == data for name, data in files.items())


def test_a_file_that_could_not_be_read_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "mine.pivot").write_bytes(b"from another version")
    with pytest.raises(Conflict):
        StyleBook(SHIPPED, tmp_path).add(pivot("mine"))
    assert (tmp_path / "mine.pivot").read_bytes() == b"from another version"


def test_a_write_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = StyleBook(SHIPPED, tmp_path)

    def fail(path: Path, target: Path) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        with pytest.raises(OSError, match="disk full"):
            book.add(pivot("mine"))
    assert "mine" not in book
    assert "mine" not in StyleBook(SHIPPED, tmp_path)
    book.add(pivot("mine"))


def test_of_many_threads_one_adds_an_id_and_nothing_is_lost(tmp_path: Path) -> None:
    book = StyleBook(SHIPPED, tmp_path)

    def add(seed: int) -> bool:
        try:
            book.add(pivot(f"style{seed % 10}", seed))
        except InputError:
            return False
        return book.mix(f"style{seed % 10}+calm", "motion").size == WIDTHS["motion"]

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(add, range(80))) == 10
    assert len(book) == 13
    assert all(same(book[id], other) for id, other in StyleBook(SHIPPED, tmp_path).items())
