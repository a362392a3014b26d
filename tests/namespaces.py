"""Machines of a Ray cluster, each a network namespace with an address of its own on one bridge. Needs root."""

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path

from conftest import wait_until

ROOT = Path(__file__).parents[1]
NETWORK = "10.91.7."
BRIDGE = "talkerbr"
HEAD = 2
PORT = 6379
STORE_BYTES = 80 << 20


class Machine:
    """Namespaces of the network, of processes, and of mounts with a /tmp/ray of their own; the link outlives them."""

    def __init__(self, name: str, number: int, folder: Path) -> None:
        self.name, self.address = f"talker-{name}", f"{NETWORK}{number}"
        self._link, self._folder = f"tlk{number}", folder / name
        self._folder.mkdir(parents=True)
        run("ip", "netns", "add", self.name)
        run("ip", "link", "add", self._link, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        run("ip", "link", "set", self._link, "master", BRIDGE, "up")
        # By the route to elsewhere, though nothing goes there, Ray finds the address that it has.
        route = f"route add default via {NETWORK}1"
        for command in (f"addr add {self.address}/24 dev eth0", "link set eth0 up", "link set lo up", route):
            run("ip", "-n", self.name, *command.split())
        self.boot()

    def boot(self) -> None:
        """Let it run, with nothing on it."""
        mount = f"mkdir -p /tmp/ray && mount --bind {self._folder} /tmp/ray && exec sleep infinity"
        own = ("unshare", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-c", mount)
        self._holder = subprocess.Popen(["ip", "netns", "exec", self.name, *own], stderr=subprocess.DEVNULL)
        children = Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children")
        wait_until(lambda: "sleep" in _command(int(children.read_text() or 0)))
        self._first = int(children.read_text())

    def kill(self) -> None:
        """All that runs on it ends at once."""
        os.kill(self._first, signal.SIGKILL)
        self._holder.wait()

    def start(self, *command: str, environment: Mapping[str, str], log: Path) -> "subprocess.Popen[bytes]":
        """Start a command on it."""
        inside = ["nsenter", f"--target={self._first}", "--mount", "--pid", "--net", *command]
        with log.open("ab") as file:
            return subprocess.Popen(inside, stdout=file, stderr=file, env={**os.environ, **environment}, cwd="/")

    def running(self, name: str) -> list[int]:
        """Processes on it whose command line holds a word."""
        pids = map(int, run("ip", "netns", "pids", self.name).split())
        return [pid for pid in pids if name in _command(pid)]

    def cut(self) -> None:
        """No packet reaches it, or leaves it, and nobody is told."""
        run("ip", "link", "set", self._link, "down")

    def mend(self) -> None:
        """Undo `cut`."""
        run("ip", "link", "set", self._link, "up")

    def close(self) -> None:
        """Undo all."""
        self.kill()
        run("ip", "link", "del", self._link)
        run("ip", "netns", "del", self.name)


class Cluster:
    """A head, machines with a replica each, and an edge that runs the service."""

    def __init__(self, folder: Path, workers: int) -> None:
        self.folder = folder
        token = folder / "token"
        token.write_text(secrets.token_hex(32))
        self.environment = {
            "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        self._held, self._started = ExitStack(), list[subprocess.Popen[bytes]]()
        run("ip", "link", "add", BRIDGE, "type", "bridge")
        self._held.callback(run, "ip", "link", "del", BRIDGE)
        run("ip", "addr", "add", f"{NETWORK}1/24", "dev", BRIDGE)
        run("ip", "link", "set", BRIDGE, "up")
        names = ("head", "edge", *(f"worker{k}" for k in range(workers)))
        machines = [self._held.enter_context(closing(Machine(name, HEAD + k, folder))) for k, name in enumerate(names)]
        self.head, self.edge, *self.workers = machines

    def gather(self) -> None:
        """Start Ray on all machines."""
        self.join(self.head, "--head", f"--port={PORT}", "--include-dashboard=false", "--num-cpus=0")
        self.join(self.edge, f"--address={self.head.address}:{PORT}", "--num-cpus=0")
        for worker in self.workers:
            self.join_worker(worker)

    def join(self, machine: Machine, *arguments: str) -> None:
        """`ray start` on a machine."""
        command = ("ray", "start", f"--node-ip-address={machine.address}", f"--object-store-memory={STORE_BYTES}")
        started = self.start(machine, *command, "--disable-usage-stats", *arguments)
        assert started.wait(120) == 0, f"ray does not start: {self.log(machine).read_text()[-2000:]}"

    def join_worker(self, machine: Machine) -> None:
        self.join(machine, f"--address={self.head.address}:{PORT}", "--num-cpus=1")

    def start(self, machine: Machine, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        started = machine.start(*command, environment={**self.environment, **environment}, log=self.log(machine))
        self._started.append(started)
        return started

    def log(self, machine: Machine) -> Path:
        return self.folder / f"{machine.name}.log"

    def close(self) -> None:
        self._held.close()
        for process in self._started:
            process.wait(20)


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
