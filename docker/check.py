"""Builds the image, runs it as an orchestrator would, and says what does not hold: `python3 docker/check.py`.

Takes docker where a daemon answers, else podman and buildah, as root; where there is neither it exits with 77. On a
read-only root without capabilities the image must become healthy, animate, keep what users made in its volume, and
finish the streams under way when it is told to stop. `--break USER` builds it without that line and expects to notice.
"""

import argparse
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

from tools import LIMITS, SkippedError, Tool, find_tool

ROOT = Path(__file__).resolve().parent.parent
SPEECH = ROOT / "tests" / "data" / "LJ001-0002.flac"
SKIPPED = 77
BREAKS = {
    "USER": (r"^USER .*\n", "", "USER is"),
    "HEALTHCHECK": (r"^HEALTHCHECK .*\\\n.*\n", "", "HEALTHCHECK is"),
    "DRAIN": (r"TALKER_DRAIN_S=\d+", "TALKER_DRAIN_S=5", "SIGTERM lets"),
}
"""Lines of the Dockerfile, what `--break` makes of them, and how the promise begins that is then not kept."""
START_S, GRACE_S = 120, 75
SLOW_S = 40
"""How long the stream lasts that is under way when the service is stopped: past the drain that the image would have by
default, within the one that it sets."""
SLOW_POINTS = 20_000
KEYS = "--env=TALKER_KEYS=/keys/keys"


class BrokenPromiseError(Exception):
    """What the image does not keep."""


def expect(kept: bool, promise: str) -> None:
    """Raise BrokenPromiseError with the promise, unless it is kept."""
    if not kept:
        raise BrokenPromiseError(promise)
    print(f"  ok  {promise}", flush=True)


class Container:
    """A running service, and a client of it."""

    def __init__(self, tool: Tool, image: str, data: str, keys: str) -> None:
        self.tool, self.port, self.name = tool, tool.free_port(), f"talker-check-{uuid4().hex[:8]}"
        options = ["--read-only", "--cap-drop=all", "--security-opt=no-new-privileges", "--tmpfs=/tmp"]
        options += [f"--name={self.name}", f"--volume={data}:/data", f"--volume={keys}:/keys:ro"]
        tool.run("run", "--detach", KEYS, *tool.run_options(self.port), *options, image)
        self.key = ""

    def execute(self, *command: str) -> str:
        """What a command in the container prints, whether or not it succeeds."""
        return self.tool.run("exec", self.name, *command, check=False).strip()

    def await_health(self) -> float:
        """Seconds until its own health check passes. BrokenPromiseError if that takes too long, or it stops before."""
        started = time.monotonic()
        while not self.tool.is_healthy(self.name):
            running = self.state("Running") == "true"
            if not running or time.monotonic() - started > START_S:
                print(self.tool.run("logs", self.name, check=False), file=sys.stderr)
                raise BrokenPromiseError(f"healthy within {START_S} s, by its own health check")
            time.sleep(0.5)
        return time.monotonic() - started

    def state(self, field: str) -> str:
        """A field of the container's state."""
        return self.tool.run("inspect", "--format", f"{{{{.State.{field}}}}}", self.name).strip()

    def stop(self) -> None:
        """Stop it as an orchestrator does: by its own signal, and with SIGKILL when the grace is over."""
        self.tool.run("stop", "--time", str(GRACE_S), self.name)

    def request(self, method: str, path: str, body: bytes = b"", media_type: str = "") -> HTTPResponse:
        """The answer, its body not read yet."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=120)
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        connection.request(method, path, body, headers | ({"Content-Type": media_type} if media_type else {}))
        return connection.getresponse()

    def animate(self, **fields: str) -> HTTPResponse:
        """The answer of `POST /animate` for the test's speech."""
        boundary = uuid4().hex
        parts = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in fields.items()
        ]
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="audio"; filename="speech.flac"\r\n\r\n'
        body = "".join([*parts, head]).encode() + SPEECH.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
        return self.request("POST", "/animate", body, f"multipart/form-data; boundary={boundary}")


def check_configuration(tool: Tool, image: str) -> None:
    """What the image says of itself."""
    (description,) = json.loads(tool.run("image", "inspect", image))
    config = description["Config"]
    size = description["Size"]
    print(f"  {image}: {size / 1e9:.2f} GB in {len(description['RootFS']['Layers'])} layers")
    user = config.get("User", "").partition(":")[0]
    expect(user.isdecimal() and int(user) > 0, "USER is a number that is not root's")
    check = config.get("Healthcheck") or description.get("Healthcheck")
    expect(check is not None and check.get("StartPeriod", 0) > 0, "HEALTHCHECK is there, with a start period")
    expect(config.get("Entrypoint") == ["talker", "serve"], "the entrypoint needs no shell")
    expect("org.opencontainers.image.licenses" in (config.get("Labels") or {}), "its labels name its licences")


def check_confinement(container: Container) -> None:
    """What somebody who got in would find."""
    expect(container.execute("id", "-u") == "10001", "the process is not root's")
    written = container.execute("sh", "-c", "touch /opt/talker/x 2>/dev/null || echo refused")
    expect(written == "refused", "nothing can be written beside the volume and /tmp")
    tools = container.execute(
        "sh", "-c", "command -v cc gcc g++ ld make; ls /opt/venv/bin/pip /root/.cache 2>/dev/null"
    )
    expect(tools == "", "no compiler, no pip beside the packages, no cache of pip")
    parts = json.loads(container.execute("cat", "/opt/talker/sbom.json"))["components"]
    expect({"torch", "fastapi"} <= {part["name"] for part in parts}, f"sbom.json lists its {len(parts)} packages")


