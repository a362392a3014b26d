"""`python tests/fuzz.py --minutes 10`: forged uploads against the whole service, until something breaks.

Sound files of every container, meshes of every format, examples and pictures are mutilated and posted, through the
real parsers and the isolated decoder; behind them the engine is a fake one, or with `--shipped` the real one, which
registers what still is a head. A finding is an answer that is no refusal and no success, one that takes long, or a
decoder that died. Each is saved, and can be posted again: `curl -F audio=@build/fuzz/…`.
"""

import argparse
import io
import random
import re
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from conftest import FAKE_REPORT, FakeEngine, FakeTemplate, fake_style
from fastapi.testclient import TestClient
from mesh_files import FORMATS, OBJ, SKIN, glb, meshlab, ply
from test_audio import KINDS, encode, noise
from test_examples import made, npz, picture, zipped

from models.core import StylePivot
from models.examples.files import read_example
from models.meshes import MeshLimits, read_mesh
from models.pictures import PictureLimits, decode_picture
from service.app import create_app
from service.settings import Settings

OUTPUT = Path("build/fuzz")
SLOW_S = 30.0
"""What no forged file of a few kilobytes may take, on a machine with other things to do."""
FINE = {200, 201, 400, 409, 413, 415, 422}
NUMBERS = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
WORDS = [
    b"nan",
    b"inf",
    b"-1",
    b"0",
    b"1e309",
    b"99999999999999999999",
    b"",
    b"1/1/1/1",
    b"\xff\xfe",
    b"[" * 2000,
    b"9" * 5000,
]
SETTINGS = Settings(
    isolate=True,
    max_audio_s=20,
    max_upload_bytes=4 << 20,
    max_vertices=20_000,
    max_triangles=20_000,
    max_frame_points=1_000_000,
    log_level="critical",
)


class ParsingEngine(FakeEngine):
    """Parses as the real one does, and makes nothing of it."""

    def register(
        self,
        file: BinaryIO,
        *,
        id: str | None = None,
        landmarks: bytes | None = None,
        texture: bytes | None = None,
        limits: MeshLimits,
        progress: Callable[[str], None] = lambda _: None,
    ) -> FakeTemplate:
        """Read the mesh and its picture."""
        mesh = read_mesh(file, limits)
        if (picture := texture or mesh.texture) is not None:
            decode_picture(io.BytesIO(picture), PictureLimits(4096, 1))
        return FakeTemplate(id or "head-0", self.mesh, "unknown", FAKE_REPORT)

    def add_template(self, template: Any) -> None:
        """Keep nothing."""

    def read_style(self, file: BinaryIO, id: str = "upload") -> StylePivot:
        """Read the example."""
        read_example(file)
        return fake_style(id, "upload")

    def add_style(self, pivot: StylePivot) -> None:
        """Keep nothing."""


@dataclass(frozen=True)
class Target:
    """A file field, whole files that it takes, and what else the form has."""

    route: str
    field: str
    seeds: tuple[bytes, ...]
    others: dict[str, Any]

    def post(self, client: TestClient, content: bytes) -> Any:
        """Send a file in that field."""
        files = {name: value for name, value in self.others.items() if isinstance(value, bytes)}
        data = {name: value for name, value in self.others.items() if isinstance(value, str)}
        return client.post(self.route, files=files | {self.field: ("file", content)}, data=data)


def targets() -> list[Target]:
    """Everything that takes a file."""
    sounds = tuple(encode(noise(0.2, 48_000, 2), 48_000, kind) for kind in KINDS)
    square = glb()
    meshes = (OBJ.encode(), *map(ply, FORMATS), meshlab([[0, 0, 1, 0, 1, 1], [0, 0, 1, 1, 0, 1]]), square)
    meshes += (zipped({"head.obj": OBJ.encode(), "head.mtl": b"newmtl skin\nmap_Kd a.png\n", "a.png": SKIN}),)
    examples = tuple(made(name) for name in ("glb", "glb-sequence", "obj", "npz-stream"))
    examples += (npz(vertices=np.zeros((3, 4, 3), np.float32), fps=30),)
    shades = np.random.default_rng(0).integers(60, 200, (64, 64, 3), np.uint8)
    pictures = tuple(picture(shades, kind) for kind in ("png", "jpeg"))
    return [
        Target("/animate", "audio", sounds, {"format": "npz-stream"}),
        Target("/templates", "mesh", meshes, {}),
        Target("/templates", "texture", pictures, {"mesh": OBJ.encode()}),
        Target("/animate", "style_file", examples, {"audio": sounds[0]}),
        Target("/upsample", "map", pictures, {"size": "1024"}),
    ]


