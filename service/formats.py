"""Formats: which encoder answers a request, by its `format` field or by `Accept`."""

from collections.abc import Mapping

from models.errors import SHOWN, MalformedInput, UnsupportedMedia
from service.encoders import ENCODERS
from service.problems import NotAcceptable


def format_named(name: str) -> str:
    """`name`, if there is such a format; UnsupportedMedia otherwise."""
    if name not in ENCODERS:
        raise UnsupportedMedia(f"unknown format {name[:SHOWN]!r}; known: {', '.join(ENCODERS)}", field="format")
    return name


def format_accepted(accept: str | None) -> str:
    """The format whose media type `Accept` likes best (RFC 9110, section 12.5.1); among equals the first of ENCODERS.

    No header and `*/*` are `glb`. Raises NotAcceptable when nothing fits, MalformedInput for a quality that is no
    number from 0 to 1.
    """
    return accepted(accept, {name: encoder.media_type for name, encoder in ENCODERS.items()})


def accepted(accept: str | None, offered: Mapping[str, str]) -> str:
    """`format_accepted` among other media types, by name; the first of them is what no header and `*/*` mean."""
    ranges = _qualities(accept or "*/*")
    qualities = {name: _quality(media_type, ranges) for name, media_type in offered.items()}
    best = max(qualities, key=lambda name: qualities[name])
    if qualities[best] == 0:
        known = ", ".join(dict.fromkeys(offered.values()))
        raise NotAcceptable(f"Accept = {(accept or '')[:SHOWN]!r}; wanted one of {known}", field="Accept")
    return best


def _qualities(accept: str) -> dict[str, float]:
    """Media ranges and their qualities; parameters other than q select nothing, as our types have none."""
    ranges: dict[str, float] = {}
    for item in filter(None, (part.strip() for part in accept.split(","))):
        media_range, *parameters = (part.strip() for part in item.lower().split(";"))
        quality = next((value for key, _, value in (p.partition("=") for p in parameters) if key.strip() == "q"), "1")
        try:
            ranges[media_range] = float(quality)
        except ValueError:
            ranges[media_range] = -1
        if not 0 <= ranges[media_range] <= 1:
            raise MalformedInput(f"Accept has q = {quality[:SHOWN]!r}; wanted a number from 0 to 1", field="Accept")
    return ranges


def _quality(media_type: str, ranges: dict[str, float]) -> float:
    """The quality of the most specific range that matches."""
    family = media_type.partition("/")[0]
    return next((ranges[r] for r in (media_type, f"{family}/*", "*/*") if r in ranges), 0.0)
