"""Neutral skins that were painted once, kept as PNG files: an 8192² one takes fifty seconds of a core."""

import hashlib
import logging
import os
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock

import numpy as np

from models.png import is_whole, write_png
from models.skin.neutral import NeutralSkin, check_size
from models.template import Head

log = logging.getLogger(__name__)

LEVEL = 2
"""Of compression: at 8192² 2 seconds and 62 MB; level 6 takes 14 seconds to save 7 MB of them."""
MODELS = Path(__file__).parents[1]
CODE = sorted([*MODELS.glob("skin/*.py"), *(MODELS / f"{name}.py" for name in ("atlas", "png", "surface", "texels"))])
"""What a skin's texels come from, beside the head."""
MOST_WORKERS = 8
"""Each takes 115 MB at 8192."""
_painting = Lock()


def skin_file(head: Head, size: int, cache: Path, workers: int = 0) -> Path:
    """The neutral texture of the canonical head as a PNG file in a cache: painted the first time it is asked for, or
    when the file is damaged, and after the head or the code changed.

    Memory is that of `NeutralSkin.rows` with so many workers; 0 are as many as there are cores, 8 at most. One skin at
    a time is painted in a process; of several processes that paint the same one the last leaves its file, which is the
    same.
    OutOfRange for sizes that `NeutralSkin` refuses.
    """
    check_size(size)
    path = cache / "skin" / f"{size}-{_fingerprint(head)}.png"
    if not is_whole(path, size):
        with _painting:
            if not is_whole(path, size):  # nor has another thread painted it meanwhile
                _paint(head, size, path, workers or min(os.cpu_count() or 1, MOST_WORKERS))
    return path


class Skins:
    """A head's neutral textures, as PNG. Safe to share."""

    def __init__(self, head: Head, cache: Path, workers: int = 0) -> None:
        self._head, self._cache, self._workers = head, cache, workers

    def png(self, size: int) -> bytes:
        """The texture at a size; see `skin_file`."""
        return skin_file(self._head, size, self._cache, self._workers).read_bytes()


def _paint(head: Head, size: int, path: Path, workers: int) -> None:
    """Write the file whole or not at all."""
    log.info("painting the neutral skin of %d texels, once", size)
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f"{path.stem}.", dir=path.parent) as folder:
        partial = Path(folder, path.name)
        with partial.open("wb") as file:
            write_png(file, size, NeutralSkin(head).rows(size, workers=workers), LEVEL)
        partial.replace(path)


def _fingerprint(head: Head) -> str:
    """Changes with the head's shape, charts, mouth and base colour, the code, and the libraries that draw."""
    digest = hashlib.sha256(f"{[version(name) for name in ('numpy', 'scipy', 'pillow')]} {head.charts}".encode())
    digest.update(f"{head.fingerprint} {head.atlas.fingerprint}".encode())
    digest.update(np.ascontiguousarray(head.rim).tobytes() + head.base_color_png)
    for file in CODE:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
