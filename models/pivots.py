"""Style pivots on disk, and the book that holds them: shipped ones, and those that users make.

A pivot file is safetensors with a `talker` header, as a checkpoint is: `<id>.motion` and `<id>.wrinkle` as float32, and
in the header what the pivots are, and the fingerprint of the auto-encoders whose latents they are. One pivot is a file
to keep or to send (`pivot_bytes`, `read_pivot`); the shipped ones are one file together. Importing this module imports
no torch.
"""

import json
import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, Literal

import numpy as np
from jaxtyping import Float32
from safetensors import SafetensorError
from safetensors.numpy import load, save

from models.core import StylePivot
from models.errors import (
    SHOWN,
    CheckpointError,
    Conflict,
    InputError,
    MalformedInput,
    Protected,
    TooLarge,
    UnknownName,
    UnsupportedMedia,
)
from models.styles import parse_style

log = logging.getLogger(__name__)

Part = Literal["motion", "wrinkle"]
PARTS: tuple[Part, ...] = ("motion", "wrinkle")

KIND = "style-pivots"
FORMAT = 1
SUFFIX = ".pivot"
MAX_BYTES = 1 << 20
"""Of a file with one pivot: the papers' size is 32 KiB."""
MAX_MADE = 1000
"""Styles that users may keep, so that nobody fills the disk."""


class StyleBook(Mapping[str, StylePivot]):
    """Styles by id. Safe to use from several threads: whoever reads sees the book before a change or after it.

    Those that users make are files in `folder`, one each, and survive a restart; without a folder they last as long as
    the process. Files that cannot be used are logged and left alone. `autoencoders` is the fingerprint of the networks
    whose latents the pivots are.
    """

    def __init__(self, shipped: Sequence[StylePivot], folder: Path | None = None, autoencoders: str = "") -> None:
        self._shipped = {pivot.id: pivot for pivot in shipped}
        self._folder, self._autoencoders = folder, autoencoders
        self._lock = Lock()
        self._pivots = self._shipped | {pivot.id: pivot for pivot in self._stored()}

    def __getitem__(self, id: str) -> StylePivot:
        return self._pivots[id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._pivots)

    def __len__(self) -> int:
        return len(self._pivots)

    def check(self, pivot: StylePivot) -> None:
        """Refuse, as MalformedInput, a pivot whose latents are not as long as the shipped ones'."""
        for part in PARTS:
            came = getattr(pivot, part)
            for other in self._shipped.values():
                wanted = getattr(other, part)
                if came is not None and wanted is not None and came.shape != wanted.shape:
                    raise MalformedInput(
                        f"style {pivot.id} has {part} latents of {len(came)} numbers; wanted {len(wanted)}; make it "
                        "anew from its example",
                        code="other_autoencoders",
                    )

    def add(self, pivot: StylePivot) -> None:
        """Keep a pivot. Conflict if its id is taken, TooLarge if the book is full, and what `check` refuses."""
        self.check(pivot)
        with self._lock:
            path = self._path(pivot.id)
            if pivot.id in self._pivots or (path and path.exists()):
                raise Conflict(f"style {pivot.id} exists; choose another id, or delete it first", field="id")
            if (made := len(self._pivots) - len(self._shipped)) >= MAX_MADE:
                raise TooLarge(f"there are {made} styles beside the shipped ones, and no more may be: delete some")
            if path:
                _write(path, pivot_bytes(pivot, self._autoencoders))
            self._pivots = self._pivots | {pivot.id: pivot}

    def remove(self, id: str) -> None:
        """Forget a pivot that a user made. UnknownName if there is none, Protected if it was shipped."""
        with self._lock:
            if id not in self._pivots:
                raise UnknownName("style", id, self._pivots, field="id")
            if id in self._shipped:
                raise Protected(
                    f"style {id} was shipped with Talker; only styles made by users can be deleted", field="id"
                )
            if path := self._path(id):
                path.unlink(missing_ok=True)
            self._pivots = {name: pivot for name, pivot in self._pivots.items() if name != id}

    def mix(self, expression: str, part: Part, *, field: str | None = None) -> Float32[np.ndarray, " latents"]:
        """One part's latents, (Dm,) or (Dw,), of an expression: the weighted mean, summed in float64.

        A style alone is itself bit for bit, whatever its weight, and the order of the terms does not matter. Refuses
        what `parse_style` does, naming `field` or else `motion_style` or `wrinkle_style`; a style without this part is
        unknown.
        """
        latents = {id: value for id, pivot in self._pivots.items() if (value := getattr(pivot, part)) is not None}
        shares = parse_style(expression, latents, field=field or f"{part}_style")
        terms = (share * latents[id].astype(np.float64) for id, share in sorted(shares.items()) if share)
        mean: np.ndarray = reduce(np.add, terms)  # not from 0: that would turn -0 into 0
        return mean.astype(np.float32)

    def add_mix(self, id: str, motion: str | None, wrinkle: str | None, description: str = "") -> StylePivot:
        """Keep a mix as a style of its own. Its parts may be of different styles, or one of them missing.

        Refuses what `mix` and `add` do. It has no statistics: nobody measured it.
        """
        expressions = {part: text for part, text in zip(PARTS, (motion, wrinkle), strict=True) if text is not None}
        parts = {part: self.mix(text, part, field=part) for part, text in expressions.items()}
        origin = "mix of " + ", ".join(f"{part} {text.strip()}" for part, text in expressions.items())
        pivot = StylePivot(id, description, origin, {}, parts.get("motion"), parts.get("wrinkle"))
        self.add(pivot)
        return pivot

    def _path(self, id: str) -> Path | None:
        return self._folder / f"{id}{SUFFIX}" if self._folder else None

    def _stored(self) -> Iterator[StylePivot]:
        """Pivots of the folder; what is damaged, of other auto-encoders, or of a shipped id is logged."""
        for path in sorted(self._folder.glob(f"*{SUFFIX}")) if self._folder else ():
            try:
                with path.open("rb") as file:
                    pivot = read_pivot(file, self._autoencoders)
                self.check(pivot)
            except (InputError, OSError) as error:
                log.warning("the style in %s is left out: %s", path, error)
                continue
            if pivot.id != path.stem or pivot.id in self._shipped:
                log.warning("the style in %s is left out: its id is %s; rename or remove it", path, pivot.id)
                continue
            yield pivot


