"""The page at `/`: what is served, what was built from what, and what a person sees of it in a browser."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import FakeEngine, wav
from fastapi.testclient import TestClient
from PIL import Image
from test_browser import MISSING, VIEWER, node
from test_stream import serving
from test_textures import noise_png
from uploads import uploaded

from service import studio
from service.app import create_app
from service.settings import Settings

ROOT = Path(__file__).parents[1]
VOICE = ROOT / "tests" / "data" / "LJ001-0002.flac"
BUILT, SOURCE = studio.BUILT, studio.BUILT.parent / "source"
FILES = sorted(path.name for path in BUILT.iterdir() if path.name != studio.PAGE)


def in_browser(test: Callable[..., None]) -> Callable[..., None]:
    """A test that needs a browser."""
    skip = pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}")
    return pytest.mark.browser(skip(test))


@pytest.mark.parametrize("path", ["/", *(f"/studio/{name}" for name in FILES)])
def test_every_file_is_typed_guarded_and_known_by_its_content(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 200
    assert response.content == (BUILT / (path.rpartition("/")[2] or studio.PAGE)).read_bytes()
    assert response.headers["content-type"] == studio.TYPES[Path(path).suffix or ".html"]
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["cache-control"] == "no-cache"
    for tag in (response.headers["etag"], f'"other", W/{response.headers["etag"]}', "*"):
        again = client.get(path, headers={"If-None-Match": tag})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", response.headers["etag"])
    assert client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200


def test_the_policy_allows_nothing_from_outside(client: TestClient) -> None:
    """Scripts and styles are files of the origin; nothing may be evaluated, framed, or sent elsewhere."""
    directives = [each.split() for each in client.get("/").headers["content-security-policy"].split("; ")]
    policy = {name: sources for name, *sources in directives}
    assert policy["default-src"] == ["'none'"]
    assert policy["script-src"] == policy["style-src"] == ["'self'"]
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == ["'none'"]
    allowed = {source for name, sources in policy.items() if name.endswith("-src") for source in sources}
    assert allowed == {"'none'", "'self'", "blob:"}


def test_the_page_loads_its_own_files_and_no_others(client: TestClient) -> None:
    """By relative addresses, so that it works below a proxy's path, too; namespaces are the only URLs in the build."""
    addresses = re.findall(r'(?:src|href)="([^"]+)"', client.get("/").text)
    assert {f"studio/{name}" for name in FILES} <= set(addresses)
    for address in addresses:
        assert not re.match(r"[a-z]+:|/", address)
        assert client.get(f"/{address}").status_code == 200
    build = b"".join(path.read_bytes() for path in BUILT.iterdir())
    assert set(re.findall(rb"\w+://[^/\s\"'`]+", build)) == {b"http://www.w3.org"}
    assert not re.search(rb"@import|url\((?!#)", build)


