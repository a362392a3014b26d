"""Asking replicas until one has answered: what is lost is asked again, of another.

Waiting and failing are told apart. A call that nobody takes waits, for as long as a cluster may need to come back. A
call that is lost on a replica is asked anew, but not for ever: it may be what kills them.
"""

import logging
from dataclasses import dataclass
from threading import Event
from time import monotonic
from typing import Protocol, TypeVar

from models.cluster.calls import Call
from models.cluster.packing import pack, unpack
from models.errors import EngineLost, TalkerError

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

RETRY_AFTER_S = 5.0


class NotTaken(Exception):
    """No replica has begun with the call."""


class ReplicaLost(Exception):
    """A replica had begun with the call, and will not answer: it died, was cut off, or broke the deadline."""


class Replicas(Protocol):
    """Who answers calls."""

    @property
    def capacity(self) -> int:
        """Clips that they make best at once, right now; 0 where there are none."""
        ...

    def send(self, body: bytes, deadline_s: float) -> bytes:
        """`Worker.answer` on some replica: one try. NotTaken or ReplicaLost when it fails.

        deadline_s: seconds that it may take, counted from when the replica begins.
        """
        ...

    def close(self) -> None:
        """Ask no more; calls that wait raise NotTaken."""
        ...


@dataclass(frozen=True)
class Patience:
    """How often a call is asked: it may lose `losses` replicas, and go without any for `wait_s` seconds together.
    Pauses grow from pause_s to longest_pause_s.
    """

    losses: int = 4
    wait_s: float = 120
    pause_s: float = 0.05
    longest_pause_s: float = 1


class Asker:
    """Asks. Safe to use from several threads, each of which waits for its answer."""

    def __init__(self, replicas: Replicas, patience: Patience = Patience()) -> None:
        self.replicas, self._patience = replicas, patience
        self._closed = Event()

    def ask(self, call: Call[Answer]) -> Answer:
        """The answer. Raises the TalkerError that the call is refused with, and EngineLost when patience ends."""
        body, name, patience = pack(call), type(call).__name__, self._patience
        losses, pause, give_up = 0, patience.pause_s, monotonic() + patience.wait_s
        while not self._closed.is_set():
            try:
                answer = unpack(self.replicas.send(body, call.deadline_s))
                if isinstance(answer, EngineLost):
                    raise ReplicaLost(str(answer))
                if isinstance(answer, TalkerError):
                    raise answer
                return answer
            except NotTaken as error:
                log.warning("%s waits for a replica (%s)", name, error)
                if monotonic() > give_up:
                    raise _lost(name, f"no replica took it in {patience.wait_s:g} s") from error
            except ReplicaLost as error:
                losses, give_up = losses + 1, monotonic() + patience.wait_s
                log.warning("%s lost a replica (%s), %d of %d", name, error, losses, patience.losses)
                if losses >= patience.losses:
                    raise _lost(name, f"{losses} replicas were lost with it") from error
            self._closed.wait(pause)
            pause = min(2 * pause, patience.longest_pause_s)
        raise _lost(name, "the service stops")

    def close(self) -> None:
        """Calls that wait raise EngineLost."""
        self._closed.set()
        self.replicas.close()


def _lost(name: str, why: str) -> EngineLost:
    return EngineLost(
        f"the cluster did not answer ({name}: {why}); wanted a replica that does: try again later",
        retry_after_s=RETRY_AFTER_S,
    )
