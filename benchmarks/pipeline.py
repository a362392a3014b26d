"""How fast speech becomes a file, stage by stage, and in how much memory. README.md beside this file explains it.

Each length runs in a process of its own, whose peak memory is that length's.
"""

import argparse
import os
import platform
import resource
import wave
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np

from models.audio import AudioLimits, decode_audio
from models.core import PLAIN_TEXTURE, SAMPLE_RATE_HZ, AnimateOptions, Clip
from models.engine import ENGINES, load_engine
from service.encoders import ENCODERS, encode
from service.fields import TEXTURES
from service.settings import Settings
from talker_client.frames import CHUNK

SOUND = Path(__file__).parents[1] / "tests" / "data" / "LJ001-0002.flac"
NO_LIMITS = AudioLimits(max_bytes=2**40, max_seconds=1e6)
STAGES = ("decode", "speech features", "motion", "maps", "seal and place", "encode")
HEADS = ["audio s", *STAGES, "total", "first frame s", "engine MiB", "clip MiB"]
MIB_IN_KIB = 1024


@dataclass(frozen=True)
class Case:
    """What one process measures."""

    speech: Path
    format: str
    options: AnimateOptions


@dataclass(frozen=True)
class Result:
    """Seconds by stage; in MiB the peak once the engine is loaded and warm, and how far the clip exceeds it."""

    audio_s: float
    stages_s: dict[str, float]
    total_s: float
    first_frame_s: float
    engine_mib: float
    clip_mib: float

    def row(self) -> list[str]:
        """The table's row; stages and total as multiples of real time."""
        seconds = [self.stages_s.get(stage, 0.0) for stage in STAGES] + [self.total_s]
        speeds = [f"{self.audio_s / spent:.3g}" if spent else "-" for spent in seconds]
        memory = [f"{self.engine_mib:.0f}", f"{self.clip_mib:.0f}"]
        return [f"{self.audio_s:g}", *speeds, f"{self.first_frame_s:.2f}", *memory]


def measure(case: Case) -> Result:
    """Load, warm up, wait for the first frame of a stream, then time one whole file."""
    settings, clock = Settings(), defaultdict[str, float](float)
    engine = load_engine(settings.weights, settings.cache, settings.device, settings.threads)
    engine.warm_up()
    before_mib = peak_mib()
    watch_stages(clock, case.format)

    def started_clip(options: AnimateOptions) -> Clip:
        with case.speech.open("rb") as file:
            waveform = timed(clock, "decode", decode_audio)(file, NO_LIMITS)
        return engine.animate(waveform, options)

    large = case.options.texture is not None and case.options.texture > PLAIN_TEXTURE
    started = perf_counter()
    streamed = replace(case.options, texture=None) if large else case.options
    stream = encode(started_clip(streamed), ENCODERS["npz-stream"]())
    next(chunk for chunk in stream if chunk.startswith(CHUNK))
    first_frame_s = perf_counter() - started
    stream.close()
    clock.clear()

    started = perf_counter()
    clip = started_clip(case.options)
    for _ in encode(clip, ENCODERS[case.format]()):
        pass
    total_s = perf_counter() - started
    audio_s = clip.frame_count / clip.fps
    return Result(audio_s, dict(clock), total_s, first_frame_s, before_mib, peak_mib() - before_mib)


def watch_stages(clock: dict[str, float], format_name: str) -> None:
    """Let the engine's parts and the encoder tell the clock how long they take, for the rest of this process."""
    from models.features import BlockEncoder
    from models.lips import LipSeal
    from models.mmtalker.streaming import MMTalkerMotion
    from models.template import Template
    from models.textalker.decoding import PairDecoders
    from models.textalker.windows import LatentMotion

    for stage, owner, name in (
        ("speech features", BlockEncoder, "step"),
        ("motion", MMTalkerMotion, "step"),
        ("motion", LatentMotion, "step"),
        ("maps", PairDecoders, "quantise"),
        ("maps", PairDecoders, "maps"),
        ("seal and place", LipSeal, "close"),
        ("seal and place", Template, "place"),
    ):
        setattr(owner, name, timed(clock, stage, getattr(owner, name)))
    encoder = ENCODERS[format_name]
    for name in ("begin", "frame", "end"):
        setattr(encoder, name, timed(clock, "encode", exhausted(getattr(encoder, name))))


def timed(clock: dict[str, float], stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def run(*arguments: Any, **named: Any) -> Any:
        started = perf_counter()
        result = function(*arguments, **named)
        clock[stage] += perf_counter() - started
        return result

    return run


def exhausted(function: Callable[..., Iterator[bytes]]) -> Callable[..., list[bytes]]:
    """A generator does its work when it is read."""
    return lambda *arguments: list(function(*arguments))


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB_IN_KIB


def write_speech(seconds: float, target: Path) -> Path:
    """The clip of the tests over and over, as 16-bit WAV at 16 kHz."""
    samples = decode_audio(SOUND.read_bytes(), NO_LIMITS).samples
    looped = np.resize(samples, round(seconds * SAMPLE_RATE_HZ))
    with wave.open(str(target), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes((looped * 32767).astype("<i2").tobytes())
    return target


def machine() -> str:
    """What the figures hold for."""
    settings = Settings()
    packages = ", ".join(f"{name} {version(name)}" for name in ("talker", "torch", "onnxruntime", "numpy"))
    threads = settings.threads or "automatic"
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {packages}; "
        f"device {settings.device}, threads {threads}, load {os.getloadavg()[0]:.1f}"
    )


def table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---:"] * len(heads), *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("| " + " | ".join(map(str.rjust, line, widths)) + " |" for line in lines)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--seconds", type=float, nargs="+", default=[10, 60, 600], help="lengths of the speech")
    parser.add_argument("--engine", choices=ENGINES, default="mmtalker", help="which method animates")
    parser.add_argument("--texture", type=int, choices=TEXTURES, help="size of textalker's wrinkle textures")
    parser.add_argument("--format", choices=list(ENCODERS), default="glb", help="what is written")
    parser.add_argument("--resolution", type=int, help="surface points; the head's own vertices without it")
    parser.add_argument("--fps", type=float, default=30, help="frames per second")
    return parser.parse_args()


def main() -> None:
    """Print the machine, the case and the table."""
    wanted = parse()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # of the processes below: as in `talker`
    options = AnimateOptions(wanted.engine, wanted.resolution, wanted.fps, texture=wanted.texture)
    print(machine())
    texture = f"textures of {wanted.texture}" if wanted.texture else "no textures"
    what = f"{wanted.engine}, {wanted.resolution or 'native'} points, {texture}, {wanted.fps:g} fps, {wanted.format}"
    print(f"{what}; stages in times real time\n")
    with TemporaryDirectory() as folder, ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
        warm = write_speech(1, Path(folder) / "warm.wav")
        pool.submit(measure, Case(warm, wanted.format, options)).result()  # the first start exports, which takes memory
        speeches = (write_speech(seconds, Path(folder) / f"{seconds:g}.wav") for seconds in wanted.seconds)
        results = [pool.submit(measure, Case(speech, wanted.format, options)).result() for speech in speeches]
    print(table(HEADS, [result.row() for result in results]))


if __name__ == "__main__":
    main()
