"""Archives that strangers send: zips and numpy arrays, read in memory within limits.

Nothing is unpacked onto the disk, nothing is unpickled, and what a header claims is checked before memory is taken.
"""

import json
import math
import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from io import BytesIO
from typing import Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import numpy as np
from numpy.lib import format as npy

from models.errors import SHOWN, MalformedInput, TooLarge

MAX_MEMBERS = 10_000
MAX_MEMBER_BYTES = 256 << 20
MAX_JSON_BYTES = 4 << 20
MAX_NAME = 200
ENCRYPTED = 0x1
_BROKEN = (BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError, LookupError)
"""What zipfile raises on a damaged file."""
DIGITS = re.compile(r"(\d+)")
OF_MACOS = re.compile(r"__MACOSX/|\.DS_Store$")
"""What macOS adds to the files that it zips: what they look like in its folders."""


class Archive(Mapping[str, bytes]):
    """Members of a zip by name, in the order of the numbers in their names; each is unpacked when it is asked for.

    Folders themselves and OF_MACOS are left aside. Refuses what is damaged or encrypted, names with a folder in them
    (MalformedInput), and more members, or more bytes once unpacked, than the limits (TooLarge).
    """

    def __init__(self, data: bytes, max_bytes: int) -> None:
        if data.count(b"PK\x01\x02") > MAX_MEMBERS:  # before zipfile makes an object of each
            raise TooLarge(f"a zip of more than {MAX_MEMBERS:,} files, the limit; send fewer")
        try:
            self._zip = ZipFile(BytesIO(data))
        except _BROKEN as error:
            raise MalformedInput(f"a zip that cannot be read ({error}); send it anew", code="damaged_zip") from error
        members = [entry for entry in self._zip.infolist() if not _is_beside(entry.filename)]
        for entry in members:
            _check_member(entry)
        if len({entry.filename for entry in members}) < len(members):
            raise MalformedInput("a zip with two files of one name; name each once", code="damaged_zip")
        if (size := sum(entry.file_size for entry in members)) > max_bytes:
            raise TooLarge(f"a zip of {size:,} bytes once unpacked; the limit is {max_bytes:,}: send less")
        self._members = {entry.filename: entry for entry in sorted(members, key=_numbers)}

    def __getitem__(self, name: str) -> bytes:
        """Unpack a member. zipfile stops at the size that was declared, and refuses one whose checksum differs."""
        entry = self._members[name]
        try:
            return self._zip.read(entry)
        except _BROKEN as error:
            raise MalformedInput(
                f"{name} cannot be unpacked ({error}); make the zip anew", code="damaged_zip"
            ) from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __contains__(self, name: object) -> bool:
        return name in self._members  # Mapping's own unpacks it

    def __len__(self) -> int:
        return len(self._members)

    def size(self, name: str) -> int:
        """Bytes of a member once unpacked."""
        return self._members[name].file_size


def read_npy(data: bytes, name: str) -> np.ndarray:
    """An array of numbers from the bytes of an `.npy` file. MalformedInput for objects and for what is no array."""
    file = BytesIO(data)
    try:
        version = npy.read_magic(file)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read_header(file)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError, EOFError) as error:
        raise MalformedInput(f"{name} is no numpy array ({str(error)[:SHOWN]}); save it with numpy.savez") from error
    if dtype.kind not in "fiu":
        raise MalformedInput(f"{name} holds {dtype}; wanted numbers: save it as float32")
    if math.prod(shape) * dtype.itemsize != len(data) - file.tell():
        raise MalformedInput(f"{name} claims the shape {shape} and holds {len(data):,} bytes; save it anew")
    array: np.ndarray[Any, Any] = np.frombuffer(data, dtype, offset=file.tell())
    return array.reshape(shape, order="F" if fortran else "C")


def parse_json(data: bytes, name: str) -> dict[str, Any]:
    """The object in a JSON file. MalformedInput for anything else, TooLarge over MAX_JSON_BYTES."""
    if len(data) > MAX_JSON_BYTES:
        raise TooLarge(f"{name} of {len(data):,} bytes; the limit is {MAX_JSON_BYTES:,}")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise MalformedInput(f"{name} is no JSON ({str(error)[:SHOWN]}); send it as it was made") from error
    if not isinstance(value, dict):
        raise MalformedInput(f"{name} holds no JSON object; send it as it was made")
    return value


def _is_beside(name: str) -> bool:
    return name.endswith("/") or OF_MACOS.match(name) is not None


def _check_member(entry: ZipInfo) -> None:
    name = entry.filename
    if not 0 < len(name) <= MAX_NAME or re.search(r"[/\\:\x00-\x1f]", name) or name.startswith("."):
        raise MalformedInput(
            f"a zip with the file {name[:SHOWN]!r}; wanted plain names: zip the files, not their folder",
            code="bad_path",
        )
    if entry.flag_bits & ENCRYPTED or entry.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise MalformedInput(f"{name} is encrypted, or neither stored nor deflated; zip it plainly", code="damaged_zip")
    if entry.file_size > MAX_MEMBER_BYTES:
        raise TooLarge(f"{name} of {entry.file_size:,} bytes once unpacked; the limit is {MAX_MEMBER_BYTES:,}")


def _numbers(entry: ZipInfo) -> list[Any]:
    """Sorts frame_2 before frame_10: text and numbers take turns."""
    return [int(part) if index % 2 else part for index, part in enumerate(DIGITS.split(entry.filename))]
