"""The README, executed: its requests, its Python, its links, its map of the folders."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import pytest
from PIL import Image
from test_glb import Glb

from talker_client.frames import read_frames

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
TALKER = [sys.executable, "-c", "import sys; from service.cli import main; sys.exit(main())"]


def blocks(language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
    return [text for name, text in fenced if name == language]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    shared = tmp_path_factory.getbasetemp().parent
    made = {f"TALKER_{name.upper()}": str(tmp_path_factory.mktemp(name)) for name in ("styles", "templates")}
    return os.environ | made | {"TALKER_CACHE": str(shared / "cache"), "TALKER_THREADS": "1"}


@pytest.fixture(scope="module")
def port(environment: dict[str, str]) -> Iterator[int]:
    """The port of a service of its own that is ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number = int(probe.getsockname()[1])
    server = subprocess.Popen([*TALKER, "serve", "--port", str(number)], cwd=ROOT, env=environment)
    try:
        deadline = time.monotonic() + 240
        while not is_ready(number):
            assert server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield number
    finally:
        server.terminate()
        server.wait(60)


def is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready") as answer:
            return answer.status == 200
    except urllib.error.URLError:
        return False


@pytest.mark.timeout(900)  # a skin of 8192 is painted
@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_its_requests_are_answered(port: int, tmp_path: Path) -> None:
    requests = [block for block in blocks("sh") if block.startswith("curl")]
    assert len(requests) == 6
    for request in requests:
        command = request.replace(":8000/", f":{port}/").replace(" -o ", f" -o {tmp_path}/")
        command = re.sub(r"@(\w+\.glb)", rf"@{tmp_path}/\1", command)
        subprocess.run(["bash", "-ec", command], cwd=ROOT, check=True, capture_output=True)
    assert len(Glb.parse((tmp_path / "head.glb").read_bytes()).targets) <= 64
    with (tmp_path / "head.frames").open("rb") as file:
        header, chunks = read_frames(file)
        assert sum(len(chunk.positions) for chunk in chunks) == header.frame_count
        assert len(header.arrays["vertices"]) == 20_000
    with ZipFile(tmp_path / "frames.zip") as archive:
        assert len(archive.namelist()) == header.frame_count
    with ZipFile(tmp_path / "head-8k.zip") as archive:
        with archive.open("wrinkle_0.jpg") as file, Image.open(file) as image:
            assert image.size == (8192, 8192)
        assert sum(name.startswith("wrinkle") for name in archive.namelist()) <= 8
        assert json.loads(archive.read("receipt.json"))["psnr_db"] > 40
    assert (tmp_path / "head-8k.zip").stat().st_size < 150e6
    assert len(Glb.parse((tmp_path / "speaking.glb").read_bytes()).targets) > 0
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/styles") as answer:
        assert {"wry", "from-head"} <= {style["id"] for style in json.load(answer)}


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_the_upsampling_that_the_formats_tell_of_works(port: int, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "formats.md").read_text()
    requests = [line.strip() for line in text.splitlines() if line.strip().endswith((" large.png", " frame-8k.png"))]
    assert len(requests) == 2
    for name, size in (("wrinkles", 256), ("neutral", 512), ("frame", 512)):
        Image.new("RGB", (size, size), (150, 128, 120)).save(tmp_path / f"{name}.png")
    for request in requests:
        command = request.replace(":8000/", f":{port}/")
        subprocess.run(["bash", "-ec", command], cwd=tmp_path, check=True, capture_output=True)
    for name, size in (("large", 4096), ("frame-8k", 8192)):
        with Image.open(tmp_path / f"{name}.png") as image:
            assert image.size == (size, size)


def test_its_command_line_writes_a_head(environment: dict[str, str], tmp_path: Path) -> None:
    (command,) = [block for block in blocks("sh") if block.startswith(".venv/bin/talker")]
    arguments = command.replace(" -o ", f" -o {tmp_path}/").split()[1:]
    subprocess.run([*TALKER, *arguments], cwd=ROOT, env=environment, check=True, capture_output=True)
    assert Glb.parse((tmp_path / "head.glb").read_bytes()).extras["engine"] == "mmtalker"


def test_its_python_prints_a_line_a_frame(environment: dict[str, str], tmp_path: Path) -> None:
    (program,) = blocks("python")
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert lines[0] == "0.0 (2000, 3)"
    assert len(lines) == 48


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", "weights/README.md", "docs/formats.md", "docs/heads.md", "docs/live.md"]
)
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text())
    assert [target for target in targets if not (path.parent / target).exists()] == []


def test_its_map_names_every_folder() -> None:
    (tree,) = [block for block in blocks("") if block.startswith("models/")]
    named = {line.split("/")[0] for line in tree.splitlines()}
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("no git checkout")
    folders = {line.split("/")[0] for line in tracked.stdout.splitlines() if "/" in line}
    assert named == {folder for folder in folders if not folder.startswith(".")}
