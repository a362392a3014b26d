"""A check-up of an installation: each finding is something that was tried, not guessed."""

import shutil
import socket
import subprocess
import sys
import tempfile
import wave
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import distributions
from io import BytesIO
from pathlib import Path
from platform import platform, python_version
from time import perf_counter
from typing import TYPE_CHECKING, Literal

from models.errors import TalkerError
from service.cli.here import open_engine, read_settings

if TYPE_CHECKING:
    from service.settings import Settings

GIB, MIB = 2**30, 2**20
LEAST_FREE, LITTLE_FREE = GIB // 4, 2 * GIB
CODECS = ("pcm_s16le", "flac", "mp3", "vorbis", "opus", "aac")
TORCH = "2.13.0"
"""As pyproject.toml pins it."""
FAULTY = ("torchaudio", "torchvision")
"""Nothing here imports them; one that does not fit torch breaks transformers, which imports what it finds."""


@dataclass(frozen=True)
class Finding:
    """What was found of one thing; `text` says what to do unless it is ok."""

    name: str
    state: Literal["ok", "warn", "fail"]
    text: str


def examine() -> Iterator[Finding]:
    """Everything that can be tried here, the cheap first. What needs the settings ends where they cannot be read."""
    yield Finding("python", "ok", f"{python_version()} on {platform()}")
    installed = {distribution.name.lower(): distribution.version for distribution in distributions()}
    yield from _packages(installed)
    try:
        settings = read_settings()
    except TalkerError as error:
        yield Finding("settings", "fail", str(error))
        return
    for check in (_weights, _folders, _keys, _port, _decoding, _animation):
        yield from _tried(check, settings)


def _tried(check: "Callable[[Settings], Iterator[Finding]]", settings: "Settings") -> Iterator[Finding]:
    """The check's findings; a check that breaks is one."""
    try:
        yield from check(settings)
    except Exception as error:
        yield Finding(check.__name__.removeprefix("_"), "fail", str(error) or type(error).__name__)


def _packages(installed: Mapping[str, str]) -> Iterator[Finding]:
    torch = installed.get("torch")
    if torch is None:
        yield Finding("torch", "fail", "is not installed; pip install 'talker[cpu]', or 'talker[gpu]'")
    elif torch.partition("+")[0] != TORCH:
        yield Finding("torch", "warn", f"is {torch}; the weights were tried with {TORCH}: install that")
    else:
        yield Finding("torch", "ok", torch)
    both = [name for name in ("onnxruntime", "onnxruntime-gpu") if name in installed]
    if len(both) == 2:
        yield Finding(
            "onnxruntime",
            "fail",
            "and onnxruntime-gpu share a folder, and break each other; uninstall both, then pip install onnxruntime",
        )
    elif not both:
        yield Finding("onnxruntime", "fail", "is not installed; pip install 'talker[cpu]', or 'talker[gpu]'")
    else:
        yield Finding("onnxruntime", "ok", f"{both[0]} {installed[both[0]]}")
    for name in FAULTY:
        if name in installed:
            yield _imported(name, installed[name])


def _imported(name: str, version: str) -> Finding:
    """Tried in a process of its own: what does not fit torch may take the process with it."""
    process = subprocess.run([sys.executable, "-c", f"import {name}"], capture_output=True, check=False)
    if process.returncode == 0:
        return Finding(name, "ok", f"{version}, not needed")
    return Finding(
        name,
        "fail",
        f"{version} does not import, and breaks transformers with it; pip uninstall {name}: nothing needs it",
    )


def _weights(settings: "Settings") -> Iterator[Finding]:
    from models.checkpoint import pinned_file, read_manifest

    names = read_manifest(settings.weights)
    size = sum(pinned_file(settings.weights, name)[0].stat().st_size for name in names)
    yield Finding("weights", "ok", f"{len(names)} files as the manifest has them, {size / MIB:.0f} MiB")


def _folders(settings: "Settings") -> Iterator[Finding]:
    folders = {name: getattr(settings, name) for name in ("cache", "styles", "templates")}
    for name, folder in {**folders, "TMPDIR": Path(tempfile.gettempdir())}.items():
        yield _folder(name, folder)


