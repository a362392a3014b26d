"""Phones, and the table that says what the mouth does for each.

Phones are lower-case ARPAbet without stress marks, and `sil`. The table is that of the corpus' coarticulation model
(Cohen & Massaro 1993, with hard labial contact): per viseme and channel a target T, a dominance a and a time constant
τ. Channels are `open` (0 closed, about 1 for the widest vowel) and `round` (-1 spread, 1 puckered).
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from models.errors import MalformedInput

SILENCE = "sil"
VOWELS = frozenset(("aa", "ae", "ah", "ao", "aw", "ay", "eh", "er", "ey", "ih", "iy", "ow", "oy", "uh", "uw"))
ARPABET = VOWELS | {
    *("b", "ch", "d", "dh", "f", "g", "hh", "jh", "k", "l", "m", "n"),
    *("ng", "p", "r", "s", "sh", "t", "th", "v", "w", "y", "z", "zh"),
}


@dataclass(frozen=True)
class Phone:
    """One sound or pause, from `start_s` to `end_s`."""

    name: str
    start_s: float
    end_s: float
    stress: int | None = None
    """Of a vowel: 0 none, 1 primary, 2 secondary. None where it is not known, and for all that is no vowel."""

    def __post_init__(self) -> None:
        if self.name != SILENCE and self.name not in ARPABET:
            raise MalformedInput(f"phone {self.name!r}; wanted one of {', '.join(sorted(ARPABET))} or {SILENCE}")
        if not 0 <= self.start_s < self.end_s:
            raise MalformedInput(f"phone {self.name} from {self.start_s} s to {self.end_s} s; wanted 0 <= start < end")
        if self.stress is not None and (self.stress not in (0, 1, 2) or self.name not in VOWELS):
            raise MalformedInput(f"stress {self.stress} on {self.name}; wanted 0, 1 or 2, and on a vowel")

    @property
    def middle_s(self) -> float:
        """The middle of the segment."""
        return (self.start_s + self.end_s) / 2


class Viseme(IntEnum):
    """Mouth shapes that the speech encoder tells apart."""

    SIL = 0
    PBM = 1
    FV = 2
    TH = 3
    TDN = 4
    L = 5
    KG = 6
    SZ = 7
    CH = 8
    R = 9
    AA = 10
    EH = 11
    IY = 12
    OW = 13
    UW = 14


@dataclass(frozen=True)
class Dominance:
    """One channel's target T, dominance a and time constant tau_s."""

    target: float
    strength: float
    tau_s: float


@dataclass(frozen=True)
class Gesture:
    """What a viseme asks of the two channels."""

    open: Dominance
    round: Dominance


def _gesture(open_: tuple[float, float, int], round_: tuple[float, float, int]) -> Gesture:
    return Gesture(*(Dominance(target, strength, tau_ms / 1e3) for target, strength, tau_ms in (open_, round_)))


GESTURES: dict[Viseme, Gesture] = {
    Viseme.SIL: _gesture((0.03, 0.55, 50), (0.0, 0.25, 66)),
    Viseme.PBM: _gesture((0.0, 1.6, 33), (0.0, 0.10, 44)),
    Viseme.FV: _gesture((0.06, 1.5, 33), (-0.05, 0.30, 38)),
    Viseme.TH: _gesture((0.22, 0.8, 33), (0.0, 0.15, 38)),
    Viseme.TDN: _gesture((0.20, 0.45, 30), (0.0, 0.10, 33)),
    Viseme.L: _gesture((0.26, 0.45, 33), (0.0, 0.10, 33)),
    Viseme.KG: _gesture((0.28, 0.30, 33), (0.0, 0.05, 33)),
    Viseme.SZ: _gesture((0.10, 1.1, 33), (-0.15, 0.30, 38)),
    Viseme.CH: _gesture((0.16, 1.1, 38), (0.55, 0.80, 60)),
    Viseme.R: _gesture((0.22, 0.7, 38), (0.40, 0.60, 55)),
    Viseme.AA: _gesture((0.90, 1.2, 47), (-0.05, 0.60, 50)),
    Viseme.EH: _gesture((0.52, 1.0, 44), (-0.10, 0.60, 50)),
    Viseme.IY: _gesture((0.30, 1.0, 44), (-0.60, 0.90, 55)),
    Viseme.OW: _gesture((0.55, 1.1, 47), (0.75, 1.0, 72)),
    Viseme.UW: _gesture((0.22, 1.1, 47), (1.0, 1.2, 77)),
}

_MEMBERS: dict[Viseme, str] = {
    Viseme.SIL: "sil",
    Viseme.PBM: "p b m",
    Viseme.FV: "f v",
    Viseme.TH: "th dh",
    Viseme.TDN: "t d n",
    Viseme.L: "l",
    Viseme.KG: "k g ng hh",
    Viseme.SZ: "s z",
    Viseme.CH: "sh zh ch jh",
    Viseme.R: "r er",
    Viseme.AA: "aa ae",
    Viseme.EH: "eh ah ax",
    Viseme.IY: "iy ih y",
    Viseme.OW: "ao",
    Viseme.UW: "uw uh w",
}
VISEME_OF: dict[str, Viseme] = {phone: viseme for viseme, phones in _MEMBERS.items() for phone in phones.split()}

DIPHTHONGS: dict[str, tuple[tuple[Viseme, float], tuple[Viseme, float]]] = {
    "ay": ((Viseme.AA, 0.6), (Viseme.IY, 0.4)),
    "aw": ((Viseme.AA, 0.6), (Viseme.UW, 0.4)),
    "oy": ((Viseme.OW, 0.6), (Viseme.IY, 0.4)),
    "ow": ((Viseme.OW, 0.6), (Viseme.UW, 0.4)),
    "ey": ((Viseme.EH, 0.5), (Viseme.IY, 0.5)),
}

PHONES: tuple[str, ...] = (*VISEME_OF, *DIPHTHONGS)


class Segment(NamedTuple):
    """A stretch of one viseme; a diphthong is two."""

    viseme: Viseme
    start_s: float
    end_s: float
    phone: str


def segments(phones: list[Phone]) -> list[Segment]:
    """Phones → visemes, diphthongs split where the glide begins. An unknown phone is a KeyError."""
    result: list[Segment] = []
    for phone in phones:
        parts = DIPHTHONGS.get(phone.name) or ((VISEME_OF[phone.name], 1.0),)
        start_s = phone.start_s
        for viseme, share in parts:
            last = viseme is parts[-1][0]
            stop_s = phone.end_s if last else start_s + share * (phone.end_s - phone.start_s)
            result.append(Segment(viseme, start_s, stop_s, phone.name))
            start_s = stop_s
    return result
