"""`bundle`: an animated GLB, the basis of its wrinkles as images, and a receipt, in one zip."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from models.core import Clip
from models.errors import OutOfRange
from service.encoders.archive import Archive
from service.encoders.whole_clip import WholeClipEncoder, animated_document, clip_facts


class BundleEncoder(WholeClipEncoder):
    """`animation.glb`, `wrinkle_0.png` or `.jpg` and so on, `weights.json` and `receipt.json`, all on one clock."""

    name = "bundle"
    media_type = "application/zip"
    extension = ".zip"

    def begin(self, clip: Clip) -> Iterator[bytes]:
        """Open the spools. OutOfRange for a clip without textures."""
        if clip.texture is None:
            raise OutOfRange("a bundle without textures; wanted a size for them: set texture", field="texture")
        yield from super().begin(clip)

    def end(self) -> Iterator[bytes]:
        """Compress, then yield the members, the receipt last."""
        morphs, wrinkles = yield from self._whole.compress()
        self.close()
        assert wrinkles is not None
        clip, archive, digests = self._whole.clip, Archive(), {}
        members = {"animation.glb": b"".join(animated_document(clip, morphs).chunks())}
        pictures = {f"wrinkle_{index}{each.extension}": each.data for index, each in enumerate(wrinkles.pictures)}
        weights = {"fps": clip.fps, "textures": list(pictures)} | wrinkles.fields()
        members |= pictures | {"weights.json": _json(weights)}
        for name, data in members.items():
            digests[name] = hashlib.sha256(data).hexdigest()
            yield archive.add_stored(name, data)
        facts = {"styles": dict(clip.styles), "texture": clip.texture, "max_error_mm": morphs.max_error_mm}
        errors = {key: value for key, value in wrinkles.fields().items() if key.endswith("psnr_db")}
        receipt = clip_facts(clip) | facts | errors | {"sha256": digests}
        yield archive.add_stored("receipt.json", _json(receipt))
        yield archive.finish()


def _json(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode()
