"""`/docs`, and what every response tells a browser."""

import re
import shutil
import subprocess
from base64 import b64encode
from hashlib import sha256

import pytest
from conftest import FakeEngine
from fastapi.testclient import TestClient
from test_browser import CHROMIUM
from test_stream import serving

from service.app import create_app
from service.settings import Settings


def test_the_policy_of_the_documentation_allows_its_own_lines_and_files(client: TestClient) -> None:
    response = client.get("/docs")
    directives = [each.split() for each in response.headers["content-security-policy"].split("; ")]
    policy = {name: sources for name, *sources in directives}
    (script,) = re.findall(r"<script>(.*?)</script>", response.text, re.DOTALL)
    assert policy["script-src"] == ["'self'", f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'"]
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == ["'none'"]
    assert response.headers["referrer-policy"] == "no-referrer"


@pytest.mark.browser
@pytest.mark.skipif(not shutil.which(CHROMIUM), reason=f"needs {CHROMIUM}")
def test_the_documentation_is_drawn_under_its_policy() -> None:
    """In Chromium, without a word on its console."""
    with serving(create_app(Settings(port=0, log_level="warning"), FakeEngine())) as connect, connect() as connection:
        host, port = connection.getpeername()
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=8000"]
        command = [CHROMIUM, *options, "--enable-logging=stderr", "--dump-dom", f"http://{host}:{port}/docs"]
        run = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True)
    assert "operations-animate-animate" in run.stdout
    assert [line for line in run.stderr.splitlines() if "CONSOLE" in line] == []


@pytest.mark.parametrize("path", ["/", "/docs", "/info", "/nowhere", "/health/live", "/templates/default/mesh.glb"])
def test_nothing_is_sniffed(client: TestClient, path: str) -> None:
    assert client.get(path).headers["x-content-type-options"] == "nosniff"


def test_nothing_is_sniffed_of_a_failure(engine: FakeEngine, client: TestClient) -> None:
    """It is answered outside of every middleware."""
    engine.describe = lambda: {}[0]
    response = client.get("/info")
    assert (response.status_code, response.headers["x-content-type-options"]) == (500, "nosniff")


@pytest.mark.parametrize("method", ["GET", "OPTIONS", "POST"])
def test_other_origins_are_not_let_in(client: TestClient, method: str) -> None:
    """CORS is off: no header says that a page from elsewhere may read an answer."""
    headers = {"Origin": "https://example.org", "Access-Control-Request-Method": "POST"}
    response = client.request(method, "/info", headers=headers)
    assert not [name for name in response.headers if name.startswith("access-control-")]
