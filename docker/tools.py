"""What builds and runs images on this host: docker, or podman and buildah where no docker daemon answers."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Protocol
from urllib.parse import urlsplit

BASE = "docker.io/library/python:3.11-slim-bookworm"
SOURCES = ("index-url", "extra-index-url", "find-links", "trusted-host")
LIMITS = ("--ulimit=nofile=4096:4096", "--ulimit=nproc=4096:4096")


class SkippedError(Exception):
    """Why no image can be built here."""


class Tool(Protocol):
    """A command line that is docker's, and what differs."""

    name: str

    def build(self, root: Path, dockerfile: Path, target: str, image: str) -> None:
        """Build a target; CalledProcessError if it fails."""
        ...

    def run(self, *arguments: str, check: bool = True, errors: bool = False) -> str:
        """What a command prints, its errors too if asked for. CalledProcessError if it fails and `check` is on."""
        ...

    def run_options(self, port: int) -> list[str]:
        """Options of `run` so that the service answers on a port of 127.0.0.1."""
        ...

    def is_healthy(self, container: str) -> bool:
        """Whether the container's own health check passes."""
        ...

    def free_port(self) -> int:
        """A port of 127.0.0.1 that nobody uses."""
        ...


def find_tool(root: Path) -> Tool:
    """Docker, or podman with a storage of its own in `build/`. SkippedError where there is neither."""
    if shutil.which("docker") and subprocess.run(["docker", "info"], capture_output=True).returncode == 0:
        return Docker()
    missing = [program for program in ("podman", "buildah", "runc") if not shutil.which(program)]
    if missing:
        raise SkippedError(f"no docker daemon answers, and there is no {', '.join(missing)}: docs/deploy.md names both")
    if os.geteuid() != 0:
        raise SkippedError("no docker daemon answers, and podman is used as root only: sudo python3 docker/check.py")
    return Podman(root / "build" / "images")


class CommandLine:
    """A program that takes docker's commands."""

    command: list[str]

    def run(self, *arguments: str, check: bool = True, errors: bool = False) -> str:
        """See `Tool.run`."""
        done = subprocess.run([*self.command, *arguments], check=check, capture_output=True, text=True)
        return done.stdout + done.stderr * errors

    def free_port(self) -> int:
        """See `Tool.free_port`."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            return int(server.getsockname()[1])


class Docker(CommandLine):
    """A docker daemon."""

    name = "docker"
    command = ["docker"]  # noqa: RUF012 - the same for all

    def build(self, root: Path, dockerfile: Path, target: str, image: str) -> None:
        """See `Tool.build`."""
        with pip_options() as options:
            arguments = ["--network=host", f"--file={dockerfile}", f"--target={target}", f"--tag={image}", *options]
            subprocess.run(["docker", "build", *arguments, str(root)], check=True)

    def run_options(self, port: int) -> list[str]:
        """See `Tool.run_options`."""
        return [f"--publish=127.0.0.1:{port}:8000"]

    def is_healthy(self, container: str) -> bool:
        """See `Tool.is_healthy`."""
        return self.run("inspect", "--format", "{{.State.Health.Status}}", container).strip() == "healthy"


class Podman(CommandLine):
    """podman and buildah, as root, in a storage of their own: others must not find a stand-in for the base image.

    Without a daemon or systemd, in a container even: chroot isolation, the host's network, runc, and no cgroups.
    """

    name = "podman"

    def __init__(self, storage: Path) -> None:
        self._storage = [f"--root={storage}", "--runroot=/run/talker-check", "--storage-driver=overlay"]
        runtime = ["--runtime=runc", "--cgroup-manager=cgroupfs", "--events-backend=file"]
        self.command = ["podman", *self._storage, *runtime]

    def build(self, root: Path, dockerfile: Path, target: str, image: str) -> None:
        """See `Tool.build`."""
        self._find_base()
        with pip_options() as options:
            # as docker's own format: OCI's knows no HEALTHCHECK
            arguments = ["--isolation=chroot", "--format=docker", "--layers", "--network=host", "--pull-never"]
            arguments += [f"--file={dockerfile}", f"--target={target}", f"--tag={image}", *options]
            subprocess.run(["buildah", *self._storage, "bud", *arguments, str(root)], check=True)

    def run_options(self, port: int) -> list[str]:
        """See `Tool.run_options`."""
        return ["--network=host", "--env=TALKER_HOST=127.0.0.1", f"--env=TALKER_PORT={port}", *LIMITS]

    def is_healthy(self, container: str) -> bool:
        """See `Tool.is_healthy`; podman leaves the asking to systemd, so it is asked here."""
        return subprocess.run([*self.command, "healthcheck", "run", container], capture_output=True).returncode == 0

    def _find_base(self) -> None:
        """The base image: the one from an earlier run, from its registry, or one that is made as it is."""
        for way in (("image", "exists"), ("pull", "--quiet")):
            if subprocess.run([*self.command, *way, BASE], capture_output=True).returncode == 0:
                return
        if not shutil.which("mmdebstrap"):
            raise SkippedError(f"{BASE} cannot be pulled, and there is no mmdebstrap to make its like")
        with TemporaryDirectory() as folder:
            archive = f"{folder}/base.tar"
            hooks = [
                "rm $1/usr/lib/python3.11/EXTERNALLY-MANAGED",
                "ln -s /usr/bin/python3.11 $1/usr/local/bin/python",
                "cp /etc/ssl/certs/ca-certificates.crt $1/etc/ssl/certs/",  # pip meets the proxies that this host does
            ]
            packages = "--include=python3.11,python3-pip,ca-certificates"
            options = [f"--customize-hook={hook}" for hook in hooks]
            subprocess.run(
                ["mmdebstrap", "--quiet", "--variant=minbase", packages, *options, "bookworm", archive], check=True
            )
            self.run("import", archive, BASE)


@contextmanager
def pip_options() -> Iterator[list[str]]:
    """Options of a build that let pip find what it finds on this host; nothing of them stays in the image.

    Folders that pip reads here are served to the build on 127.0.0.1, for as long as it lasts.
    """
    with TemporaryDirectory() as folder, ExitStack() as servers:
        lines = ["[global]"]
        for key, value in _pip_sources():
            words = [servers.enter_context(_reachable(word)) for word in value.split()]
            lines.append(f"{key} = {' '.join(words)}")
        path = Path(folder, "pip.conf")
        path.write_text("\n".join([*lines, ""]))
        own_index = "+cpu" in _pip("index", "versions", "torch")
        yield [f"--secret=id=pip,src={path}", *(["--build-arg=TORCH_INDEX="] if own_index else [])]


def _pip_sources() -> Iterator[tuple[str, str]]:
    """Where pip is set up to look on this host; what the environment says comes last, and counts."""
    found = {}
    for line in _pip("config", "list").splitlines():
        name, _, value = line.partition("=")
        key = name.rpartition(".")[2]
        if key in SOURCES:
            found[key] = value.strip("'\"").replace("\\n", " ")
    yield from found.items()


def _pip(*arguments: str) -> str:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, capture_output=True, text=True).stdout


@contextmanager
def _reachable(place: str) -> Iterator[str]:
    """A place as a build can reach it: folders become addresses."""
    path = Path(urlsplit(place).path)
    if urlsplit(place).scheme not in ("", "file") or not path.is_dir():
        yield place
        return
    # an index names its files relative to itself, and they may lie beside it
    served, rest = (path.parent, f"{path.name}/") if urlsplit(place).scheme else (path, "")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Files, directory=str(served))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/{rest}"
        finally:
            server.shutdown()


class _Files(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Nothing: pip says what it takes."""
