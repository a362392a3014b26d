"""Everything Talker refuses, and why.

    TalkerError
    ├── InputError                what came with the request cannot be used
    │   ├── MalformedInput        wrong type, not finite, unknown field          400
    │   ├── UnknownName           no such engine, style, template                404
    │   ├── Conflict              what is there already forbids it               409
    │   │   └── Protected         it was shipped, and stays                      409
    │   ├── TooLarge              over a limit, which the message names          413
    │   ├── UnsupportedMedia      not audio, not a mesh, unknown format          415
    │   └── OutOfRange            out of range, or an impossible combination     422
    ├── Busy                      every slot is taken: try again                 503
    │   ├── EngineLost            no machine of the cluster answers: try again   503
    │   ├── TooMany               one client has its share: try again            429
    │   └── StorageFull           the disk is full: try again                    503
    ├── EngineClosed              it was closed while it was used                500
    └── CheckpointError           weights are missing, damaged or do not fit     500

Match errors by class, never by message. A message has three parts: what came, what was wanted, what to do.
`service.problems` maps classes to the statuses above, in one table.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

SHOWN = 80
"""Characters of what came that a message repeats."""


class TalkerError(Exception):
    """Root of the tree. `code` is stable and snake_case; `field` names the offending parameter, if there is one."""

    code = "talker_error"

    def __init__(self, message: str, *, field: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.field = field
        if code is not None:
            self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as what it is, not as the call that made it: constructors take other arguments."""
        return _restored, (type(self), self.args, vars(self))


def _restored(kind: type[TalkerError], arguments: tuple[Any, ...], state: Mapping[str, Any]) -> TalkerError:
    error = kind.__new__(kind, *arguments)
    vars(error).update(state)
    return error


class InputError(TalkerError):
    """What came with the request cannot be used."""

    code = "bad_input"


class MalformedInput(InputError):
    """A value of the wrong type, a value that is not finite, a field nobody knows."""

    code = "malformed"


class UnknownName(InputError):
    """A name that is not registered. The message lists those that are."""

    code = "unknown_name"

    def __init__(self, kind: str, name: str, known: Iterable[str], *, field: str | None = None) -> None:
        self.known = sorted(known)
        message = f"unknown {kind} {name[:SHOWN]!r}; known: {', '.join(self.known) or 'none'}"
        super().__init__(message, field=field or kind, code=f"unknown_{kind}")


class Conflict(InputError):
    """What is there already forbids it: the id is taken."""

    code = "id_exists"


class Protected(Conflict):
    """It was shipped with Talker, and cannot be changed or removed."""

    code = "shipped_style"


class TooLarge(InputError):
    """More than a limit allows. The message gives the number and the limit."""

    code = "too_large"


class UnsupportedMedia(InputError):
    """Bytes that are not what the field takes."""

    code = "unsupported_media"


class OutOfRange(InputError):
    """A well-formed value outside its range, or a combination that cannot be."""

    code = "out_of_range"


@contextmanager
def blaming(field: str) -> Iterator[None]:
    """An InputError raised within names `field`, whatever it named before."""
    try:
        yield
    except InputError as error:
        error.field = field
        raise


@contextmanager
def refusing_damage(came: str, wanted: str, *, code: str) -> Iterator[None]:
    """Whatever a forged file trips over within, is MalformedInput: a damaged file."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError, struct.error) as error:
        raise MalformedInput(
            f"{came} that cannot be read ({str(error)[:SHOWN] or 'damaged'}); wanted {wanted}", code=code
        ) from error


class Busy(TalkerError):
    """Every slot is taken."""

    code = "busy"

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class EngineLost(Busy):
    """No machine of the cluster answers, or those that did were lost again and again."""

    code = "engine_lost"


class TooMany(Busy):
    """One client alone has more than its share."""

    code = "too_many_requests"


class StorageFull(Busy):
    """The disk is full."""

    code = "storage_full"


class EngineClosed(TalkerError):
    """The process ends: nothing runs any more."""

    code = "engine_closed"


class CheckpointError(TalkerError):
    """Weights that are missing, damaged, or of another architecture."""

    code = "checkpoint"
