"""`codes`: maps as numbers of codebook entries, which clients decode. docs/formats.md has it byte by byte."""

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict

import numpy as np

from models.core import Clip, CodeBatch, CodeSpace, CodeStream
from models.errors import OutOfRange, TalkerError
from models.textalker.codes import moment_layout, pack
from service.encoders.base import Encoder
from talker_client.codes import CHUNK, END, HEADER, MAGIC, MEDIA_TYPE, PREFIX, RANGE, end_body


class CodesEncoder(Encoder):
    """Magic, header, a chunk for each window as soon as it is drawn, and an end message. Nothing is decoded."""

    name = "codes"
    media_type = MEDIA_TYPE
    extension = ".codes"
    needs_whole_clip = False
    texel_bytes = 0.0
    repeats_neutral = False

    def begin(self, clip: Clip) -> Iterator[bytes]:
        """Yield magic and header. OutOfRange for a clip without codes."""
        if clip.codes is None:
            raise OutOfRange("a clip without codes; wanted one that textalker makes: set engine", field="engine")
        self._codes = clip.codes
        yield MAGIC + _message(HEADER, _header(clip, clip.codes))

    def body(self, clip: Clip) -> Iterator[bytes]:
        """Yield a chunk for each batch. TalkerError where they are not the moments that were announced."""
        came = 0
        for batch in self._codes.batches:
            if batch.first != came:
                raise TalkerError(f"moments from {batch.first} on came; wanted {came}; they must come in order")
            came += len(batch.contact)
            yield _message(CHUNK, _chunk(batch, self._codes.spaces))
        if came != self._codes.moments:
            raise TalkerError(f"{came} moments came; wanted {self._codes.moments}; the engine stopped early")

    def end(self) -> Iterator[bytes]:
        """Yield the end message, without which a reader takes the stream for cut."""
        yield _message(END, end_body(self._codes.moments))


def _header(clip: Clip, codes: CodeStream) -> bytes:
    fields = {
        "fps": clip.fps,
        "frame_count": clip.frame_count,
        "moments": codes.moments,
        "intensity": codes.intensity,
        "seed": clip.seed,
        "texture": clip.texture,
        "template": codes.template,
        "resolution": codes.resolution,
        "engine": clip.engine,
        "checkpoints": dict(clip.checkpoints),
        "styles": dict(clip.styles),
        "codes": {part: asdict(space) for part, space in codes.spaces.items()},
    }
    return json.dumps(fields, separators=(",", ":")).encode()


def _chunk(batch: CodeBatch, spaces: Mapping[str, CodeSpace]) -> bytes:
    moments = np.zeros(len(batch.contact), moment_layout(spaces))
    moments["contact"] = batch.contact
    for part, space in spaces.items():
        moments[part] = pack(getattr(batch.codes, part), space.entries)
    return RANGE.pack(batch.first, len(moments)) + moments.tobytes()


def _message(kind: bytes, body: bytes) -> bytes:
    return PREFIX.pack(kind, len(body), zlib.crc32(body)) + body
