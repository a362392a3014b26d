"""`bundle`: an animated GLB, the basis of its wrinkles as images, and a receipt, in one zip."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

from models.core import Clip, Frame
from models.errors import OutOfRange
from service.encoders.archive import Archive
from service.encoders.base import FrameEncoder
from service.encoders.whole_clip import WholeClip, animated_document, clip_facts


class BundleEncoder(FrameEncoder):
    """`animation.glb`, `wrinkle_0.png` and so on, `weights.json` and `receipt.json`, all on one clock."""

    name = "bundle"
    media_type = "application/zip"
    extension = ".zip"
    needs_whole_clip = True
    writes_every_texture = False

    def __init__(self) -> None:
        self._held = ExitStack()

    def begin(self, clip: Clip) -> Iterator[bytes]:
        """Open the spools. OutOfRange for a clip without textures."""
        if clip.texture is None:
            raise OutOfRange("a bundle without textures; wanted a size for them: set texture", field="texture")
        self._whole = self._held.enter_context(closing(WholeClip(clip)))
        yield from ()

    def frame(self, frame: Frame) -> Iterator[bytes]:
        """Spool the frame."""
        self._whole.append(frame)
        yield b""

    def end(self) -> Iterator[bytes]:
        """Compress, then yield the members, the receipt last."""
        morphs, wrinkles = yield from self._whole.compress()
        self.close()
        assert wrinkles is not None
        clip, archive, digests = self._whole.clip, Archive(), {}
        members = {"animation.glb": b"".join(animated_document(clip, morphs).chunks())}
        pictures = {f"wrinkle_{index}.png": picture.data for index, picture in enumerate(wrinkles.pictures())}
        weights = {"fps": clip.fps, "textures": list(pictures)} | wrinkles.fields()
        members |= pictures | {"weights.json": _json(weights)}
        for name, data in members.items():
            digests[name] = hashlib.sha256(data).hexdigest()
            yield archive.add_stored(name, data)
        facts = {"styles": dict(clip.styles), "texture": clip.texture, "max_error_mm": morphs.max_error_mm}
        receipt = clip_facts(clip) | facts | {"psnr_db": wrinkles.psnr_db, "sha256": digests}
        yield archive.add_stored("receipt.json", _json(receipt))
        yield archive.finish()

    def close(self) -> None:
        """Delete the spools."""
        self._held.close()


def _json(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode()
