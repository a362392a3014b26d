"""When a frame is due: as long after its sound as the latency is, always."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SoundClock:
    """The clock of a player that begins with the first sound, waits where sound is late, and never skips.

    zero_s: when time code 0 was or would have been heard; None before anything was.
    """

    latency_s: float
    zero_s: float | None = None

    def heard(self, now_s: float, time_s: float) -> "SoundClock":
        """The clock after sound of time code `time_s` came."""
        zero_s = now_s - time_s
        return SoundClock(self.latency_s, zero_s if self.zero_s is None else max(self.zero_s, zero_s))

    def resumed(self, now_s: float, time_s: float) -> "SoundClock":
        """The clock where the frame of `time_s` is due now, or later if it was."""
        return self.heard(now_s, time_s + self.latency_s)

    def due_s(self, time_s: float) -> float:
        """When to send the frame of a time code: never too early to be shown when it comes."""
        assert self.zero_s is not None, "a frame comes of sound"
        return self.zero_s + time_s + self.latency_s