def pivot_bytes(pivot: StylePivot, autoencoders: str = "") -> bytes:
    """A file with one pivot, which `read_pivot` takes; the same pivot gives the same bytes.

    `autoencoders` is the fingerprint of the networks whose latents it holds; "" leaves it unsaid.
    """
    return _encode([pivot], autoencoders)


def read_pivot(file: BinaryIO, autoencoders: str = "") -> StylePivot:
    """Read what `pivot_bytes` made, from the file's beginning.

    UnsupportedMedia for a file of another kind, MalformedInput for a damaged one or one of other auto-encoders, where
    both fingerprints are said, TooLarge for one over 1 MiB.
    """
    file.seek(0)
    data = file.read(MAX_BYTES + 1)
    if data[8:9] != b"{":  # safetensors: the header's length, and the header
        raise _no_pivot("a file that is no safetensors")
    if len(data) > MAX_BYTES:
        raise TooLarge(f"a style pivot of more than {MAX_BYTES:,} bytes, the limit; send one style, as it was stored")
    pivots = _decode(data, autoencoders)
    if len(pivots) != 1:
        raise MalformedInput(f"a file with {len(pivots)} style pivots; wanted one: store it alone")
    return pivots[0]


def save_styles(path: Path, pivots: Iterable[StylePivot], autoencoders: str = "") -> None:
    """Write the pivots that are shipped, as one checkpoint, whole or not at all."""
    _write(path, _encode(sorted(pivots, key=lambda pivot: pivot.id), autoencoders))


def load_styles(path: Path, autoencoders: str = "") -> list[StylePivot]:
    """The shipped pivots, by id. CheckpointError if the file is missing, damaged or of other auto-encoders."""
    try:
        return _decode(path.read_bytes(), autoencoders)
    except (InputError, OSError) as error:
        raise CheckpointError(f"{path} holds no styles of these weights ({error}); restore the file") from error


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_bytes(data)
    partial.replace(path)


def _encode(pivots: Sequence[StylePivot], autoencoders: str) -> bytes:
    tensors = {f"{pivot.id}.{part}": getattr(pivot, part) for pivot in pivots for part in PARTS}
    about = {
        pivot.id: {
            "description": pivot.description,
            "origin": pivot.origin,
            "statistics": {name: float(value) for name, value in pivot.statistics.items()},
        }
        for pivot in pivots
    }
    header = {"kind": KIND, "format": FORMAT, "config": {"autoencoders": autoencoders, "pivots": about}}
    text = json.dumps(header, sort_keys=True, allow_nan=False)
    return save({name: value for name, value in tensors.items() if value is not None}, metadata={"talker": text})


def _decode(data: bytes, autoencoders: str) -> list[StylePivot]:
    tensors, header = _open(data)
    try:
        own, about = header["config"]["autoencoders"], header["config"]["pivots"]
        if own and autoencoders and own != autoencoders:
            raise MalformedInput(
                f"a style of the auto-encoders {str(own)[:SHOWN]}; wanted {autoencoders}; make it anew from an example",
                code="other_autoencoders",
            )
        pivots = [_pivot(id, entry, tensors) for id, entry in sorted(about.items())]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise MalformedInput(f"a style pivot whose header cannot be read ({error!r}); store it anew") from error
    if len(tensors) != sum(getattr(pivot, part) is not None for pivot in pivots for part in PARTS):
        raise MalformedInput(f"a style pivot with latents of nobody among {sorted(tensors)}; store it anew")
    return pivots


def _open(data: bytes) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors by name, and the header."""
    try:
        tensors = load(data)
        metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__") or {}
        header = json.loads(metadata["talker"])
        kind, version = header["kind"], header["format"]
    except (SafetensorError, KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise _no_pivot(f"a file that cannot be read as one ({error!r})") from error
    if kind != KIND:
        raise _no_pivot(f"a {str(kind)[:SHOWN]}")
    if version != FORMAT:
        raise _no_pivot(f"format {str(version)[:SHOWN]} of it, where this version reads {FORMAT}")
    return tensors, header


def _pivot(id: str, entry: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> StylePivot:
    statistics = {str(name): float(value) for name, value in entry["statistics"].items()}
    if not all(map(math.isfinite, statistics.values())):
        raise MalformedInput(f"style {id} has statistics that are not finite; store it anew", code="not_finite")
    parts = {part: tensors.get(f"{id}.{part}") for part in PARTS}
    return StylePivot(id, str(entry["description"]), str(entry["origin"]), statistics, **parts)


def _no_pivot(came: str) -> UnsupportedMedia:
    return UnsupportedMedia(
        f"{came}; wanted a style pivot of this project: send one as it was stored", code="not_a_pivot"
    )
