"""The service as it ships: real networks, a real voice, and everything a client may get wrong."""

import io
import math
import shutil
import struct
import subprocess
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import wait_until
from fastapi.testclient import TestClient
from test_glb import Glb

from models.audio import AudioLimits, decode_audio
from models.template import load_head
from service.app import create_app
from service.settings import Settings
from talker_client.frames import END, read_frames

ROOT = Path(__file__).parents[1]
VOICE = ROOT / "tests" / "data" / "LJ001-0002.flac"
VOICE_S = decode_audio(VOICE.read_bytes(), AudioLimits(10**7, 60)).duration_s
RATE_HZ = 16_000


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """Graphs are exported once, also where several processes run tests."""
    settings = Settings(cache=tmp_path_factory.getbasetemp().parent / "cache", threads=1, log_level="warning")
    with TestClient(create_app(settings)) as client:
        wait_until(lambda: client.get("/health/ready").status_code == 200, seconds=280)
        yield client


@pytest.mark.parametrize(("engine", "far_m"), [("mmtalker", 1e-5), ("textalker", 0.0)])
def test_live_is_the_clip(service: TestClient, engine: str, far_m: float) -> None:
    """The same sound over /live and to /animate: textalker to the bit, mmtalker on its finer grid."""
    sound = decode_audio(VOICE.read_bytes(), AudioLimits(10**7, 60)).samples
    answer = service.post(
        "/animate", data={"format": "npz-stream", "engine": engine, "style": "smiling"}, files={"audio": wav(sound)}
    )
    wanted = np.concatenate([chunk.positions for chunk in read_frames(io.BytesIO(answer.content))[1]])
    with service.websocket_connect("/live") as stream:
        stream.send_json({"engine": engine, "style": "smiling", "delivery": "burst"})
        for piece in np.split((sound * 32767).astype("<i2"), range(2000, len(sound), 2000)):
            stream.send_bytes(piece.tobytes())
        stream.send_json({"type": "end"})
        messages = [stream.receive_bytes()]
        while not messages[-1].startswith(END):
            messages.append(stream.receive_bytes())
    header, chunks = read_frames(io.BytesIO(b"".join(messages)))
    assert header.fields["live"]["latency_s"] < (1.4 if engine == "mmtalker" else 4.7)
    assert np.abs(np.concatenate([chunk.positions for chunk in chunks]) - wanted).max() <= far_m


