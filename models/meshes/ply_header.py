"""The header of a PLY: the elements that follow it, and what each row of them holds."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

MAGIC = re.compile(rb"ply[ \t]*(\r\n|\r|\n)")
MAX_BYTES = 1 << 16
_END = re.compile(rb"[\r\n]end_header[ \t]*(\r\n|\r|\n)")
_ORDERS = {"ascii": "=", "binary_little_endian": "<", "binary_big_endian": ">"}
_NAMES = ("char", "uchar", "short", "ushort", "int", "uint", "float", "double")
_SIZED = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64")
_TYPES = dict(zip(_NAMES + _SIZED, map(np.dtype, _SIZED + _SIZED), strict=True))
_WRITTEN = np.dtype(np.float64)
"""What numbers of a text become."""


@dataclass(frozen=True)
class Property:
    """A number, or where `length` is a type, a list of them."""

    name: str
    item: np.dtype[Any]
    length: np.dtype[Any] | None


@dataclass(frozen=True)
class Element:
    """So many rows of the same properties."""

    name: str
    count: int
    properties: tuple[Property, ...]

    @property
    def has_lists(self) -> bool:
        """Whether rows differ in size."""
        return any(each.length for each in self.properties)


@dataclass(frozen=True)
class Header:
    """What a file says of itself: whether its numbers are text, its elements, the picture in a comment of MeshLab's,
    and its own bytes.
    """

    text: bool
    elements: tuple[Element, ...]
    picture: str
    size: int


def parse_header(data: bytes) -> Header:
    """Read the header. ValueError and KeyError for what is none."""
    if (end := _END.search(data, 0, MAX_BYTES)) is None:
        raise ValueError(f"no end of its header within {MAX_BYTES:,} bytes")
    order = picture = ""
    elements: list[tuple[str, int, list[Property]]] = []
    for line in data[: end.start()].decode("utf-8", "replace").splitlines():
        match line.split():
            case ["format", kind, "1.0"]:
                order = _ORDERS[kind]
            case ["comment", "TextureFile", *_] if not picture:
                picture = line.partition("TextureFile")[2].strip()
            case ["element", name, count]:
                elements.append((name, _natural(count), []))
            case ["property", "list", length, item, name]:
                elements[-1][2].append(Property(name, _typed(item, order), _typed(length, order)))
            case ["property", item, name]:
                elements[-1][2].append(Property(name, _typed(item, order), None))
            case ["element" | "property" | "format", *_]:
                raise ValueError(line)
    made = tuple(Element(name, count, tuple(properties)) for name, count, properties in elements)
    return Header(order == "=", made, picture, end.end())


def _typed(name: str, order: str) -> np.dtype[Any]:
    dtype = _TYPES[name]
    match order:
        case "=":
            return _WRITTEN
        case "<" | ">":
            return dtype.newbyteorder(order)
    raise ValueError("no format before its properties")


def _natural(text: str) -> int:
    if (number := int(text)) < 0:
        raise ValueError(f"{number} elements")
    return number
