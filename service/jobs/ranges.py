"""`Range`: one part of a file (RFC 9110, section 14)."""

import re

from models.errors import SHOWN
from service.problems import BadRange

BYTES = re.compile(r"(\d*)-(\d*)")


def part_asked(header: str | None, size: int) -> range | None:
    """The bytes that a `Range` header asks for, of `size`; None for all, as for several parts and other units.

    Raises BadRange for a range that is none, and for one that lies past the end.
    """
    unit, _, text = (header or "").partition("=")
    if unit.strip().lower() != "bytes" or "," in text:
        return None
    parts = BYTES.fullmatch(text.strip())
    first, last = parts.groups() if parts else ("", "")
    if first:
        part = range(int(first), min(int(last) + 1, size) if last else size)
    else:
        part = range(max(size - int(last or 0), 0), size)
    if not part:
        raise BadRange(
            f"Range = {str(header)[:SHOWN]!r} of a file of {size:,} bytes; wanted bytes=first-last within it: correct "
            "it, or leave it out",
            size=size,
        )
    return part