def check_keys(tool: Tool, image: str, keys: str, container: Container) -> None:
    """Nobody is let in by oversight; the container then has a key."""
    started = tool.run("run", "--rm", "--network=none", *LIMITS, image, check=False, errors=True)
    expect("TALKER_KEYS" in started, "without keys it does not start on every address")
    expect(container.request("GET", "/info").status == 401, "without a key there is no answer")
    container.key = add_key(tool, image, keys, "somebody")
    expect(container.request("GET", "/info").status == 200, "a key that was added meanwhile is known")


def add_key(tool: Tool, image: str, keys: str, name: str) -> str:
    """A new key, made by the image's own tool."""
    options = ["--network=none", "--entrypoint=talker", KEYS, f"--volume={keys}:/keys", *LIMITS]
    return tool.run("run", "--rm", *options, image, "keys", "add", name).strip()


def check_service(container: Container) -> None:
    """A whole file and a stream, and something to keep."""
    glb = container.animate(format="glb")
    whole = glb.read()
    expect(glb.status == 200 and whole[:4] == b"glTF" and int.from_bytes(whole[8:12], "little") == len(whole), "a GLB")
    stream = container.animate(format="npz-stream")
    frames = int(stream.getheader("X-Talker-Frames", "0"))
    expect(stream.status == 200 and frames > 0 and len(stream.read()) > frames * 12, f"a stream of {frames} frames")
    style = json.dumps({"id": "wry", "motion": "smiling(0.6)+stern(0.4)"}).encode()
    expect(container.request("POST", "/styles", style, "application/json").status == 201, "a style is stored")


def check_stop(container: Container) -> None:
    """A slow reader still gets the last frame after the service was told to stop."""
    response = container.animate(format="npz-stream", resolution=str(SLOW_POINTS))
    size = int(response.getheader("X-Talker-Frames", "0")) * SLOW_POINTS * 12
    stopping = threading.Thread(target=container.stop)
    stopping.start()
    started, taken = time.monotonic(), 0
    try:
        while chunk := response.read1(1 << 15):
            taken += len(chunk)
            time.sleep(max(0, started + SLOW_S * taken / size - time.monotonic()))
    except (HTTPException, OSError) as error:
        print(f"  cut after {time.monotonic() - started:.0f} s ({error})")
    lasted_s = time.monotonic() - started
    stopping.join()
    promise = f"SIGTERM lets a stream go on to its end, {lasted_s:.0f} s of {size / 1e6:.0f} MB"
    expect(size <= taken and response.isclosed(), promise)
    expect(container.state("ExitCode") in ("0", "143"), "and ends the service before it would be killed")


def check(tool: Tool, image: str) -> None:
    """Every promise; BrokenPromiseError for the first that is not kept."""
    check_configuration(tool, image)
    with _volume(tool) as data, _volume(tool) as keys:
        key = add_key(tool, image, keys, "first")
        with _running(tool, image, data, keys) as container:
            print(f"  healthy after {container.await_health():.1f} s")
            check_confinement(container)
            check_keys(tool, image, keys, container)
            check_service(container)
            check_stop(container)
        with _running(tool, image, data, keys) as container:
            container.key = key
            print(f"  healthy again after {container.await_health():.1f} s")
            expect(container.request("GET", "/styles/wry").status == 200, "what was stored outlives the container")


@contextmanager
def _volume(tool: Tool) -> Iterator[str]:
    name = tool.run("volume", "create").strip()
    try:
        yield name
    finally:
        tool.run("volume", "rm", "--force", name)


@contextmanager
def _running(tool: Tool, image: str, data: str, keys: str) -> Iterator[Container]:
    container = Container(tool, image, data, keys)
    try:
        yield container
    finally:
        tool.run("rm", "--force", container.name, check=False)


def _dockerfile(folder: Path, broken: str | None) -> Path:
    """The Dockerfile, or one without what is to be missed."""
    path = ROOT / "docker" / "Dockerfile"
    if broken is None:
        return path
    text, count = re.subn(*BREAKS[broken][:2], path.read_text(), flags=re.MULTILINE)
    assert count == 1, f"{broken} is no longer where BREAKS looks for it"
    changed = folder / "Dockerfile"
    changed.write_text(text)
    return changed


def main() -> int:
    """Check, and say so by the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--break", dest="broken", choices=BREAKS, help="prove that the check would notice")
    options = parser.parse_args()
    image = "talker:check" if options.broken is None else f"talker:check-{options.broken.lower()}"
    try:
        tool = find_tool(ROOT)
        with TemporaryDirectory() as folder:
            started = time.monotonic()
            tool.build(ROOT, _dockerfile(Path(folder), options.broken), "cpu", image)
            print(f"built by {tool.name} in {time.monotonic() - started:.0f} s", flush=True)
        check(tool, image)
    except SkippedError as reason:
        print(f"docker/check.py: skipped: {reason}", file=sys.stderr)
        return SKIPPED
    except BrokenPromiseError as promise:
        print(f"docker/check.py: not kept: {promise}", file=sys.stderr)
        return 0 if options.broken and str(promise).startswith(BREAKS[options.broken][2]) else 1
    except subprocess.CalledProcessError as error:
        print(f"docker/check.py: {error}\n{error.stderr or ''}", file=sys.stderr)
        return 1
    return 1 if options.broken else 0


if __name__ == "__main__":
    sys.exit(main())
