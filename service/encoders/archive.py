"""A zip written entry by entry, with nothing in it that depends on the time of day."""

import io
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

_READABLE = 0o100644 << 16


class Archive:
    """Each method returns the bytes that its entry adds; only those of `finish` make the file a zip."""

    def __init__(self) -> None:
        self._sink = _Sink()
        self._zip = ZipFile(self._sink, "w")

    def add_stored(self, name: str, data: bytes) -> bytes:
        """Add data as it is: for what does not shrink."""
        return self._add(name, data, ZIP_STORED)

    def add_deflated(self, name: str, data: bytes) -> bytes:
        """Add data at zlib's fastest level."""
        return self._add(name, data, ZIP_DEFLATED)

    def finish(self) -> bytes:
        """Return the central directory."""
        self._zip.close()
        return self._sink.drain()

    def _add(self, name: str, data: bytes, method: int) -> bytes:
        entry = ZipInfo(name)  # dated 1980-01-01, not today
        entry.create_system = 3  # Unix, whichever system this runs on
        entry.external_attr = _READABLE
        self._zip.writestr(entry, data, method, compresslevel=1)
        return self._sink.drain()


class _Sink(io.BytesIO):
    """A file that forgets what was taken from it.

    Within an entry it can be rewound, so zipfile writes sizes into local headers and no data descriptors, which would
    keep some readers from unpacking a stream.
    """

    def __init__(self) -> None:
        super().__init__()
        self._taken = 0

    def drain(self) -> bytes:
        data = self.getvalue()
        self._taken += len(data)
        super().seek(0)
        self.truncate()
        return data

    def tell(self) -> int:
        return self._taken + super().tell()

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        return self._taken + super().seek(position - self._taken, whence)
