"""Wavefront's text, OBJ and MTL: its statements, and the names of files in them, none of which is opened."""

import re
from collections.abc import Iterator, Mapping
from io import BytesIO, TextIOWrapper

from models.errors import SHOWN, MalformedInput, TooLarge

MAX_LINES = 16_000_000
_NUMERIC = {"v", "vt", "f"}
_MAP = "map_kd"
_OUTSIDE = re.compile(r"[\\:]|(^|\s)/|(^|[\s/])\.\.($|[\s/])")
"""A drive, an URL, a backslash, an absolute path, or a way upwards."""


def statements(data: bytes) -> Iterator[tuple[str, str]]:
    """Keyword and the rest of each statement, in order; comments are left out, and lines that go on are joined."""
    if data.count(b"\n") + data.count(b"\r") > MAX_LINES:
        raise TooLarge(f"a text of more than {MAX_LINES:,} lines, the limit; leave out what is no mesh")
    pending: list[str] = []
    for line in TextIOWrapper(BytesIO(data), _encoding(data)):
        if line.endswith("\\\n"):
            pending.append(line[:-2])
            continue
        if pending:
            line = " ".join([*pending, line])
            pending.clear()
        parts = line.split(None, 1)
        if not parts or parts[0].startswith("#"):
            continue
        keyword, rest = parts[0], parts[1] if len(parts) > 1 else ""
        yield keyword, (rest.partition("#")[0] if "#" in rest and keyword in _NUMERIC else rest).strip()


def check_inside(name: str) -> None:
    """Refuse, as MalformedInput, the name of a file that is somewhere else."""
    if _OUTSIDE.search(name):
        raise MalformedInput(
            f"a mesh that refers to {name[:SHOWN]!r}; wanted a plain name: put the files side by side",
            code="external_reference",
        )


def named_beside(names: str, beside: Mapping[str, bytes]) -> list[str]:
    """Of the files that came along those that a statement names: one whose name may hold spaces, or several."""
    return [names] if names in beside else [name for name in names.split() if name in beside]


def read_maps(data: bytes) -> dict[str, str]:
    """The base-colour pictures of an MTL's materials: what follows map_Kd, options and all."""
    maps, material = {}, ""
    for keyword, rest in statements(data):
        if keyword == "newmtl":
            material = rest
        elif keyword.lower() == _MAP:
            maps[material] = rest
    return maps


def _encoding(data: bytes) -> str:
    try:
        data.decode()
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8-sig"
