"""The end of a process: what was taken on is finished, what comes is sent elsewhere."""

from time import monotonic

from starlette.types import ASGIApp, Receive, Scope, Send

from service.authorization import OPEN
from service.problems import Draining, answer_refusal

RETRY_AFTER_S = 5.0
ALWAYS = OPEN | {"/metrics"}
"""What is answered to the last, and not waited for."""


class Drain:
    """How many requests are under way, and whether new ones are refused."""

    def __init__(self) -> None:
        self.under_way = 0
        self._deadline_s: float | None = None

    @property
    def started(self) -> bool:
        """Whether the process is on its way out."""
        return self._deadline_s is not None

    @property
    def over(self) -> bool:
        """Whether it may go: nothing is under way any more, or the time is up."""
        return self.started and (self.under_way == 0 or self.remaining_s == 0)

    @property
    def remaining_s(self) -> float:
        """Until the time is up."""
        return max(0.0, (self._deadline_s or 0.0) - monotonic())

    def start(self, seconds: float) -> None:
        """Refuse what is new, and give what is under way so long."""
        self._deadline_s = monotonic() + seconds

    def check(self) -> None:
        """Raise Draining once it has started."""
        if self.started:
            raise Draining("the service is stopping; wanted one that stays: ask again", retry_after_s=RETRY_AFTER_S)


class Gate:
    """Counts the requests that are under way, and closes when the drain starts: 503 `draining`."""

    def __init__(self, app: ASGIApp, drain: Drain) -> None:
        self.app = app
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        if scope["type"] == "lifespan" or scope["path"].removeprefix(scope.get("root_path", "")) in ALWAYS:
            await self.app(scope, receive, send)
            return
        try:
            self._drain.check()
        except Draining as error:
            await answer_refusal(scope, receive, send, error)
            return
        self._drain.under_way += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self._drain.under_way -= 1
