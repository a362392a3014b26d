"""Many clients at once: nothing is cut, nothing leaks, and nobody's answer depends on who else asks.

README.md beside this file explains it. The service is one of its own, unless --url names another. What fails is what
depends on the service alone: ratios, not times.
"""

import argparse
import asyncio
import hashlib
import os
import platform
import random
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import wave
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from time import perf_counter

import numpy as np

from models.audio import AudioLimits, decode_audio
from models.core import SAMPLE_RATE_HZ
from talker_client.async_client import AsyncTalker
from talker_client.cards import AnimateFields
from talker_client.frames import CHUNK, MAGIC, PREFIX, read_frames
from talker_client.problems import TalkerBusy, Unreachable

SOUND = Path(__file__).parents[1] / "tests" / "data" / "LJ001-0002.flac"
SERVE = [sys.executable, "-c", "import sys; from service.cli import main; sys.exit(main())", "serve"]
CLIP_S = 1.0
STARTS_S = (0.0, 0.3, 0.6, 0.9)
WARM_REQUESTS = 100
SLOW, LEAVES = 0.05, 0.05
"""Shares of clients that read slowly, and that leave after the first frame."""
SLOW_PAUSE_S = 0.03
LONGEST_WAIT_S = 10.0
READY_S = 300.0

MAX_GROWTH = 0.05
MAX_WAIT = 3.0
MIN_THROUGHPUT = 0.8
TOLERANCE_M = 1e-5
"""On a GPU, where a batch's size shows in the last bits."""


@dataclass(frozen=True, eq=False)
class Case:
    """A request that can be made again."""

    name: str
    share: int
    fields: AnimateFields
    speech: bytes


@dataclass(frozen=True)
class Result:
    """One answer: seconds to its first frame (npz-stream) and to its end; `body` is None where the client left."""

    case: Case
    first_s: float | None
    whole_s: float
    body: bytes | None


@dataclass
class Tally:
    """What came of the requests of one run."""

    results: list[Result] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    different: Counter[str] = field(default_factory=Counter)
    elapsed_s: float = 0.0

    @property
    def done(self) -> int:
        return len(self.results) + self.errors.total()

    def first_s(self) -> list[float]:
        return [result.first_s for result in self.results if result.first_s is not None]

    def whole_s(self, name: str = "") -> list[float]:
        return [r.whole_s for r in self.results if r.body is not None and r.case.name.startswith(name)]

    def throughput(self) -> float:
        """Seconds of speech a second."""
        return CLIP_S * len(self.results) / self.elapsed_s


class FirstFrame:
    """Notices the first chunk of frames in an npz-stream, however it is cut."""

    def __init__(self) -> None:
        self._skip, self._held = len(MAGIC), b""

    def came(self, data: bytes) -> bool:
        """Whether the first chunk has come whole with `data`; do not ask again after that."""
        self._held += data
        while len(self._held) >= self._skip + PREFIX.size:
            kind, size = struct.unpack_from(PREFIX.format, self._held, self._skip)
            end = self._skip + PREFIX.size + size
            if kind == CHUNK:
                return len(self._held) >= end
            self._held, self._skip = self._held[end:], max(0, end - len(self._held))
        return False


def cases() -> list[Case]:
    """Short clips, mostly of mmtalker as streams; the shares are of a hundred."""
    clips = [cut_speech(start) for start in STARTS_S]
    stream: AnimateFields = {"format": "npz-stream"}
    made = [Case("mmtalker npz-stream", 15, stream, clip) for clip in clips]
    made.append(Case("mmtalker npz-stream", 8, {**stream, "style": "smiling(0.7)+sad(0.3)", "fps": 25}, clips[0]))
    made.append(Case("mmtalker npz-stream", 7, {**stream, "resolution": 2000}, clips[1]))
    made.append(Case("mmtalker glb", 10, {"format": "glb"}, clips[2]))
    made.append(Case("textalker npz-stream", 8, {**stream, "engine": "textalker", "seed": 1}, clips[3]))
    made.append(Case("textalker npz-stream", 4, {**stream, "engine": "textalker", "style": "stern"}, clips[0]))
    made.append(Case("textalker glb", 3, {"format": "glb", "engine": "textalker", "seed": 2}, clips[1]))
    return made


def cut_speech(start_s: float) -> bytes:
    """CLIP_S of the tests' clip as 16-bit WAV."""
    samples = decode_audio(SOUND.read_bytes(), AudioLimits(2**30, 60)).samples
    first = round(start_s * SAMPLE_RATE_HZ)
    file = BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(SAMPLE_RATE_HZ)
        out.writeframes((samples[first : first + round(CLIP_S * SAMPLE_RATE_HZ)] * 32767).astype("<i2").tobytes())
    return file.getvalue()


