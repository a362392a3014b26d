"""GLB (glTF 2.0, binary): one animated file, or one file a frame."""

from collections.abc import Iterator

from models.core import Clip, Frame
from service.encoders.archive import Archive
from service.encoders.base import FrameEncoder
from service.encoders.container import GlbDocument
from service.encoders.surface import split_seams
from service.encoders.textures import Picture, base_color, composer_of
from service.encoders.whole_clip import WholeClipEncoder, animated_document, clip_facts


class GlbEncoder(WholeClipEncoder):
    """One file: the mesh at rest, at most 64 morph targets, and one animation channel that weighs them.

    With textures, the neutral one and the basis of the wrinkles are in it, too.
    """

    name = "glb"
    media_type = "model/gltf-binary"
    extension = ".glb"

    def end(self) -> Iterator[bytes]:
        """Compress, then yield the file."""
        morphs, wrinkles = yield from self._whole.compress()
        self.close()
        document = animated_document(self._whole.clip, morphs)
        if wrinkles is not None:
            images = [document.add_picture(picture) for picture in wrinkles.pictures]
            fields = {"fps": self._whole.clip.fps, "images": images} | wrinkles.fields()
            document.root["asset"]["extras"]["wrinkles"] = fields
        yield from document.chunks()


class GlbSequenceEncoder(FrameEncoder):
    """A zip of static files, `frame_000000.glb` and so on, each complete: a GLB cannot share its texture."""

    name = "glb-sequence"
    media_type = "application/zip"
    extension = ".zip"
    needs_whole_clip = False
    texel_bytes = 0.3
    repeats_neutral = True

    def begin(self, clip: Clip) -> Iterator[bytes]:
        """Split the mesh at its seams, once for all frames."""
        self._clip = clip
        self._surface = split_seams(clip.mesh)
        self._composer = composer_of(clip)
        self._archive = Archive()
        yield from ()

    def frame(self, frame: Frame) -> Iterator[bytes]:
        """Yield one entry: positions, normals and texture of this frame."""
        document = GlbDocument(clip_facts(self._clip) | {"frame": frame.index, "time_s": frame.time_s})
        document.add_mesh(self._surface, frame.vertices, self._texture(frame))
        yield self._archive.add_stored(f"frame_{frame.index:06d}.glb", b"".join(document.chunks()))

    def end(self) -> Iterator[bytes]:
        """Yield the zip's directory."""
        yield self._archive.finish()

    def _texture(self, frame: Frame) -> Picture | None:
        if self._composer is None:
            return base_color(self._clip.mesh)
        assert frame.wrinkles is not None
        return self._composer.picture(frame.wrinkles)
