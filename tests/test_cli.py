"""The console script: the service's own checks and bytes, without the service."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import FakeEngine, wav
from fastapi.testclient import TestClient
from PIL import Image

from models.core import AnimateOptions
from models.engine import Sampling
from models.errors import CheckpointError, OutOfRange, TalkerError
from service import cli
from service.encoders import ENCODERS
from service.schemas import AnimateForm
from service.settings import Settings
from talker_client.frames import read_frames

WEIGHTS = Path(__file__).parents[1] / "weights"
HAS_WEIGHTS = "mmtalker" in json.loads((WEIGHTS / "manifest.json").read_text())


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    path = tmp_path / "speech.wav"
    path.write_bytes(wav())
    return path


@pytest.fixture(autouse=True)
def loaded(monkeypatch: pytest.MonkeyPatch, engine: FakeEngine) -> list[dict[str, Any]]:
    """`load_engine` gives the fake engine; the arguments of each call are kept."""
    calls: list[dict[str, Any]] = []

    def load(**arguments: Any) -> FakeEngine:
        calls.append(arguments)
        return engine

    monkeypatch.setattr("models.engine.load_engine", load)
    return calls


def run(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


def test_the_console_script_is_main() -> None:
    (script,) = entry_points(group="console_scripts", name="talker")
    assert script.load() is cli.main


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["animate", "--help"],
        ["serve", "--help"],
        ["styles", "--help"],
        ["templates", "add", "--help"],
        ["skin", "--help"],
        ["--version"],
    ],
)
def test_help_comes_before_anything_heavy_is_imported(arguments: list[str]) -> None:
    program = (
        "import sys; from service.cli import main\n"
        f"try: main({arguments})\n"
        "finally: print({'torch', 'fastapi', 'pydantic', 'numpy'} & sys.modules.keys(), file=sys.stderr)"
    )
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert process.stdout
    assert process.stderr.strip() == "set()"


@pytest.mark.parametrize(("chosen", "threads"), [(None, "1"), ("2", "2")])
def test_numpys_products_run_on_one_thread_unless_the_environment_says_otherwise(
    chosen: str | None, threads: str, monkeypatch: pytest.MonkeyPatch, served: list[Settings]
) -> None:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", chosen or "")
    if chosen is None:
        monkeypatch.delenv("OPENBLAS_NUM_THREADS")
    assert run("serve") == 0
    assert os.environ["OPENBLAS_NUM_THREADS"] == threads


def test_version_is_the_distributions(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        run("--version")
    assert capsys.readouterr().out == f"talker {version('talker')}\n"


@pytest.mark.parametrize(
    "arguments", [[], ["sing"], ["animate", "speech.wav"], ["animate", "a.wav", "-o", "b", "--re=1"]]
)
def test_a_wrong_command_line_is_refused_with_the_usage(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(*arguments)
    assert capsys.readouterr().err.startswith("usage: talker")


def test_it_writes_what_the_service_answers(client: TestClient, speech: Path, tmp_path: Path) -> None:
    """Same speech and same fields, same bytes, in every format."""
    fields = {"fps": "24", "intensity": "0.5", "seed": "7", "style": "calm", "resolution": "600"}
    fields |= {"engine": "textalker", "texture": "512", "wrinkle_style": "calm(0.5)+neutral"}
    options = [f"--{name.replace('_', '-')}={value}" for name, value in fields.items()]
    for name in ENCODERS:
        assert run("animate", speech, "-o", tmp_path / "out", "--format", name, *options) == 0
        response = client.post("/animate", files={"audio": speech.read_bytes()}, data=fields | {"format": name})
        assert response.status_code == 200
        assert (tmp_path / "out").read_bytes() == response.content


def test_with_defaults_it_writes_what_the_service_answers(client: TestClient, speech: Path, tmp_path: Path) -> None:
    for name in ENCODERS.keys() - {"bundle", "codes"}:
        assert run("animate", speech, "-o", tmp_path / "out", "--format", name) == 0
        response = client.post("/animate", files={"audio": speech.read_bytes()}, data={"format": name})
        assert (tmp_path / "out").read_bytes() == response.content


def test_every_option_is_a_field_of_the_form_with_its_default(speech: Path, engine: FakeEngine) -> None:
    for name, default, _ in cli.OPTIONS:
        field = AnimateForm.model_fields[name.replace("-", "_")]
        shown = f"{field.default:g}" if isinstance(field.default, float) else str(field.default)
        assert default == ("as --style" if field.default is None else shown)
    assert run("animate", speech, "-o", speech.with_name("out.glb")) == 0
    ((_, options),) = engine.calls
    assert options == AnimateOptions()


@pytest.mark.parametrize("name", ["glb", "npz-stream"])
def test_the_suffix_chooses_the_format_where_one_format_has_it(name: str, speech: Path, tmp_path: Path) -> None:
    plain, named = tmp_path / f"out{ENCODERS[name].extension.upper()}", tmp_path / "named"
    assert run("animate", speech, "-o", plain) == 0
    assert run("animate", speech, "-o", named, "--format", name) == 0
    assert plain.read_bytes() == named.read_bytes()


def test_a_style_file_is_the_style(speech: Path, engine: FakeEngine, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("example 0.25")
    assert run("animate", speech, "-o", tmp_path / "out.glb", "--style-file", tmp_path / "mine") == 0
    (pivot,) = engine.pivots
    assert pivot is not None
    assert pivot.motion is not None
    assert pivot.motion.tolist() == [0.25] * 4


def test_a_neutral_file_is_the_texture_at_rest(speech: Path, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), (1, 2, 3)).save(tmp_path / "skin.png")
    assert run("animate", speech, "-o", tmp_path / "out.glb", "--neutral-file", tmp_path / "skin.png") == 0
    content = (tmp_path / "out.glb").read_bytes()
    with Image.open(io.BytesIO(content[content.find(b"\x89PNG") :])) as image:
        assert image.getpixel((9, 9)) == (1, 2, 3)


def test_styles_prints_a_line_a_style(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("styles") == 0
    assert [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()] == [
        ["calm", "motion+wrinkles", "calm, for tests"],
        ["neutral", "motion+wrinkles", "neutral, for tests"],
    ]


def test_a_template_file_is_the_head(client: TestClient, speech: Path, tmp_path: Path) -> None:
    (tmp_path / "me.obj").write_text("head 2")
    assert run("animate", speech, "-o", tmp_path / "out.glb", "--template-file", tmp_path / "me.obj") == 0
    response = client.post("/animate", files={"audio": speech.read_bytes(), "template_file": b"head 2"})
    assert (tmp_path / "out.glb").read_bytes() == response.content


def test_a_head_is_added_listed_and_removed(
    tmp_path: Path, engine: FakeEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"me.obj": b"head 2", "skin.png": b"\x89PNG", "places.json": b'{"nose_tip": [1, 2, 3]}'}
    mesh, skin, places = (tmp_path / name for name in files)
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    options = ["--name", "me", "--texture", skin, "--landmarks", places, "--preview", tmp_path / "me.png"]
    assert run("templates", "add", mesh, *options) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0][:2] == ["registered", "me"]
    assert lines[1:-1] == [
        ["off", "the", "face", "0.80", "mm,", "at", "the", "lips", "0.30", "mm", "(medians)"],
        ["one", "unit", "0.01", "m,", "+Z", "up,", "-Y", "forward"],
        ["skin", "49", "vertices,", "72", "faces"],
        ["holes", "3"],
        ["nose_tip", "0", "1", "2.5"],
        ["warning", "no", "teeth"],
    ]
    assert (tmp_path / "me.png").read_bytes().startswith(b"\x89PNG")
    ((name, landmarks, texture, _),) = engine.registered
    assert (name, landmarks, texture) == ("me", files["places.json"], files["skin.png"])
    assert run("templates") == 0
    listed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert listed[1] == ["me", "49", "vertices", "72", "faces", "unknown"]
    assert run("templates", "remove", "me") == 0
    assert list(engine.templates) == ["default"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["add", "nowhere.obj"], "nowhere.obj cannot be read (No such file or directory)"),
        (["add", "me.obj", "--name", "default"], "there is a template default already"),
        (["add", "me.obj", "--name", "My Head"], "template id 'My Head'; wanted"),
        (["add", "closed.obj"], "the lips are one closed surface"),
        (["add", "me.obj", "--landmarks", "me.obj"], "landmarks that are no JSON"),
        (["add", "me.obj", "--texture", "me.obj"], "no picture; wanted PNG"),
        (["add", "me.obj", "--preview", "nowhere/me.png"], "nowhere/me.png lies in no folder that exists"),
        (["remove", "default"], "template default was shipped"),
    ],
)
def test_a_head_that_cannot_be_kept_or_removed_is_refused(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    engine: FakeEngine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("me.obj").write_text("head 1")
    Path("closed.obj").write_text("closed")
    assert run("templates", *arguments) == cli.REFUSED
    assert capsys.readouterr().err.startswith(f"talker: {message}")
    assert list(engine.templates) == ["default"]


def test_help_tells_each_format_and_its_suffix(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        run("animate", "--help")
    rows = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    for name, encoder in ENCODERS.items():
        assert [name, encoder.extension] in rows


def test_it_says_what_it_wrote_and_how_fast(speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On stdout; stderr stays empty where it is no terminal."""
    assert run("animate", speech, "-o", tmp_path / "head.glb", "--fps", "60") == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"wrote {tmp_path / 'head.glb'}: 12 frames at 60 fps, 0.20 s in ")
    assert out.endswith(" times real time\n")
    assert err == ""