def mutilated(seed: bytes, other: bytes, chance: random.Random) -> bytes:
    """The file with a few things done to it, mostly in its first part, where the headers are."""
    data = bytearray(seed)
    for _ in range(chance.choice((1, 1, 2, 3, 8, 30))):
        if not data:
            break
        at = int(len(data) * chance.random() ** chance.choice((1, 3)))
        chance.choice(EDITS)(data, at, other, chance)
    return bytes(data[: SETTINGS.max_upload_bytes])


def _flip(data: bytearray, at: int, other: bytes, chance: random.Random) -> None:
    data[at] ^= 1 << chance.randrange(8)


def _number(data: bytearray, at: int, other: bytes, chance: random.Random) -> None:
    code = chance.choice(("<B", "<H", ">H", "<I", ">I", "<Q", ">Q", "<f"))
    value = chance.choice((float("nan"), 1e38)) if code == "<f" else chance.choice(NUMBERS)
    size = struct.calcsize(code)
    data[at : at + size] = struct.pack(code, value if code == "<f" else value & (256**size - 1))


def _drop(data: bytearray, at: int, other: bytes, chance: random.Random) -> None:
    del data[at : at + chance.choice((1, 4, 100, len(data)))]


def _repeat(data: bytearray, at: int, other: bytes, chance: random.Random) -> None:
    data[at:at] = data[at : at + chance.choice((1, 8, 500))] * chance.choice((1, 2, 200))


def _splice(data: bytearray, at: int, other: bytes, chance: random.Random) -> None:
    start = chance.randrange(len(other))
    data[at:] = other[start:]


def _word(data: bytearray, at: int, other: bytes, chance: random.Random) -> None:
    """Another number, or none, in place of one that is written out, as in OBJ and in JSON."""
    words = list(re.finditer(rb"-?[0-9.]+", bytes(data[at : at + 400])))
    if words:
        word = chance.choice(words)
        data[at + word.start() : at + word.end()] = chance.choice(WORDS)


EDITS = (_flip, _number, _number, _drop, _repeat, _splice, _word, _word)


@contextmanager
def served(engine: Any) -> Iterator[TestClient]:
    """The service, warm."""
    with TestClient(create_app(SETTINGS, engine), raise_server_exceptions=False) as client:
        while client.get("/health/ready").status_code != 200:
            time.sleep(0.05)
        yield client


def fuzz(client: TestClient, seed: int, until: Callable[[int], bool]) -> tuple[Counter[str], list[str]]:
    """Post forged files until `until(count)`; what was answered how often, and the findings."""
    chance, answers, findings, all_targets = random.Random(seed), Counter[str](), list[str](), targets()
    while not until(answers.total()):
        target = chance.choices(all_targets, weights=(6, 6, 1, 3, 1))[0]
        content = mutilated(chance.choice(target.seeds), chance.choice(target.seeds), chance)
        started = time.monotonic()
        response = target.post(client, content)
        seconds = time.monotonic() - started
        code = "" if response.status_code < 400 else f" {response.json()['code']}"
        answers[f"{target.route} {target.field} {response.status_code}{code}"] += 1
        if response.status_code not in FINE or seconds > SLOW_S or code == " decoder_failed":
            OUTPUT.mkdir(parents=True, exist_ok=True)
            path = OUTPUT / f"{target.field}-{seed}-{answers.total()}"
            path.write_bytes(content)
            findings.append(f"{path}: {target.route} {response.status_code}{code} after {seconds:.1f} s")
            print(findings[-1], file=sys.stderr, flush=True)
    return answers, findings


def main() -> int:
    """Fuzz for a while, then tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--shipped", action="store_true", help="behind the parsers, the real engine")
    options = parser.parse_args()
    if options.shipped:
        from models.engine import load_engine

        engine = load_engine()
    else:
        engine = ParsingEngine()
    deadline = time.monotonic() + 60 * options.minutes
    with served(engine) as client:
        answers, findings = fuzz(client, options.seed, lambda _: time.monotonic() > deadline)
    for answer, count in sorted(answers.items()):
        print(f"{count:7} {answer}")
    print(f"seed {options.seed}: {answers.total()} files, {len(findings)} findings")
    return int(bool(findings))


if __name__ == "__main__":
    sys.exit(main())
