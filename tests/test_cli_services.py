"""The commands that ask a service, or work through a folder, and the check-up."""

import io
import json
import subprocess
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from conftest import FakeEngine, wav
from fastapi import FastAPI
from test_stream import serving

from models.errors import CheckpointError
from service import cli
from service.cli import checkup, there
from service.settings import Settings


def run(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


@pytest.fixture(autouse=True)
def loaded(monkeypatch: pytest.MonkeyPatch, engine: FakeEngine) -> list[FakeEngine]:
    """`load_engine` gives the fake engine; each call is counted."""
    calls: list[FakeEngine] = []
    monkeypatch.setattr("models.engine.load_engine", lambda **_: calls.append(engine) or engine)
    return calls


@pytest.fixture
def server(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(there, "RETRIES", 0)
    with serving(app) as connect, connect() as probe:
        yield "http://{}:{}".format(*probe.getpeername())


@pytest.fixture
def settings() -> Settings:
    """Room for as many as a batch sends at once."""
    return Settings(port=0, queue=8, log_level="warning")


@pytest.fixture
def speeches(tmp_path: Path) -> Path:
    """A folder with two speeches, one file that is none, and one that is not meant."""
    folder = tmp_path / "speeches"
    folder.mkdir()
    for name, content in (("a.wav", wav()), ("b.WAV", wav(0.4)), ("c.mp3", b"words"), ("notes.txt", b"words")):
        (folder / name).write_bytes(content)
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def answering(monkeypatch: pytest.MonkeyPatch, **answers: Any) -> list[httpx2.Request]:
    """A service that answers each `METHOD_path` with a list of responses, the last one again and again."""
    seen: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        request.read()
        seen.append(request)
        left = answers[request.method + request.url.path.replace("/", "_")]
        return left.pop(0) if len(left) > 1 else left[0]

    monkeypatch.setenv("TALKER_SERVER", "http://talker.test")
    opened = httpx2.Client
    monkeypatch.setattr(
        "talker_client.client.Client", lambda **given: opened(transport=httpx2.MockTransport(answer), **given)
    )
    return seen


def job_card(state: str, progress: float = 0.0) -> httpx2.Response:
    return httpx2.Response(200, json={"id": "j1", "state": state, "progress": progress, "eta_s": 1.5, "position": None})


@pytest.mark.parametrize("form", [["--format", "npz-stream"], []])
def test_a_batch_makes_every_speech_and_tells_what_was_refused(
    form: list[str], speeches: Path, tmp_path: Path, loaded: list[FakeEngine], capsys: pytest.CaptureFixture[str]
) -> None:
    """With one engine; the bytes are those of `talker animate`."""
    suffix = ".frames" if form else ".glb"
    assert run("batch", speeches, "-o", tmp_path / "deep" / "out", *form) == cli.REFUSED
    out, err = capsys.readouterr()
    assert out == "2 written, 0 there already, 1 refused, 0 broken off\n"
    (line,) = err.splitlines()
    assert line.startswith("talker: c.mp3: a file that does not decode")
    assert names(tmp_path / "deep" / "out") == [f"a{suffix}", f"b{suffix}"]
    assert len(loaded) == 1
    assert run("animate", speeches / "a.wav", "-o", tmp_path / f"a{suffix}") == 0
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / "deep" / "out" / f"a{suffix}").read_bytes()


def test_what_is_there_is_left_as_it_is(
    speeches: Path, tmp_path: Path, engine: FakeEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    (speeches / "c.mp3").unlink()
    (tmp_path / "a.glb").write_bytes(b"of yesterday")
    assert run("batch", speeches, "-o", tmp_path) == 0
    assert capsys.readouterr().out == "1 written, 1 there already, 0 refused, 0 broken off\n"
    assert (tmp_path / "a.glb").read_bytes() == b"of yesterday"
    assert len(engine.calls) == 1


def test_a_batch_through_a_service_writes_the_same(server: str, speeches: Path, tmp_path: Path) -> None:
    assert run("batch", speeches, "-o", tmp_path / "here", "--fps", 24, "--style", "calm") == cli.REFUSED
    options = ["--fps", 24, "--style", "calm", "--workers", 2, "--server", server]
    assert run("batch", speeches, "-o", tmp_path / "there", *options) == cli.REFUSED
    assert names(tmp_path / "here") == names(tmp_path / "there") == ["a.glb", "b.glb"]
    for name in ("a.glb", "b.glb"):
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()


def test_a_stream_that_breaks_off_does_not_end_the_batch(
    server: str, speeches: Path, tmp_path: Path, engine: FakeEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    """b is longer, and fails at a frame that a does not have; it leaves no file."""
    engine.fail_at = 8
    options = ["--format", "npz-stream", "--workers", 1, "--server", server]
    assert run("batch", speeches, "-o", tmp_path / "out", *options) == cli.FAILED
    out, err = capsys.readouterr()
    assert out == "1 written, 0 there already, 1 refused, 1 broken off\n"
    assert "talker: b.WAV: the answer broke off" in err
    assert names(tmp_path / "out") == ["a.frames"]


@pytest.mark.parametrize(("failure", "code"), [(KeyboardInterrupt(), cli.INTERRUPTED), (OSError("full"), cli.FAILED)])
@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_no_files_fault_ends_the_batch(
    failure: BaseException, code: int, workers: int, speeches: Path, tmp_path: Path, engine: FakeEngine
) -> None:
    engine.fail_at, engine.failure = 3, failure
    assert run("batch", speeches, "-o", tmp_path / "out", "--workers", workers) == code
    assert names(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "-o", "out"], "nowhere is no folder"),
        (["empty", "-o", "out"], "empty holds no audio file"),
        (["twice", "-o", "out"], "a.ogg and a.wav would both become a.glb"),
        (["speeches", "-o", "out", "--workers", "0"], "workers = 0; wanted 1 or more"),
        (["speeches", "-o", "out", "--format", "fbx"], "unknown format 'fbx'"),
    ],
)
def test_a_batch_that_cannot_be_is_refused(
    arguments: list[str],
    message: str,
    speeches: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(speeches.parent)
    for name in ("empty", "twice"):
        Path(name).mkdir()
    for name in ("a.ogg", "a.wav"):
        (Path("twice") / name).touch()
    assert run("batch", *arguments) == cli.REFUSED
    assert capsys.readouterr().err.startswith(f"talker: {message}")
    assert not Path("out").exists()


@pytest.mark.parametrize("named", ["--server", "TALKER_SERVER"])
def test_a_service_animates_in_the_engines_place(
    named: str,
    server: str,
    speeches: Path,
    tmp_path: Path,
    loaded: list[FakeEngine],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And says the same of it."""
    (tmp_path / "mine").write_text("example 0.25")
    command = ["animate", speeches / "a.wav", "--style-file", tmp_path / "mine", "--fps", 60]
    assert run(*command, "-o", tmp_path / "here.glb") == 0
    if named == "--server":
        command += [named, server]
    else:
        monkeypatch.setenv(named, server)
    assert run(*command, "-o", tmp_path / "there.glb") == 0
    assert len(loaded) == 1
    assert (tmp_path / "here.glb").read_bytes() == (tmp_path / "there.glb").read_bytes()
    here, there = capsys.readouterr().out.splitlines()
    assert here.partition(" s in ")[0].replace("here", "there") == there.partition(" s in ")[0]


def test_a_terminal_sees_the_bytes_come(
    server: str, speeches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    assert run("animate", speeches / "a.wav", "-o", tmp_path / "out.glb", "--server", server) == 0
    assert "B/s]" in terminal.getvalue()


def test_what_the_service_refuses_is_refused(
    server: str, speeches: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for options, message in ((["--style", "clam"], "unknown style 'clam'"), (["--fps", "0"], "fps is '0'; wanted")):
        out = tmp_path / "out.glb"
        assert run("animate", speeches / "a.wav", "-o", out, "--server", server, *options) == cli.REFUSED
        assert capsys.readouterr().err.startswith(f"talker: {message}")
    assert names(tmp_path) == ["speeches"]


def test_a_busy_or_failing_service_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(there, "RETRIES", 0)
    for status in (429, 500, 503):
        answering(monkeypatch, GET_styles=[httpx2.Response(status, json={"detail": f"no, {status}"})])
        assert run("styles") == cli.FAILED
        assert capsys.readouterr().err == f"talker: no, {status}\n"


def test_the_key_is_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = answering(monkeypatch, GET_styles=[httpx2.Response(200, json=[])])
    monkeypatch.setenv("TALKER_API_KEY", "tk_1")
    assert run("styles") == 0
    monkeypatch.setenv("TALKER_API_KEY", "")
    assert run("styles") == 0
    assert [request.headers.get("Authorization") for request in seen] == ["Bearer tk_1", None]


def test_a_service_ignores_the_variables_of_its_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALKER_SERVER", "http://talker.test")
    monkeypatch.setenv("TALKER_API_KEY", "tk_1")
    assert Settings() == Settings.model_construct(**Settings().model_dump())


@pytest.mark.parametrize("url", ["talker.test", "http://h:port"])
def test_an_address_that_is_none_is_refused(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("styles", "--server", url) == cli.REFUSED
    assert capsys.readouterr().err.startswith(f"talker: {url!r} is no ")


def test_styles_and_heads_of_a_service_are_listed_as_those_here(
    server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("styles", "templates"):
        assert run(command) == 0
        here = capsys.readouterr().out
        assert run(command, "--server", server) == 0
        assert capsys.readouterr().out == here != ""


def test_a_head_is_added_to_a_service_and_removed(
    server: str, tmp_path: Path, engine: FakeEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the report and the picture that it has here."""
    (tmp_path / "me.obj").write_text("head 2")
    (tmp_path / "places.json").write_text('{"nose_tip": [1, 2, 3]}')
    told = []
    for where in ([], ["--server", server]):
        options = ["--name", "me", "--landmarks", tmp_path / "places.json", "--preview", tmp_path / "me.png", *where]
        assert run("templates", "add", tmp_path / "me.obj", *options) == 0
        assert (tmp_path / "me.png").read_bytes().startswith(b"\x89PNG")
        (tmp_path / "me.png").unlink()
        told.append(capsys.readouterr().out.splitlines()[1:])
        assert list(engine.templates) == ["default", "me"]
        assert run("templates", "remove", "me", *where) == 0
        assert list(engine.templates) == ["default"]
        assert capsys.readouterr().out == "removed me\n"
    assert told[0] == told[1]


def test_jobs_need_a_service(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("jobs", "list") == cli.REFUSED
    assert capsys.readouterr().err.startswith("talker: no service is named; wanted its address: give --server URL")


def test_a_job_is_submitted_shown_awaited_fetched_and_cancelled(
    speeches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = httpx2.Response(200, content=b"glTF")
    seen = answering(
        monkeypatch,
        POST_jobs=[httpx2.Response(202, json=job_card("queued").json())],
        GET_jobs=[httpx2.Response(200, json=[job_card("running", 0.5).json()])],
        GET_jobs_j1=[job_card("running", 0.25), job_card("done", 1.0)],
        GET_jobs_j1_result=[done],
        DELETE_jobs_j1=[httpx2.Response(204)],
    )
    assert run("jobs", "submit", speeches / "a.wav", "--fps", 25, "--format", "obj") == 0
    assert capsys.readouterr().out == "j1\n"
    assert [b'name="fps"\r\n\r\n25\r\n' in seen[0].content, b'name="format"\r\n\r\nobj\r\n' in seen[0].content] == [
        1,
        1,
    ]
    assert b'name="seed"' not in seen[0].content
    for listing in ([], ["list"]):
        assert run("jobs", *listing) == 0
        assert capsys.readouterr().out.split() == ["j1", "running", "50%"]
    assert run("jobs", "show", "j1") == 0
    assert json.loads(capsys.readouterr().out)["progress"] == 0.25
    assert run("jobs", "wait", "j1") == 0
    assert capsys.readouterr().out == "j1 is done; talker jobs result j1 -o FILE\n"
    for command in ("wait", "result"):
        assert run("jobs", command, "j1", "-o", tmp_path / f"{command}.zip") == 0
        assert capsys.readouterr().out == f"wrote {tmp_path / command}.zip\n"
        assert (tmp_path / f"{command}.zip").read_bytes() == b"glTF"
    assert run("jobs", "cancel", "j1") == 0
    assert seen[-1].method == "DELETE"


def test_a_job_that_failed_is_a_failure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    answering(monkeypatch, GET_jobs_j1=[job_card("failed")])
    assert run("jobs", "wait", "j1") == cli.FAILED
    assert capsys.readouterr().err.startswith("talker: job j1 failed: ")


@pytest.fixture
def healthy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Folders of its own, a free port, plenty of room."""
    for name in ("cache", "styles", "templates"):
        monkeypatch.setenv(f"TALKER_{name.upper()}", str(tmp_path / "made" / name))
    monkeypatch.setenv("TALKER_PORT", "0")
    monkeypatch.setenv("TALKER_WEIGHTS", str(tmp_path))
    (tmp_path / "manifest.json").write_text("{}")
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=50 * 2**30))
    return tmp_path


def found(name: str) -> checkup.Finding:
    (finding,) = (finding for finding in checkup.examine() if finding.name == name)
    return finding


def test_a_healthy_installation_passes(healthy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line a finding, or JSON, of everything that can be tried; nothing is left behind."""
    before = names(healthy)
    assert run("doctor") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].endswith("0 failed")
    assert run("doctor", "--json") == 0
    findings = json.loads(capsys.readouterr().out)
    assert [line.split()[1] for line in lines[:-1]] == [finding["name"] for finding in findings]
    expected = "python torch onnxruntime weights cache styles templates TMPDIR port decoding device animation"
    assert set(expected.split()) <= {finding["name"] for finding in findings}
    assert names(healthy) == before


def pretend(monkeypatch: pytest.MonkeyPatch, **versions: str | None) -> None:
    """Distributions that are, or are not, installed besides the rest."""
    renamed = {name.replace("_", "-"): version for name, version in versions.items()}
    real = [d for d in distributions() if d.name.lower() not in renamed]
    fake = [SimpleNamespace(name=name, version=version) for name, version in renamed.items() if version is not None]
    monkeypatch.setattr(checkup, "distributions", lambda: [*real, *fake])


@pytest.mark.parametrize(
    ("versions", "name", "state", "text"),
    [
        ({"onnxruntime": "1.31.1", "onnxruntime_gpu": "1.31.1"}, "onnxruntime", "fail", "share a folder"),
        ({"onnxruntime": None, "onnxruntime_gpu": None}, "onnxruntime", "fail", "is not installed"),
        ({"torch": None}, "torch", "fail", "is not installed"),
        ({"torch": "2.5.0+cpu"}, "torch", "warn", "is 2.5.0+cpu; the weights were tried with 2.13.0"),
        ({"torch": "2.13.0+cu130"}, "torch", "ok", "2.13.0+cu130"),
    ],
)
def test_packages_that_do_not_fit_are_found(
    versions: dict[str, str | None],
    name: str,
    state: str,
    text: str,
    healthy: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pretend(monkeypatch, **versions)
    finding = found(name)
    assert (finding.state, text in finding.text) == (state, True)


@pytest.mark.parametrize(("code", "state"), [(1, "fail"), (0, "ok")])
def test_a_torchaudio_that_does_not_import_is_found(
    code: int, state: str, healthy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, torchaudio="2.11.0")
    monkeypatch.setattr("subprocess.run", lambda *_, **__: subprocess.CompletedProcess([], code))
    assert found("torchaudio").state == state


def test_a_bad_setting_is_found(healthy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALKER_PROT", "1")
    assert found("settings").text.startswith("unknown setting TALKER_PROT")
    assert run("doctor") == 1


def test_weights_that_are_damaged_are_found(healthy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (healthy / "weights").mkdir()
    (healthy / "weights" / "manifest.json").write_text('{"head": {"file": "head", "sha256": "0"}}')
    (healthy / "weights" / "head").write_text("other")
    monkeypatch.setenv("TALKER_WEIGHTS", str(healthy / "weights"))
    finding = found("weights")
    assert (finding.state, "is damaged: sha256" in finding.text) == ("fail", True)


@pytest.mark.parametrize(("free", "state"), [(50, "ok"), (1, "warn"), (0.1, "fail")])
def test_a_full_disk_is_found(free: float, state: str, healthy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free * 2**30))
    assert found("cache").state == found("TMPDIR").state == state


def test_a_folder_that_cannot_be_written_is_found(healthy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """/proc is one, for root as well."""
    monkeypatch.setenv("TALKER_STYLES", "/proc/styles")
    finding = found("styles")
    assert (finding.state, finding.text.startswith("/proc/styles cannot be written")) == ("fail", True)


def test_a_port_that_is_taken_is_found(server: str, healthy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALKER_PORT", server.rpartition(":")[2])
    assert (found("port").state, "Address already in use" in found("port").text) == ("warn", True)


def test_keys_that_others_may_write_are_found(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    settings: Any = SimpleNamespace(keys=path)
    assert [finding.state for finding in checkup._keys(settings)] == ["fail"]
    path.write_text("one\n")
    for mode, state in ((0o600, "ok"), (0o622, "fail")):
        path.chmod(mode)
        assert [finding.state for finding in checkup._keys(settings)] == [state]
    assert list(checkup._keys(SimpleNamespace(keys=None))) == []  # type: ignore[arg-type]


def test_codecs_that_are_missing_are_found(healthy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "CODECS", ("flac", "no_such_codec"))
    assert (found("decoding").state, "no_such_codec" in found("decoding").text) == ("fail", True)


def test_an_engine_that_does_not_start_is_found(healthy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise CheckpointError("no manifest.json")

    monkeypatch.setattr("models.engine.load_engine", fail)
    assert found("animation") == checkup.Finding("animation", "fail", "no manifest.json")
    assert run("doctor") == 1


def test_an_animation_slower_than_it_plays_is_found(healthy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(100))
    monkeypatch.setattr(checkup, "perf_counter", lambda: 2.0 * next(clock))
    assert (found("animation").state, "slower than it plays" in found("animation").text) == ("warn", True)