def _folder(name: str, folder: Path) -> Finding:
    """Whether a file can be written there, and how much fits; a folder that is missing is made when it is needed."""
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"talker")
    except OSError as error:
        return Finding(
            name, "fail", f"{folder} cannot be written ({error.strerror}); choose another, or change its rights"
        )
    free = shutil.disk_usage(place).free
    held = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if name == "cache" else 0
    text = (
        f"{folder}, {held / MIB:.0f} MiB held, {free / GIB:.1f} GiB free"
        if held
        else f"{folder}, {free / GIB:.1f} GiB free"
    )
    if free < LEAST_FREE:
        return Finding(name, "fail", f"{text}; wanted {LITTLE_FREE / GIB:.0f} GiB: make room")
    if free < LITTLE_FREE:
        return Finding(name, "warn", f"{text}; wanted {LITTLE_FREE / GIB:.0f} GiB for long clips: make room")
    return Finding(name, "ok", text)


def _keys(settings: "Settings") -> Iterator[Finding]:
    """Of the file of API keys, where the service asks for any."""
    path = settings.keys
    if path is None:
        return
    try:
        lines = len(path.read_bytes().splitlines())
    except OSError as error:
        yield Finding("keys", "fail", f"{path} cannot be read ({error.strerror}); talker keys add makes it")
        return
    if path.stat().st_mode & 0o022:
        yield Finding("keys", "fail", f"others may write {path}, and let themselves in; chmod 600 {path}")
    else:
        yield Finding("keys", "ok", f"{path}, {lines} lines")


def _port(settings: "Settings") -> Iterator[Finding]:
    address = f"{settings.host}:{settings.port}"
    family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
    try:
        with socket.create_server((settings.host, settings.port), family=family):
            yield Finding("port", "ok", f"{address} is free")
    except OSError as error:
        yield Finding(
            "port", "warn", f"{address}: {error.strerror}; is a service running there? TALKER_PORT takes another"
        )


def _decoding(settings: "Settings") -> Iterator[Finding]:
    from av.codec import Codec
    from av.codec.codec import UnknownCodecError

    from models.audio import AudioLimits, decode_audio

    missing = []
    for name in CODECS:
        try:
            Codec(name, "r")
        except UnknownCodecError:
            missing.append(name)
    decoded = decode_audio(_second(), AudioLimits(settings.max_upload_bytes, settings.max_audio_s))
    if missing or decoded.duration_s != 1:
        yield Finding(
            "decoding", "fail", f"of {', '.join(missing) or 'WAV'} does not work; pip install --force-reinstall av"
        )
    else:
        yield Finding("decoding", "ok", "wav, flac, mp3, ogg, opus, m4a and webm")


def _animation(settings: "Settings") -> Iterator[Finding]:
    from models.audio import AudioLimits, decode_audio
    from models.core import AnimateOptions

    started = perf_counter()
    engine = open_engine(settings)
    loaded_s = perf_counter() - started
    facts = engine.describe()
    yield Finding("device", "ok", f"{facts['device']}, {', '.join(facts['providers'])}; loaded in {loaded_s:.1f} s")
    speech = decode_audio(_second(), AudioLimits(settings.max_upload_bytes, settings.max_audio_s))
    list(engine.animate(speech, AnimateOptions()).frames)  # the first clip of a process pays for what is made once
    started = perf_counter()
    frames = len(list(engine.animate(speech, AnimateOptions()).frames))
    elapsed_s = perf_counter() - started
    text = f"a second of speech, {frames} frames, in {elapsed_s:.2f} s"
    if elapsed_s > 1:
        yield Finding("animation", "warn", f"{text}: slower than it plays; is the machine busy?")
    else:
        yield Finding("animation", "ok", text)


def _second() -> bytes:
    """A second of silence as WAV."""
    file = BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16_000)
        out.writeframes(bytes(2 * 16_000))
    return file.getvalue()
