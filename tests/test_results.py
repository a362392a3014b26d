"""Where results are kept: one law for a folder and for object stores."""

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("obstore")

from obstore.exceptions import GenericError

from models.errors import Busy
from service.jobs import objects, results
from service.jobs.objects import ObjectResults, UnknownStore
from service.jobs.results import FolderResults, ResultStore

Open = Callable[[Path], ResultStore]
CONTENT = bytes(range(256)) * 40
STORES: dict[str, Open] = {
    "folder": lambda path: FolderResults(path / "results"),
    "file://": lambda path: ObjectResults(f"file://{path}/some where"),
    "memory://": lambda path: ObjectResults("memory:///"),
}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ResultStore:
    """Each kind, read in pieces of 1000 bytes."""
    monkeypatch.setattr(results, "PIECE", 1000)
    monkeypatch.setattr(objects, "PIECE", 1000)
    return STORES[request.param](tmp_path)


@pytest.fixture
def draft(tmp_path: Path) -> Path:
    path = tmp_path / "draft"
    path.write_bytes(CONTENT)
    return path


def test_what_was_put_is_read_whole_and_in_part(store: ResultStore, draft: Path) -> None:
    store.put("a", draft)
    assert not draft.exists()
    for start, stop in ((0, len(CONTENT)), (3, 9), (999, 2001), (5000, len(CONTENT))):
        pieces = list(store.read("a", start, stop))
        assert b"".join(pieces) == CONTENT[start:stop]
        assert max(map(len, pieces)) <= 1000


def test_a_result_put_again_replaces_the_first(store: ResultStore, draft: Path) -> None:
    store.put("a", draft)
    draft.write_bytes(b"another")
    store.put("a", draft)
    assert b"".join(store.read("a", 0, 7)) == b"another"


def test_what_was_deleted_is_gone_and_may_be_deleted_again(store: ResultStore, draft: Path) -> None:
    store.put("a", draft)
    store.delete("a")
    store.delete("a")
    with pytest.raises(FileNotFoundError):
        list(store.read("a", 0, 1))


@pytest.mark.parametrize("url", ["nonsense", "ftp://host/path", "s3://"])
def test_another_url_is_refused(url: str) -> None:
    with pytest.raises(UnknownStore, match="s3://bucket/prefix"):
        ObjectResults(url)


def test_a_store_that_does_not_answer_is_busy(draft: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the draft stays."""
    store = ObjectResults("memory:///")

    def fail(*_: object) -> None:
        raise GenericError("no route to host")

    monkeypatch.setattr("obstore.put", fail)
    with pytest.raises(Busy, match="does not answer") as refused:
        store.put("a", draft)
    assert refused.value.code == "storage_unreachable"
    assert draft.read_bytes() == CONTENT


def test_an_object_stores_bucket_is_named_by_the_url() -> None:
    assert "S3Store" in repr(ObjectResults("s3://bucket/prefix")._store)