def test_a_terminal_sees_the_progress(speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    assert run("animate", speech, "-o", tmp_path / "head.glb") == 0
    assert "/6 [" in terminal.getvalue()


def test_the_settings_are_the_services(
    speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loaded: list[dict[str, Any]]
) -> None:
    for name in ("weights", "cache", "styles", "templates"):
        monkeypatch.setenv(f"TALKER_{name.upper()}", str(tmp_path / name))
    monkeypatch.setenv("TALKER_DEVICE", "cpu")
    monkeypatch.setenv("TALKER_THREADS", "3")
    monkeypatch.setenv("TALKER_SAMPLER_STEPS", "25")
    assert run("animate", speech, "-o", tmp_path / "head.glb") == 0
    assert loaded == [
        {name: tmp_path / name for name in ("weights", "cache", "styles", "templates")}
        | {"device": "cpu", "threads": 3, "batch": 0, "sampling": Sampling(steps=25)},
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fps", "0"], "fps is '0'; wanted greater than or equal to 1"),
        (["--fps", "nan"], "fps is 'nan'; wanted a finite number"),
        (["--resolution", "3"], "resolution is '3'; wanted greater than or equal to 500"),
        (["--intensity=-1"], "intensity is '-1'; wanted greater than or equal to 0"),
        (["--seed", "one"], "seed is 'one'; wanted a whole number"),
        (["--wrinkle-style", "calm"], "wrinkle_style = calm with engine = mmtalker"),
        (["--texture", "3000", "--engine", "textalker"], "texture is '3000'; wanted none, 512, 1024, 2048"),
        (["--format", "bundle"], "format = bundle without textures"),
        (["--style-file", "example", "--style", "calm"], "style together with style_file"),
        (["--style-file", "cube"], "an example of 8 vertices"),
        (["--template-file", "cube"], "no mesh; wanted OBJ, PLY or GLB"),
        (["--template-file", "cube", "--template", "default"], "template together with template_file"),
        (["--style-file", "nowhere"], "nowhere cannot be read (No such file or directory)"),
        (["--style", "clam"], "unknown style 'clam'; known: calm, neutral"),
        (["--template", "dog"], "unknown template 'dog'; known: default"),
        (["--format", "fbx"], "unknown format 'fbx'; known: glb"),
        (
            ["--output", "out.zip"],
            "out.zip does not tell the format; it may be glb-sequence, obj, bundle: add --format",
        ),
        (["--output", "out"], "out does not tell the format; it may be glb, glb-sequence, obj, npz-stream, bundle"),
        (["--output", "nowhere/out.glb"], "nowhere/out.glb lies in no folder that exists; make "),
        (["--output", "folder.glb"], "folder.glb is no regular file"),
    ],
)
def test_what_the_service_refuses_is_refused(
    options: list[str],
    message: str,
    speech: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With the error's message on one line, exit code 2, and no file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.glb").mkdir()
    for name in ("example", "cube"):
        (tmp_path / name).write_text(f"{name} 0.5")
    assert run("animate", speech, "-o", "out.glb", *options) == cli.REFUSED
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"talker: {message}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cube", "example", "folder.glb", "speech.wav"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "speech.wav cannot be read (No such file or directory); wanted the file for audio"),
        (b"", "an empty file; wanted speech"),
        (b"These are words.", "a file that does not decode"),
    ],
)
def test_speech_that_is_none_is_refused(
    content: bytes | None,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("speech.wav").write_bytes(content)
    assert run("animate", "speech.wav", "-o", "out.glb") == cli.REFUSED
    assert capsys.readouterr().err.startswith(f"talker: {message}")
    assert not Path("out.glb").exists()


@pytest.mark.parametrize(
    ("limit", "value", "message"),
    [
        ("MAX_AUDIO_S", "0.1", "audio of 0.20 s or more; wanted at most 0.1 s"),
        ("MAX_UPLOAD_BYTES", "100", "audio of "),
        ("MAX_FPS", "29", "fps = 30; the limit is 29"),
        ("MAX_POINTS", "40", "the head has 49 points; the limit is 40"),
        ("MAX_FRAME_POINTS", "200", "6 frames of 49 points are 294; the limit is 200"),
        ("PROT", "9000", "unknown setting TALKER_PROT in the environment; did you mean TALKER_PORT"),
    ],
)
def test_the_limits_are_the_services(
    limit: str,
    value: str,
    message: str,
    speech: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(f"TALKER_{limit}", value)
    assert run("animate", speech, "-o", speech.with_name("out.glb")) == cli.REFUSED
    assert capsys.readouterr().err.startswith(f"talker: {message}")


@pytest.mark.parametrize(
    ("failure", "code", "message"),
    [
        (KeyboardInterrupt(), cli.INTERRUPTED, "talker: interrupted\n"),
        (TalkerError("the engine broke"), cli.FAILED, "talker: the engine broke\n"),
        (OSError("no space left"), cli.FAILED, "talker: no space left\n"),
    ],
)
def test_nothing_half_written_is_left(
    failure: BaseException,
    code: int,
    message: str,
    speech: Path,
    engine: FakeEngine,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What was at the target before is there still."""
    before, after = speech.with_name("before.frames"), speech.with_name("after.frames")
    before.write_bytes(b"of yesterday")
    engine.fail_at, engine.failure = 3, failure
    for output in (before, after):
        assert run("animate", speech, "-o", output) == code
        assert capsys.readouterr().err == message
    assert before.read_bytes() == b"of yesterday"
    assert sorted(path.name for path in speech.parent.iterdir()) == ["before.frames", "speech.wav"]
    assert engine.closed.is_set()


def test_the_file_is_replaced_where_a_link_points(speech: Path, tmp_path: Path) -> None:
    target, link = tmp_path / "target.frames", tmp_path / "link.frames"
    target.write_bytes(b"of yesterday")
    link.symlink_to(target)
    assert run("animate", speech, "-o", link) == 0
    assert link.is_symlink()
    assert target.read_bytes().startswith(b"TALKFRM1")


def test_weights_that_are_missing_are_a_failure(
    speech: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: object) -> None:
        raise CheckpointError("no manifest.json")

    monkeypatch.setattr("models.engine.load_engine", fail)
    assert run("animate", speech, "-o", speech.with_name("out.glb")) == cli.FAILED
    assert capsys.readouterr().err == "talker: no manifest.json\n"


@pytest.mark.skipif(not HAS_WEIGHTS, reason="the shipped weights hold no mmtalker")
def test_the_shipped_weights_animate(speech: Path, tmp_path: Path) -> None:
    """From a process of its own, with an empty cache."""
    program = "import sys; from service.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "animate", str(speech), "-o", str(tmp_path / "head.frames")]
    process = subprocess.run(
        command, capture_output=True, text=True, timeout=280, env={"TALKER_CACHE": str(tmp_path / "cache")}
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith("wrote ")
    with (tmp_path / "head.frames").open("rb") as file:
        header, chunks = read_frames(file)
        assert header.frame_count == sum(len(chunk.positions) for chunk in chunks) == 6


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The settings of each server that would have run."""
    ran: list[Settings] = []
    monkeypatch.setattr("service.server.Server.run", lambda server: ran.append(server._runtime.settings))
    return ran


def test_serve_takes_the_environment_and_the_options_over_it(
    served: list[Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TALKER_PORT", "9000")
    monkeypatch.setenv("TALKER_QUEUE", "3")
    monkeypatch.setenv("TALKER_OPEN", "true")
    assert run("serve") == 0
    assert run("serve", "--host", "0.0.0.0", "--port", "9001") == 0
    assert [(settings.host, settings.port, settings.queue) for settings in served] == [
        ("127.0.0.1", 9000, 3),
        ("0.0.0.0", 9001, 3),
    ]


@pytest.mark.parametrize(
    ("variable", "value", "options", "message"),
    [
        ("PORT", "http", [], "setting port = http: Input should be a valid integer"),
        ("PORT", "9000", ["--port", "70000"], "setting port = 70000: Input should be less than or equal to 65535"),
        ("DEVICE", "tpu", [], "setting device = tpu: Input should be 'auto', 'cpu' or 'cuda'"),
        ("PROT", "9000", [], "unknown setting TALKER_PROT in the environment; did you mean TALKER_PORT"),
    ],
)
def test_a_bad_setting_is_refused_on_one_line(
    variable: str,
    value: str,
    options: list[str],
    message: str,
    served: list[Settings],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(f"TALKER_{variable}", value)
    assert run("serve", *options) == cli.REFUSED
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"talker: {message}")
    assert served == []


def test_an_engine_that_does_not_start_ends_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the reason; Python prints it and exits with 1."""

    def fail(**_: object) -> None:
        raise CheckpointError("no manifest.json")

    monkeypatch.setattr("models.engine.load_engine", fail)
    with pytest.raises(SystemExit, match="the engine does not start: no manifest"):
        run("serve", "--port", "0")


class PlainSkin:
    """In place of the default head's skin: one colour, and its checks."""

    def rows(self, size: int, workers: int) -> Iterator[np.ndarray]:
        assert workers > 0
        if size < 64:
            raise OutOfRange(f"a skin of {size} texels; wanted 64 to 16384", field="size")
        return (np.full((16, size, 3), 90, np.uint8) for _ in range(size // 16))


def test_skin_writes_a_png_of_the_size_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []
    monkeypatch.setattr("models.skin.neutral.open_skin", lambda folder: asked.append(folder) or PlainSkin())
    assert run("skin", "-o", tmp_path / "skin.png", "--size", 64) == 0
    assert asked == [Settings().weights]
    with Image.open(tmp_path / "skin.png") as image:
        assert image.size == (64, 64)
        assert image.getpixel((63, 63)) == (90, 90, 90)


def test_skin_refuses_other_sizes_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("models.skin.neutral.open_skin", lambda folder: PlainSkin())
    assert run("skin", "-o", tmp_path / "skin.png", "--size", 3) == cli.REFUSED
    assert "a skin of 3 texels; wanted 64 to 16384" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
