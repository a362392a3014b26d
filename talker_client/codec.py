"""From `codes` to frames, exactly the engine's: the generators and the head of `GET /codec/…`, run by onnxruntime.

The path is the engine's own from the codes on, over the same graphs. Where the engine ran on a CPU of the same kind,
the bits are the same. It needs numpy, scipy and onnxruntime.
"""

from collections.abc import Generator as Frames
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from models.core import Clip, CodeBatch, CodeSpace, Frame
from models.errors import MalformedInput
from models.graphs import open_graph
from models.relayout import Relayout
from models.textalker.codec import CodecHead, read_codec_head
from models.textalker.playback import BATCH, Decoder, Generators, generate, generator_facts, play, timeline
from talker_client.codes import CodesHeader, read_codes

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


@dataclass(frozen=True, eq=False)
class Codec:
    """What decodes: a head and its generators. Safe to share."""

    head: CodecHead
    generators: Generators


def decode(file: BinaryIO, folder: str | Path, threads: int = 0) -> Clip:
    """The clip that was encoded. `file` is read as frames are asked for, and needs only `read`.

    `folder` has the files of `GET /codec/{checkpoint}.onnx` and `GET /codec/{template}/{resolution}.npz` by these
    paths; threads 0 leaves their number to onnxruntime. MalformedInput for a stream that is none, or that the files do
    not fit, and CheckpointError for a graph that does not load; the frames raise MalformedInput where the stream was
    cut or is damaged.
    """
    header, batches = read_codes(file)
    codec = open_codec(Path(folder), header, threads)
    options, head, enlarger = header.options, codec.head, None
    if options.texture is not None and head.layout is not None:
        enlarger = Relayout(head.layout, None, len(head.skin))
    return Clip(
        mesh=head.puppet.mesh,
        fps=options.fps,
        frame_count=header.frame_count,
        seed=options.seed,
        engine=options.engine,
        checkpoints=header.checkpoints,
        frames=_frames(header, batches, codec),
        texture=options.texture,
        styles=header.styles,
        enlarger=enlarger,
    )


def open_codec(folder: Path, header: CodesHeader, threads: int = 0) -> Codec:
    """What the codes of a header are decoded with. Refuses as `decode` does."""
    path = f"{header.template}/{header.options.resolution or 'native'}.npz"
    with _wanted(folder, path).open("rb") as file:
        head = read_codec_head(file)
    if any(header.checkpoints.get(name) != sha256 for name, sha256 in head.checkpoints.items()):
        raise _unfit(path, "is of other checkpoints")
    if (head.template, head.resolution) != (header.template, header.options.resolution):
        raise _unfit(path, f"is {head.template} at {head.resolution or 'native'} resolution")
    generators = {}
    for part, space in header.spaces.items():
        path = f"{space.checkpoint}.onnx"
        session = open_graph(_wanted(folder, path), threads)
        if not _fits(session, space, header.checkpoints):
            raise _unfit(path, "is of another checkpoint")
        generators[part] = _generator(session)
    return Codec(head, Generators(generators["motion"], generators.get("wrinkle"), head.skin))


def _frames(header: CodesHeader, batches: Iterable[CodeBatch], codec: Codec) -> Frames[Frame, None, None]:
    fps, head = header.options.fps, codec.head
    time = timeline(fps, header.frame_count, header.moments)
    for batch in play(batches, codec.generators.maps, head.query, time):
        yield from head.puppet.pose(batch, fps, header.options.intensity)


def _generator(session: "InferenceSession") -> Decoder:
    (entry,) = session.get_inputs()

    def run(codes: np.ndarray) -> np.ndarray:
        (maps,) = session.run(None, {entry.name: codes})
        return np.asarray(maps)

    return partial(generate, run)


def _fits(session: "InferenceSession", space: CodeSpace, checkpoints: Mapping[str, str]) -> bool:
    facts = generator_facts(space, checkpoints.get(space.checkpoint, ""))
    shapes = [list(entry.shape) for entry in session.get_inputs()]
    told = session.get_modelmeta().custom_metadata_map
    return facts.items() <= told.items() and shapes == [[BATCH, space.grid, space.grid]]


def _wanted(folder: Path, path: str) -> Path:
    if not (folder / path).is_file():
        raise _unfit(path, f"is not in {folder}")
    return folder / path


def _unfit(path: str, what: str) -> MalformedInput:
    advice = f"the codes want GET /codec/{path} of the service that made them: download it"
    return MalformedInput(f"{path} {what}; {advice}", code="unfit_codec")
