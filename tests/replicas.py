"""Replicas in this process: workers over the tiny networks, and every way to lose a call."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from threading import Event, Lock

from tiny_engine import TinySkins, tiny_networks, tiny_styles
from tiny_textalker import face
from tiny_uploads import FakeRegistration, picture

from models.backend import Backend
from models.cluster.asker import Asker, NotTaken, Patience, ReplicaLost
from models.cluster.calls import Call
from models.cluster.networks import ClusterNetworks
from models.cluster.packing import unpack
from models.cluster.worker import Worker
from models.engine import DEFAULT_SAMPLING, ENGINES, LocalEngine, Networks, Sampling
from models.pivots import StyleBook
from models.uploads import Registration

IMPATIENT = Patience(losses=3, wait_s=0.2, pause_s=0.001, longest_pause_s=0.01)
Fault = Callable[[Call], None]


class TinyNetworks(Networks):
    """The tiny networks, which register without geometry."""

    @property
    def registration(self) -> Registration:
        return Registration(FakeRegistration(self.head).register)


def a_worker(sampling: Sampling = DEFAULT_SAMPLING) -> Worker:
    """A replica, which has seen no anchors yet."""
    return Worker(tiny(), sampling, "cpu", ["CPUExecutionProvider"])


@cache
def tiny() -> TinyNetworks:
    """The tiny head has a real picture here."""
    return TinyNetworks(**vars(replace(tiny_networks(), head=replace(face(), base_color_png=picture(8, 8)))))


def engine_over(backend: Backend) -> LocalEngine:
    """An engine whose users' styles and heads last as long as it does."""
    styles = StyleBook(tiny_styles(), None, backend.autoencoders)
    return LocalEngine(backend, styles, {"checkpoints": backend.checkpoints, "engines": list(ENGINES)})


@dataclass
class FakeReplicas:
    """Workers that take turns. `faults` befall the tries in order: lost before or after it was computed, and others.

    `twice` computes each call twice, of which the second counts; `calls` has what was asked.
    """

    workers: list[Worker]
    faults: Iterator[str] = field(default_factory=lambda: iter(()))
    twice: bool = False
    calls: list[Call] = field(default_factory=list)
    tries: int = 0
    capacity: int = 4
    closed: Event = field(default_factory=Event)
    _guard: Lock = field(default_factory=Lock)

    def send(self, body: bytes, deadline_s: float) -> bytes:
        with self._guard:
            worker, fault = self.workers[self.tries % len(self.workers)], next(self.faults, "")
            self.tries += 1
            self.calls.append(unpack(body))
        if fault == "nobody":
            raise NotTaken("no replica is there")
        if fault == "before":
            raise ReplicaLost("it died")
        answer = worker.answer(body)
        if self.twice:
            answer = worker.answer(body)
        if fault == "after":
            raise ReplicaLost("it was cut off")
        return answer

    def close(self) -> None:
        self.closed.set()


def cluster_engine(replicas: FakeReplicas, cache: Path, patience: Patience = IMPATIENT) -> LocalEngine:
    """An engine as on the edge of a cluster."""
    return engine_over(ClusterNetworks(Asker(replicas, patience), tiny().head, TinySkins(), cache))
