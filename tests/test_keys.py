"""The file of API keys, and the command that writes it."""

import os
from hashlib import sha256
from pathlib import Path

import pytest

from models.errors import Conflict, MalformedInput, UnknownName
from service import cli
from service.keys import KeyRing, add_key, read_keys, remove_key


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def test_a_key_opens_under_its_name_and_only_whole(path: Path) -> None:
    key, other = (add_key(path, name).encode() for name in ("mia", "render-farm"))
    ring = KeyRing(path)
    assert [ring.name_of(k) for k in (key, other)] == ["mia", "render-farm"]
    for wrong in (b"", key[:-1], key + b"=", key.swapcase(), sha256(key).hexdigest().encode(), b"mia"):
        assert ring.name_of(wrong) is None


def test_the_file_holds_no_key_and_is_its_owners_alone(path: Path) -> None:
    key = add_key(path, "mia")
    assert len(key) == 43
    assert path.read_text() == f"mia:{sha256(key.encode()).hexdigest()}\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_comments_outlive_what_is_added_and_removed(path: Path) -> None:
    path.write_text("# the studio's\n\n")
    add_key(path, "mia")
    add_key(path, "mia.2")
    remove_key(path, "mia")
    assert list(read_keys(path)) == ["mia.2"]
    assert path.read_text().startswith("# the studio's\n\nmia.2:")


def test_what_changes_in_the_file_changes_at_once(path: Path) -> None:
    mia = add_key(path, "mia").encode()
    ring = KeyRing(path)
    leo = add_key(path, "leo").encode()
    assert ring.name_of(leo) == "leo"
    remove_key(path, "mia")
    assert (ring.name_of(mia), ring.name_of(leo)) == (None, "leo")


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_text("mia=1234")])
def test_a_file_that_is_gone_or_damaged_lets_nobody_in(path: Path, spoil, caplog: pytest.LogCaptureFixture) -> None:
    """Until it is whole again; the log says so once."""
    key = add_key(path, "mia").encode()
    ring, whole = KeyRing(path), path.read_text()
    spoil(path)
    assert [ring.name_of(key), ring.name_of(key)] == [None, None]
    assert caplog.text.count("no API key is accepted any more") == 1
    path.write_text(whole)
    assert ring.name_of(key) == "mia"


def test_a_file_open_to_others_is_warned_of(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    add_key(path, "mia")
    KeyRing(path)
    os.chmod(path, 0o640)  # as an orchestrator mounts a secret for a group
    KeyRing(path)
    assert caplog.text == ""
    os.chmod(path, 0o644)
    KeyRing(path)
    assert "chmod 600" in caplog.text


@pytest.mark.parametrize(
    "line",
    ["mia", "mia:1234", f"mia:{'g' * 64}", f"mi a:{'0' * 64}", f"mia:{'0' * 64}\nmia:{'1' * 64}", f":{'0' * 64}"],
)
def test_a_line_that_is_no_key_is_refused(path: Path, line: str) -> None:
    path.write_text(f"# keys\n{line}\n")
    with pytest.raises(MalformedInput, match=r"line [23] of .*talker keys add"):
        KeyRing(path)


def test_a_file_that_is_none_is_refused(path: Path) -> None:
    for none in (path, path.parent):
        with pytest.raises(MalformedInput, match="TALKER_KEYS"):
            KeyRing(none)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(MalformedInput, match="cannot be read"):
        KeyRing(path)


@pytest.mark.parametrize("name", ["", "mia:", "# mia", "a b", "a" * 65, "mi\na"])
def test_a_name_that_is_none_is_refused(path: Path, name: str) -> None:
    with pytest.raises(MalformedInput, match="as the name of a key"):
        add_key(path, name)
    assert not path.exists()


def test_names_are_there_once(path: Path) -> None:
    add_key(path, "mia")
    with pytest.raises(Conflict, match="remove it first"):
        add_key(path, "mia")
    with pytest.raises(UnknownName, match="known: mia"):
        remove_key(path, "leo")


def test_the_command_makes_lists_and_removes(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["keys", "add", "mia"]) == cli.REFUSED
    assert "TALKER_KEYS is not set" in capsys.readouterr().err
    monkeypatch.setenv("TALKER_KEYS", str(path))
    assert cli.main(["keys", "add", "mia"]) == 0
    key = capsys.readouterr().out.strip()
    assert KeyRing(path).name_of(key.encode()) == "mia"
    assert cli.main(["keys", "list"]) == 0
    assert capsys.readouterr().out == "mia\n"
    assert cli.main(["keys", "remove", "mia"]) == 0
    assert read_keys(path) == {}
