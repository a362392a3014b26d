"""What an encoder is, and the fold that turns a clip into bytes."""

from collections.abc import Generator, Iterator
from contextlib import ExitStack
from typing import ClassVar, Protocol

import numpy as np

from models.core import Clip, Frame
from models.errors import TalkerError


class Encoder(Protocol):
    """One format. An instance encodes one clip: `begin`, `body`, `end`, and always `close`.

    What the three yield, joined, is the file. Nothing that `begin` and `body` yield makes a valid file without `end`.
    Long work yields chunks all the while, empty if need be: whoever reads may stop at any chunk.
    """

    name: ClassVar[str]
    media_type: ClassVar[str]
    extension: ClassVar[str]
    """Of the file, dot included."""
    needs_whole_clip: ClassVar[bool]
    """True when no byte leaves before the last frame has come."""
    texel_bytes: ClassVar[float]
    """What a texel of a frame's texture takes in the file, about; 0 when a basis stands for all frames."""
    repeats_neutral: ClassVar[bool]
    """True when every frame holds the texture at rest where there are no wrinkles."""

    def begin(self, clip: Clip) -> Iterator[bytes]:
        """Yield what is known before the first frame. Leaves the clip's generators alone."""
        ...

    def body(self, clip: Clip) -> Iterator[bytes]:
        """Yield what the performance adds."""
        ...

    def end(self) -> Iterator[bytes]:
        """Yield what makes the file complete."""
        ...

    def close(self) -> None:
        """Free what is held outside memory; allowed at any moment, and more than once."""
        return


class FrameEncoder(Encoder, Protocol):
    """A format of frames: `frame` for each, in order, which yields a chunk."""

    def frame(self, frame: Frame) -> Iterator[bytes]:
        """Yield what one more frame adds."""
        ...

    def body(self, clip: Clip) -> Iterator[bytes]:
        """Yield what the frames add. TalkerError when they are not the frames that the clip announced."""
        count, map_shape = 0, None
        for frame in clip.frames:
            _check(frame, count, clip)
            if clip.texture is not None:
                map_shape = _check_wrinkles(frame, map_shape)
            yield from self.frame(frame)
            count += 1
        if count != clip.frame_count:
            raise TalkerError(
                f"{count} frames came; wanted the {clip.frame_count} that were announced; the engine stopped early"
            )


def encode(clip: Clip, encoder: Encoder) -> Generator[bytes, None, None]:
    """Fold a clip into the bytes of one file.

    Some chunks are empty: they let whoever reads close the stream while nothing is ready.

    Exhausting, closing or failing releases the encoder's temporary files and closes the clip's generators; so does
    closing the stream before its first byte was asked for. Raises what those raise, and TalkerError when they give not
    what the clip announced: the file is cut there, and never looks complete.
    """
    stream = _fold(clip, encoder)
    next(stream)  # a generator that was never entered runs no clean-up when it is closed
    return stream


def _fold(clip: Clip, encoder: Encoder) -> Generator[bytes, None, None]:
    with ExitStack() as held:
        held.callback(clip.frames.close)
        if clip.codes is not None:
            held.callback(clip.codes.batches.close)
        held.callback(encoder.close)
        yield b""
        yield from encoder.begin(clip)
        yield from encoder.body(clip)
        yield from encoder.end()


def _check(frame: Frame, index: int, clip: Clip) -> None:
    """Refuse a frame that is out of order, of another mesh, or not finite: the engine is at fault."""
    wanted = clip.mesh.vertices.shape
    if frame.index != index or index >= clip.frame_count:
        raise TalkerError(
            f"frame {frame.index} came; wanted frame {index} of {clip.frame_count}; frames must come once and in order"
        )
    if frame.vertices.shape != wanted or not np.isfinite(frame.vertices).all():
        raise TalkerError(
            f"frame {index} holds vertices of shape {frame.vertices.shape} or values that are not finite; "
            f"wanted {wanted}, finite; check the engine's checkpoint"
        )


def _check_wrinkles(frame: Frame, wanted: tuple[int, ...] | None) -> tuple[int, ...]:
    """Refuse a wrinkle map that is missing, not finite, or of another shape than those before; return its shape."""
    maps = np.zeros((0, 0, 0)) if frame.wrinkles is None else frame.wrinkles
    if maps.shape != (wanted or (len(maps), len(maps), 3)) or not np.isfinite(maps).all():
        raise TalkerError(
            f"frame {frame.index} holds wrinkles of shape {maps.shape} or values that are not finite; wanted "
            f"{wanted or '(S, S, 3)'}, finite; check the engine's checkpoint"
        )
    return maps.shape
