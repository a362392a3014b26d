"""Talker's GLBs where they are looked at: three.js in Chromium, and the Khronos validator."""

import json
import os
import shutil
import subprocess
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_glb import Glb
from uploads import uploaded

from models.core import Clip, Frame
from models.template import default_template, load_head
from service.encoders import ENCODERS, encode

ROOT = Path(__file__).parents[1]
VIEWER = ROOT / "viewer"
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
MISSING = [
    what
    for what, there in (
        ("node", shutil.which("node")),
        (CHROMIUM, Path(CHROMIUM).exists()),
        ("`npm ci` in viewer/", (VIEWER / "node_modules").is_dir()),
    )
    if not there
]
pytestmark = [pytest.mark.browser, pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}")]

FPS, FRAMES = 10.0, 13
SHUT_S, BETWEEN_S, OPEN_S = 0.0, 0.55, 0.6
SIZE = 320


def node(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = ["node", str(VIEWER / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def jaw_clip(came_as_a_file: bool = False) -> Clip:
    """The default head for 1.2 s; all that lies below its lips in front goes down by 15 mm, and up again.

    A head that came as a file has three materials in turn.
    """
    head = load_head(ROOT / "weights" / "head.safetensors")
    mesh = default_template(head).mesh
    mesh = uploaded(mesh) if came_as_a_file else mesh
    _, y, z = mesh.vertices.T
    below = np.clip((mesh.vertices[head.rim, 1].mean() - y) / 0.02, 0, 1) * np.clip((z - 0.05) / 0.05, 0, 1)
    jaw = np.stack([0 * below, -0.015 * below, 0 * below], axis=1)
    opening = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FRAMES) / (FRAMES - 1))
    frames = (
        Frame(index, index / FPS, (mesh.vertices + share * jaw).astype(np.float32))
        for index, share in enumerate(opening)
    )
    return Clip(mesh, FPS, FRAMES, 0, "mmtalker", {"mmtalker": "0" * 64}, frames)


@pytest.fixture(scope="module", params=[False, True], ids=["one material", "three materials"])
def glb(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("browser") / "jaw.glb"
    path.write_bytes(b"".join(encode(jaw_clip(request.param), ENCODERS["glb"]())))
    return path


@dataclass(frozen=True)
class Rendered:
    """What one run of render.mjs left."""

    report: dict[str, Any]
    folder: Path

    def picture(self, view: str, time_s: float) -> np.ndarray:
        return np.asarray(Image.open(self.folder / f"{view}_{time_s:.3f}.png").convert("RGB"), float)


@pytest.fixture(scope="module")
def rendered(glb: Path) -> Rendered:
    times = ",".join(map(str, (SHUT_S, BETWEEN_S, OPEN_S)))
    options = ["--times", times, "--view", "front,mouth", "--size", SIZE, "--contact-sheet", glb.with_suffix(".png")]
    run = node("render.mjs", glb, glb.parent, *options)
    assert run.returncode == 0, run.stdout + run.stderr
    return Rendered(json.loads(run.stdout), glb.parent)


def test_three_js_loads_the_whole_clip_and_complains_of_nothing(rendered: Rendered, glb: Path) -> None:
    report = rendered.report
    assert report["complaints"] == []
    assert report["duration_s"] == pytest.approx((FRAMES - 1) / FPS)
    assert report["frames"] == FRAMES
    assert report["morph_targets"] == len(Glb.parse(glb.read_bytes()).targets)


def test_the_weights_are_those_of_the_exact_time(rendered: Rendered, glb: Path) -> None:
    """Between two frames they are the linear interpolation."""
    times, weights = Glb.parse(glb.read_bytes()).sampler
    for picture in rendered.report["pictures"]:
        wanted = [np.interp(picture["time_s"], times, target) for target in weights.T]
        assert picture["influences_norm"] == pytest.approx(np.linalg.norm(wanted), abs=1e-6)


def test_the_head_is_in_the_picture(rendered: Rendered) -> None:
    """The background shows in the corners and nowhere near the middle, which is not of one colour."""
    picture = rendered.picture("front", SHUT_S)
    assert picture.shape == (SIZE, SIZE, 3)
    corners, middle = picture[[0, 0, -1, -1], [0, -1, 0, -1]], picture[SIZE // 4 : -SIZE // 4, SIZE // 3 : -SIZE // 3]
    assert np.ptp(corners, axis=0).max() == 0
    assert (np.abs(middle - corners[0]).max(axis=2) > 10).mean() > 0.95
    assert middle.std() > 10


def test_the_mouth_moves_and_the_forehead_does_not(rendered: Rendered) -> None:
    change = np.abs(rendered.picture("mouth", OPEN_S) - rendered.picture("mouth", SHUT_S))
    assert (change.max(axis=2) > 30).mean() > 0.05
    still = slice(0, SIZE // 3)
    assert (rendered.picture("front", OPEN_S)[still] == rendered.picture("front", SHUT_S)[still]).all()


def test_the_contact_sheet_has_a_row_a_view_and_a_column_a_time(rendered: Rendered, glb: Path) -> None:
    with Image.open(glb.with_suffix(".png")) as sheet:
        width, height = sheet.size
    assert 3 * SIZE <= width < 3.2 * SIZE
    assert 2 * SIZE < height < 2.4 * SIZE


def test_a_still_head_is_drawn_too(tmp_path: Path) -> None:
    """A frame of a glb-sequence has neither animation nor morph targets."""
    (tmp_path / "heads.zip").write_bytes(b"".join(encode(jaw_clip(), ENCODERS["glb-sequence"]())))
    with zipfile.ZipFile(tmp_path / "heads.zip") as heads:
        heads.extract("frame_000006.glb", tmp_path)
    run = node("render.mjs", tmp_path / "frame_000006.glb", tmp_path, "--view", "quarter", "--size", 64)
    assert run.returncode == 0, run.stdout + run.stderr
    report = json.loads(run.stdout)
    assert (report["duration_s"], report["frames"], report["morph_targets"]) == (0, 1, 0)
    assert (tmp_path / "quarter_0.000.png").is_file()


def test_what_the_browser_complains_of_fails_the_run(glb: Path, tmp_path: Path) -> None:
    """Here: a texture that is no PNG."""
    broken = tmp_path / "broken.glb"
    broken.write_bytes(glb.read_bytes().replace(b"\x89PNG\r\n", b"\x00PNG\r\n"))
    run = node("render.mjs", broken, tmp_path, "--size", 64)
    assert run.returncode == 1
    assert "Couldn't load texture" in json.loads(run.stdout)["complaints"][0]


def test_a_time_after_the_end_is_refused(glb: Path, tmp_path: Path) -> None:
    run = node("render.mjs", glb, tmp_path, "--times", "1,1.3")
    assert run.returncode == 1
    assert "times 1.3 s; the clip ends at 1.2" in run.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["head.glb"], "1 paths; wanted a GLB and a folder"),
        (["head.glb", "out", "--times", "0,soon"], "times 0,soon; wanted seconds"),
        (["head.glb", "out", "--times=-1"], "times -1; wanted seconds"),
        (["head.glb", "out", "--view", "back"], "view back; wanted of front,mouth,quarter,profile"),
        (["head.glb", "out", "--size", "0"], "size 0; wanted 16 to 4096"),
        (["head.glb", "out", "--turn"], "Unknown option '--turn'"),
    ],
)
def test_a_wrong_call_is_refused_with_the_usage(arguments: list[str], message: str) -> None:
    run = node("render.mjs", *arguments)
    assert run.returncode == 2
    assert message in run.stderr
    assert "usage: node viewer/render.mjs" in run.stderr


def test_the_khronos_validator_finds_nothing_wrong(glb: Path) -> None:
    run = node("validate.mjs", glb)
    issues = json.loads(run.stdout)["issues"]
    assert (issues["numErrors"], issues["numWarnings"], run.returncode) == (0, 0, 0), issues["messages"]


def test_what_the_validator_finds_fails_the_run(glb: Path, tmp_path: Path) -> None:
    """Here: an attribute that glTF does not know."""
    broken = tmp_path / "broken.glb"
    broken.write_bytes(glb.read_bytes().replace(b'"NORMAL"', b'"NORMAN"'))
    run = node("validate.mjs", broken)
    assert run.returncode == 1
    assert json.loads(run.stdout)["issues"]["numErrors"] > 0


def test_the_validator_wants_one_file() -> None:
    run = node("validate.mjs")
    assert run.returncode == 2
    assert "usage: node viewer/validate.mjs" in run.stderr