@pytest.mark.parametrize(
    "path",
    [
        "/studio/",
        "/studio/index.html",
        "/studio/__init__.py",
        "/studio/../__init__.py",
        "/studio/%2e%2e/__init__.py",
        "/studio/..%2f__init__.py",
        "/studio/..%5c__init__.py",
        "/studio//etc/passwd",
        "/studio/source/studio.js",
    ],
)
def test_a_path_that_leads_elsewhere_leads_nowhere(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert (response.status_code, response.json()["code"]) == (404, "not_found")


def test_the_build_is_of_these_sources() -> None:
    """As viewer/build.mjs counts them."""
    hash_ = sha256()
    for path in sorted(SOURCE.iterdir()):
        hash_.update(f"{path.name}\0".encode() + path.read_bytes())
    versions = json.loads((VIEWER / "package.json").read_text(encoding="utf-8"))["dependencies"]
    for name in ("esbuild", "three"):
        hash_.update(f"{name}\0{versions[name]}".encode())
    first = (BUILT / "studio.js").read_text(encoding="utf-8").partition("\n")[0]
    assert first == f"// source {hash_.hexdigest()}", "the page's source has changed: make page"


@pytest.mark.skipif(not (shutil.which("node") and (VIEWER / "node_modules").is_dir()), reason="needs node and npm ci")
def test_the_committed_build_is_what_the_source_builds(tmp_path: Path) -> None:
    run = node("build.mjs", tmp_path)
    assert run.returncode == 0, run.stderr
    built = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert built == {path.name: path.read_bytes() for path in BUILT.iterdir()}


@dataclass(frozen=True)
class Played:
    """What one run of play.mjs left."""

    report: dict[str, Any]
    folder: Path

    def head(self, time_s: float, depth: int) -> np.ndarray:
        path = self.folder / f"head_{time_s:.3f}_{depth}.png"
        return np.asarray(Image.open(path).convert("RGB"), float)


def play(app: Any, speech: Path, folder: Path, *options: object, warm_up_s: float = 20) -> Played:
    """Use the page of an app, on a real server."""
    with serving(app, warm_up_s) as connect, connect() as connection:
        host, port = connection.getpeername()
        command = ["node", str(VIEWER / "play.mjs"), f"http://{host}:{port}/", str(speech), str(folder)]
        run = subprocess.run([*command, *map(str, options)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return Played(json.loads(run.stdout), folder)


REST_S, LOUD_S = 0.0, 0.85


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """The shipped weights speak a clip."""
    folder = tmp_path_factory.mktemp("studio")
    settings = Settings(cache=tmp_path_factory.getbasetemp().parent / "cache", threads=1, log_level="warning")
    options = ["--times", f"{REST_S},{LOUD_S}", "--wrinkle-style", "lined", "--motion-style", "smiling"]
    return play(create_app(settings), VOICE, folder, *options, warm_up_s=280)


@in_browser
def test_a_clip_is_made_and_plays_without_a_complaint(played: Played) -> None:
    report = played.report
    assert (report["alert"], report["complaints"]) == (None, [])
    assert report["played_s"] > 0
    assert "57 frames at 30 a second" in report["facts"]
    assert "wrinkles at" in report["facts"]


@in_browser
def test_nothing_is_loaded_from_outside(played: Played) -> None:
    addresses = played.report["addresses"]
    assert {re.sub(r"//127\.0\.0\.1:\d+/.*", "", address) for address in addresses} <= {"http:", "blob:http:"}


@in_browser
def test_the_mouth_moves_between_two_times(played: Played) -> None:
    change = np.abs(played.head(LOUD_S, 0) - played.head(REST_S, 0)).max(axis=2)
    assert (change > 30).sum() > 100
    assert (change[:20] == 0).all(), "the stage above the head stays"


@in_browser
def test_wrinkles_change_the_skin_and_nothing_else(played: Played) -> None:
    """Subtly, and nowhere beside the head."""
    change = np.abs(played.head(LOUD_S, 100) - played.head(LOUD_S, 0)).max(axis=2)
    assert (change > 5).sum() > 500
    assert (change[:20] == 0).all()
    assert (change[:, :20] == 0).all()


@in_browser
def test_wrinkles_are_the_skins_whichever_material_that_is(
    settings: Settings, engine: FakeEngine, tmp_path: Path
) -> None:
    """Of three that alternate it has a third of the head, and that folds."""
    mesh = uploaded(replace(engine.mesh, base_color_png=noise_png()))
    assert mesh.source is not None
    (tmp_path / "speech.wav").write_bytes(wav(1.0))
    options, folded = ["--wrinkle-style", "calm", "--times", "0.5"], []
    for source in (None, replace(mesh.source, skin=1)):
        engine.mesh = replace(mesh, source=source)
        shown = play(create_app(settings, engine), tmp_path / "speech.wav", tmp_path, *options)
        assert (shown.report["alert"], shown.report["complaints"]) == (None, [])
        change = np.abs(shown.head(0.5, 100) - shown.head(0.5, 0)).max(axis=2)
        folded.append((change > 5).sum())
    assert 0.2 < folded[1] / folded[0] < 0.5


@in_browser
def test_a_refusal_of_the_service(settings: Settings, engine: FakeEngine, tmp_path: Path) -> None:
    speech = tmp_path / "speech.wav"
    speech.write_bytes(b"no sound at all")
    report = play(create_app(settings, engine), speech, tmp_path).report
    assert report["played_s"] is None
    assert report["status"] == "Nothing was made."
    assert report["alert"].startswith("Unsupported Media Type. ")


@in_browser
def test_a_head_of_ones_own_is_registered_told_of_and_animated(
    settings: Settings, engine: FakeEngine, tmp_path: Path
) -> None:
    speech, head = tmp_path / "speech.wav", tmp_path / "My head (2).OBJ"
    speech.write_bytes(wav(1.0))
    head.write_text("head 2")
    report = play(create_app(settings, engine), speech, tmp_path, "--engine", "mmtalker", "--head", head).report
    assert (report["alert"], report["complaints"]) == (None, [])
    assert report["head"] == "49 vertices; the face lies 0.8 mm off, the lips 0.3 mm; +Z up. no teeth"
    assert engine.animated == ["my-head-2"]


@in_browser
def test_a_head_that_is_refused(settings: Settings, engine: FakeEngine, tmp_path: Path) -> None:
    speech, head = tmp_path / "speech.wav", tmp_path / "closed.obj"
    speech.write_bytes(wav(1.0))
    head.write_text("closed")
    report = play(create_app(settings, engine), speech, tmp_path, "--engine", "mmtalker", "--head", head).report
    assert list(engine.templates) == ["default"]
    assert engine.animated == ["default"]
    assert any("422" in complaint for complaint in report["complaints"])


@in_browser
def test_a_shader_that_does_not_compile(
    settings: Settings, engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = shutil.copytree(BUILT, tmp_path / "built")
    script = broken / "studio.js"
    text = script.read_text(encoding="utf-8")
    assert text.count("exp(logRatio)") == 1
    script.write_text(text.replace("exp(logRatio)", "expo(logRatio)"), encoding="utf-8")
    monkeypatch.setattr(studio, "BUILT", broken)
    (tmp_path / "speech.wav").write_bytes(wav(1.0))
    report = play(create_app(settings, engine), tmp_path / "speech.wav", tmp_path, "--wrinkle-style", "calm").report
    assert report["alert"].startswith("The head cannot be drawn. The graphics driver refuses")
    assert "expo" in report["alert"]
