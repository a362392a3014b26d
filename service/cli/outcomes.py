"""How commands end: what they say of what they made, and their exit codes."""

from dataclasses import dataclass
from pathlib import Path

from models.errors import InputError
from talker_client.problems import TalkerBusy, TalkerProblem

FAILED, REFUSED, INTERRUPTED = 1, 2, 130
"""Exit codes: something broke; what came cannot be used; Ctrl-C."""


def is_refusal(error: Exception) -> bool:
    """Whether what came cannot be used, here or by the service; else something broke, or is busy."""
    if isinstance(error, TalkerProblem):
        return error.status < 500 and not isinstance(error, TalkerBusy)
    return isinstance(error, InputError)


@dataclass(frozen=True)
class Made:
    """An animation that was written."""

    frame_count: int
    fps: float

    def tell(self, output: Path, elapsed_s: float) -> None:
        """Say what was written and how fast."""
        clip_s = self.frame_count / self.fps
        print(
            f"wrote {output}: {self.frame_count} frames at {self.fps:g} fps, {clip_s:.2f} s in {elapsed_s:.2f} s, "
            f"{clip_s / elapsed_s:.2f} times real time"
        )