async def ask(talker: AsyncTalker, case: Case, *, slow: bool = False, leaves: bool = False) -> Result:
    """One request, read to its end, slowly, or only to its first frame. Raises TalkerBusy, and what must not happen."""
    started, first_s, body, notice = perf_counter(), None, [], FirstFrame()
    async with await talker.animate(case.speech, **case.fields) as animation:
        async for chunk in animation:
            body.append(chunk)
            if first_s is None and case.fields["format"] == "npz-stream" and notice.came(chunk):
                first_s = perf_counter() - started
            if leaves and (first_s is not None or case.fields["format"] != "npz-stream"):
                return Result(case, first_s, perf_counter() - started, None)
            if slow:
                await asyncio.sleep(SLOW_PAUSE_S)
    return Result(case, first_s, perf_counter() - started, b"".join(body))


async def ask_until_done(talker: AsyncTalker, case: Case, tally: Tally, dice: random.Random) -> None:
    """A client with patience: refused, it waits as long as it was told, and asks again."""
    slow, leaves = dice.random() < SLOW, dice.random() < LEAVES
    while True:
        try:
            tally.results.append(await ask(talker, case, slow=slow, leaves=leaves))
            return
        except TalkerBusy as refusal:
            if refusal.retry_after_s is None:
                tally.errors[f"{refusal.status} without Retry-After"] += 1
                return
            tally.refusals[f"{refusal.status} {refusal.code}"] += 1
            await asyncio.sleep(min(refusal.retry_after_s, LONGEST_WAIT_S) * dice.uniform(0.5, 1.5))
        except Exception as error:
            tally.errors[f"{type(error).__name__}: {error}"] += 1
            return


async def run(talker: AsyncTalker, asked: Sequence[Case], clients: int, tally: Tally, seed: int = 0) -> Tally:
    """`asked`, by so many clients at once, each of which asks again as soon as it has its answer."""
    left = iter(enumerate(asked))

    async def client() -> None:
        for index, case in left:
            await ask_until_done(talker, case, tally, random.Random(seed + index))

    started = perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    tally.elapsed_s += perf_counter() - started
    return tally


def compare(tally: Tally, expected: dict[Case, bytes], exact: bool) -> None:
    """Count the answers that are not what one client alone was given."""
    for result in tally.results:
        if result.body is not None and not same(result, expected[result.case], exact):
            tally.different[result.case.name] += 1


def same(result: Result, expected: bytes, exact: bool) -> bool:
    assert result.body is not None
    if exact or result.case.fields["format"] != "npz-stream":
        return not exact or hashlib.sha256(result.body).digest() == hashlib.sha256(expected).digest()
    mine, theirs = (
        np.concatenate([chunk.positions for chunk in read_frames(BytesIO(body))[1]]) for body in (result.body, expected)
    )
    return mine.shape == theirs.shape and float(np.abs(mine - theirs).max()) <= TOLERANCE_M


