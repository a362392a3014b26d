"""What answers say of themselves, whichever client they came to."""

from collections.abc import Callable
from email.message import Message

from talker_client.cards import FINAL, JobCard
from talker_client.flows import Answer


class Received:
    """What the headers of a file tell."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    @property
    def media_type(self) -> str:
        """Its type."""
        return str(self._answer.headers.get("content-type", ""))

    @property
    def name(self) -> str:
        """What the service would call the file; empty where it says nothing."""
        message = Message()
        message["Content-Disposition"] = self._answer.headers.get("content-disposition", "")
        return message.get_filename() or ""

    @property
    def request_id(self) -> str:
        """The request's name in the service's log."""
        return str(self._answer.headers.get("x-request-id", ""))

    @property
    def frame_count(self) -> int:
        """Frames of an animation; 0 of anything else."""
        return int(self._answer.headers.get("x-talker-frames", 0))

    @property
    def fps(self) -> float:
        """Frames per second of an animation; 0 of anything else."""
        return float(self._answer.headers.get("x-talker-fps", 0))


class JobFacts:
    """What the card of a job tells."""

    def __init__(self, card: JobCard) -> None:
        self.card = card

    @property
    def id(self) -> str:
        """Its id."""
        return self.card["id"]

    @property
    def state(self) -> str:
        """`queued`, `running`, `done`, `failed` or `cancelled`."""
        return self.card["state"]

    @property
    def ended(self) -> bool:
        """Whether it stays as it is."""
        return self.state in FINAL

    @property
    def progress(self) -> float:
        """How much of it is done, 0 to 1."""
        return self.card["progress"]


class Rest:
    """The rest of a stream as a file with `read`; `more` gives its next bytes, and none at the end."""

    def __init__(self, more: Callable[[], bytes]) -> None:
        self._more = more
        self._held = memoryview(b"")

    def read(self, size: int) -> bytes:
        """At most `size` bytes, as many as there are at once; none at the end."""
        if not self._held:
            self._held = memoryview(self._more())
        part, self._held = self._held[:size], self._held[size:]
        return bytes(part)