def wav(samples: np.ndarray, rate_hz: int = RATE_HZ) -> bytes:
    """Floats in -1..1, one column a channel, as 16-bit WAV."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(samples.shape[1] if samples.ndim == 2 else 1)
        out.setsampwidth(2)
        out.setframerate(rate_hz)
        out.writeframes((samples * 32767).astype("<i2").tobytes())
    return file.getvalue()


def float_wav(samples: np.ndarray) -> bytes:
    """32-bit float WAV, 16 kHz mono."""
    body = samples.astype("<f4").tobytes()
    form = struct.pack("<HHIIHH", 3, 1, RATE_HZ, 4 * RATE_HZ, 4, 32)
    chunks = b"WAVEfmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", len(chunks)) + chunks


def tone(seconds: float, rate_hz: int = RATE_HZ, channels: int = 1) -> np.ndarray:
    wave_ = 0.2 * np.sin(np.arange(round(seconds * rate_hz)) * 2 * np.pi * 180 / rate_hz)
    return np.repeat(wave_[:, None], channels, axis=1)


def mp3(tmp_path: Path) -> bytes:
    """The voice as MP3."""
    import av

    path = tmp_path / "voice.mp3"
    with av.open(str(VOICE)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream("mp3", rate=22050)
        for frame in source.decode(audio=0):
            frame.pts = None
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    return path.read_bytes()


def post(service: TestClient, audio: bytes, name: str = "speech.wav", **fields: str) -> Any:
    return service.post("/animate", files={"audio": (name, audio)}, data=fields)


def positions(body: bytes) -> np.ndarray:
    """Frames (T, V, 3) of an npz-stream."""
    _, chunks = read_frames(io.BytesIO(body))
    return np.concatenate([chunk.positions for chunk in chunks])


BAD: dict[str, tuple[bytes, dict[str, str], int, str]] = {
    "empty file": (b"", {}, 415, "empty_audio"),
    "text named .wav": (b"la la la, no sound at all\n" * 40, {}, 415, "not_audio"),
    "NaN samples": (float_wav(np.where(np.arange(16_000) == 9_000, np.nan, 0.1)), {}, 400, "not_finite"),
    "infinite samples": (float_wav(np.where(np.arange(16_000) == 9_000, np.inf, 0.1)), {}, 400, "not_finite"),
    "0 s": (wav(np.zeros(0)), {}, 415, "empty_audio"),
    "601 s": (wav(np.zeros(601 * RATE_HZ)), {}, 413, "too_large"),
    "M = 3": (wav(tone(0.2)), {"resolution": "3"}, 422, "out_of_range"),
    "fps = 0": (wav(tone(0.2)), {"fps": "0"}, 422, "out_of_range"),
    "unknown template": (wav(tone(0.2)), {"template": "nobody"}, 404, "unknown_template"),
    "unknown style": (wav(tone(0.2)), {"style": "furious"}, 404, "unknown_style"),
    "unknown engine": (wav(tone(0.2)), {"engine": "gpt"}, 404, "unknown_engine"),
    "unknown field": (wav(tone(0.2)), {"stile": "neutral"}, 400, "malformed"),
    "unknown format": (wav(tone(0.2)), {"format": "fbx"}, 415, "unsupported_media"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_in_words_before_the_first_byte(service: TestClient, case: str) -> None:
    audio, fields, status, code = BAD[case]
    response = post(service, audio, **fields)
    problem = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert (response.status_code, problem["status"], problem["code"]) == (status, status, code), problem
    assert len(problem["detail"]) > 20
    assert post(service, wav(tone(0.1)), format="npz-stream").status_code == 200, "the service goes on"


def test_an_mp3_that_breaks_off_animates_as_far_as_it_goes(service: TestClient, tmp_path: Path) -> None:
    whole = mp3(tmp_path)
    response = post(service, whole[: len(whole) // 2], "voice.mp3", format="npz-stream")
    assert response.status_code == 200
    assert 0.3 * VOICE_S < int(response.headers["x-talker-frames"]) / 30 < 0.6 * VOICE_S


def test_an_mp3_that_breaks_off_before_any_sound_is_refused(service: TestClient, tmp_path: Path) -> None:
    response = post(service, mp3(tmp_path)[:300], "voice.mp3")
    assert (response.status_code, response.json()["code"]) == (415, "not_audio")


@pytest.mark.parametrize(("rate_hz", "channels"), [(8_000, 1), (96_000, 6)])
def test_any_rate_and_any_channels_work(service: TestClient, rate_hz: int, channels: int) -> None:
    response = post(service, wav(tone(0.7, rate_hz, channels), rate_hz), format="npz-stream")
    assert response.status_code == 200
    assert len(positions(response.content)) == math.ceil(0.7 * 30)


@pytest.mark.parametrize("count", [2_000, 20_000, 100_000])
def test_resolution_gives_exactly_so_many_points(service: TestClient, count: int) -> None:
    response = post(service, wav(tone(0.1)), resolution=str(count), format="npz-stream")
    assert positions(response.content).shape == (3, count, 3)


@pytest.fixture(scope="module")
def spoken(service: TestClient) -> Glb:
    return Glb.parse(post(service, VOICE.read_bytes(), "LJ001-0002.flac").content)


def test_a_voice_becomes_a_glb_that_keeps_its_promises(spoken: Glb) -> None:
    """At most 64 morph targets, at most 0.1 mm off, as long as the audio to a frame."""
    times, _ = spoken.sampler
    assert 1 <= len(spoken.targets) <= 64
    assert spoken.extras["max_error_mm"] <= 0.1
    assert abs(times[-1] + 1 / 30 - VOICE_S) <= 1 / 30


def test_the_glb_is_what_the_stream_says(service: TestClient, spoken: Glb) -> None:
    """Played at its keyframes, it is the exact frames to max_error_mm."""
    exact = positions(post(service, VOICE.read_bytes(), "LJ001-0002.flac", format="npz-stream").content)
    base, targets, (_, weights) = spoken.attribute("POSITION"), spoken.targets, spoken.sampler
    played = base + np.tensordot(weights, targets, 1)
    error = np.linalg.norm(played[:, : exact.shape[1]] - exact, axis=2).max()
    assert 1e3 * error <= spoken.extras["max_error_mm"] + 1e-4


@pytest.mark.skipif(
    not (shutil.which("node") and (ROOT / "viewer" / "node_modules").is_dir()),
    reason="needs node, and make browser-tools",
)
def test_the_khronos_validator_finds_nothing_wrong_with_it(service: TestClient, tmp_path: Path) -> None:
    path = tmp_path / "head.glb"
    path.write_bytes(post(service, VOICE.read_bytes(), "LJ001-0002.flac").content)
    run = subprocess.run(["node", str(ROOT / "viewer" / "validate.mjs"), str(path)], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def opening_mm(frames: np.ndarray) -> np.ndarray:
    """Between the lips, in the middle of the mouth, at each of the default head's frames."""
    head = load_head(ROOT / "weights" / "head.safetensors")
    columns = head.seal.opening(frames[:, head.rim] - head.atlas.vertices[head.rim])
    return 1e3 * columns[:, columns.shape[1] // 3 : 2 * columns.shape[1] // 3].mean(1)


def test_the_mouth_closes_on_b_m_p_and_opens_on_vowels(service: TestClient) -> None:
    """ "in being comparatively modern": what forced alignment calls b, m, p and m, within 50 ms of their middles."""
    pytest.importorskip("pocketsphinx")
    from training.corpus.alignment import align

    waveform = decode_audio(VOICE.read_bytes(), AudioLimits(10**7, 60))
    phones, _ = align(waveform, "in being comparatively modern")
    frames = positions(post(service, VOICE.read_bytes(), "x.flac", fps="100", format="npz-stream").content)
    opening = opening_mm(frames)

    def near(phone: Any) -> np.ndarray:
        middle = round(100 * phone.middle_s)
        return opening[max(middle - 5, 0) : middle + 6]

    closed = [near(phone).min() for phone in phones if phone.name in "bmp"]
    opened = [near(phone).max() for phone in phones if phone.name in ("aa", "ae", "ah", "eh")]
    assert len(closed) == 4
    assert max(closed) < 0.5, closed
    assert max(opened) > 5, opened


def test_silence_is_a_closed_mouth(service: TestClient) -> None:
    frames = positions(post(service, wav(np.zeros(RATE_HZ)), format="npz-stream").content)
    assert opening_mm(frames).max() < 1.0