@dataclass
class Memory:
    """Resident memory of a process and its children, against how many requests were done."""

    pid: int
    samples: list[tuple[int, float]] = field(default_factory=list)

    async def watch(self, tally: Tally) -> None:
        while True:
            self.samples.append((tally.done, resident_mib(self.pid)))
            await asyncio.sleep(0.5)

    def settled(self, total: int) -> list[tuple[int, float]]:
        """Samples after the first hundred requests; of a short run, after its first quarter."""
        return [sample for sample in self.samples if sample[0] >= min(WARM_REQUESTS, total // 4)]

    def growth(self, total: int) -> float:
        """How far the median of the last third exceeds that of the first."""
        values = [mib for _, mib in self.settled(total)]
        third = max(1, len(values) // 3)
        return statistics.median(values[-third:]) / statistics.median(values[:third]) - 1

    def slope(self, total: int) -> float:
        """MiB for every hundred requests."""
        done, mib = zip(*self.settled(total), strict=True)
        return 100 * statistics.linear_regression(done, mib).slope if len(set(done)) > 1 else 0.0


def resident_mib(pid: int) -> float:
    """Of a process and its children; 0 for one that has ended."""
    total = 0.0
    with suppress(OSError):
        total = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += sum(resident_mib(int(child)) for child in (task / "children").read_text().split())
    return total


@asynccontextmanager
async def service(url: str | None) -> AsyncIterator[tuple[str, int | None]]:
    """The address of a service that is ready, and the process if it is our own."""
    if url is not None:
        yield url, None
        return
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    environment = {"TALKER_LOG_LEVEL": "warning", **os.environ}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([*SERVE, "--port", str(port)], env=environment, stdout=log, stderr=log)
        try:
            yield f"http://127.0.0.1:{port}", process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
            log.seek(0)
            sys.stderr.write(log.read().decode(errors="replace"))


async def wait_ready(talker: AsyncTalker) -> None:
    deadline = perf_counter() + READY_S
    while perf_counter() < deadline:
        with suppress(Unreachable):
            if await talker.ready():
                return
        await asyncio.sleep(0.2)
    raise SystemExit(f"the service was not ready within {READY_S:g} s")


def percentiles(values: Sequence[float]) -> str:
    """p50, p95 and p99 in seconds."""
    return " | ".join(f"{value:.3f}" for value in np.percentile(values, (50, 95, 99))) if values else "- | - | -"


def report(serial: Tally, parallel: Tally, clients: int, memory: Memory | None, total: int) -> list[str]:
    """Print the tables; what failed."""
    print(f"\n| | clients | requests | p50 s | p95 s | p99 s |\n|---|{'---:|' * 5}")
    names = sorted({result.case.name for result in [*serial.results, *parallel.results]})
    for tally, number in ((serial, 1), (parallel, clients)):
        firsts = tally.first_s()
        print(f"| first frame | {number} | {len(firsts)} | {percentiles(firsts)} |")
        for name in names:
            print(f"| whole {name} | {number} | {len(tally.whole_s(name))} | {percentiles(tally.whole_s(name))} |")
    print("\n| clients | requests | left early | refused and asked again | speech s / s | wall s |")
    print(f"|{'---:|' * 6}")
    for tally, number in ((serial, 1), (parallel, clients)):
        left, refused = sum(r.body is None for r in tally.results), tally.refusals.total()
        print(f"| {number} | {tally.done} | {left} | {refused} | {tally.throughput():.2f} | {tally.elapsed_s:.1f} |")
    if parallel.refusals:
        print(f"\nrefusals: {', '.join(f'{count} x {name}' for name, count in parallel.refusals.items())}")
    failures = [f"{count} x {what}" for t in (serial, parallel) for what, count in t.errors.items()]
    failures += [
        f"{count} x {name} differs from what one client was given" for name, count in parallel.different.items()
    ]
    bound_s = MAX_WAIT * clients * statistics.mean(serial.whole_s())
    wait_s = float(np.percentile(parallel.first_s(), 99))
    print(f"\nfirst frame, p99 at {clients} clients: {wait_s:.2f} s; wanted at most {bound_s:.2f} s")
    if wait_s > bound_s:
        failures.append(f"first frame {wait_s:.2f} s; wanted at most {bound_s:.2f} s")
    ratio = parallel.throughput() / serial.throughput()
    print(f"throughput of {clients} clients to that of one: {ratio:.2f}; wanted {MIN_THROUGHPUT:g} or more")
    if ratio < MIN_THROUGHPUT:
        failures.append(f"throughput fell to {ratio:.2f} of one client's")
    if memory is not None:
        growth, peak = memory.growth(total), max(mib for _, mib in memory.samples)
        print(f"memory: {growth:+.1%}, {memory.slope(total):+.1f} MiB a hundred requests, at most {peak:.0f} MiB")
        if growth > MAX_GROWTH:
            failures.append(f"memory grew by {growth:.1%}; wanted at most {MAX_GROWTH:.0%}")
    return failures


async def measure(options: argparse.Namespace) -> list[str]:
    """Ask alone, then together; what failed."""
    every = cases()
    dice = random.Random(0)
    asked = dice.choices(every, [case.share for case in every], k=options.requests)
    async with (
        service(options.url) as (url, pid),
        AsyncTalker(url, os.environ.get("TALKER_API_KEY"), retries=0) as talker,
    ):
        await wait_ready(talker)
        exact = (await talker.info())["device"] == "cpu"
        expected: dict[Case, bytes] = {}
        for case in every:
            body = (await ask(talker, case)).body
            assert body is not None
            expected[case] = body
        serial, parallel = Tally(), Tally()
        alone = max(len(every), options.requests // 20)  # before and after, as other work on the machine comes and goes
        await run(talker, asked[:alone], 1, serial)
        memory = None if pid is None else Memory(pid)
        watch = None if memory is None else asyncio.create_task(memory.watch(parallel))
        await run(talker, asked, options.clients, parallel)
        if watch is not None:
            watch.cancel()
        await run(talker, asked[-alone:], 1, serial)
        compare(serial, expected, exact)
        compare(parallel, expected, exact)
        return report(serial, parallel, options.clients, memory, options.requests)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--url", help="a service that runs already; its memory is not watched")
    options = parser.parse_args()
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {load}; {options.requests} requests of {CLIP_S:g} s")
    failures = asyncio.run(measure(options))
    print("\n" + ("\n".join(f"FAILED: {failure}" for failure in failures) or "passed"))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
