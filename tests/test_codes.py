"""`codes` as bytes: what is written is read back exactly, or not at all."""

import json
import subprocess
import sys
import zlib
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from itertools import islice
from typing import Any

import numpy as np
import pytest
from test_encoders import bumpy_clip
from test_frames import Dribble

from models.core import Clip, CodeBatch, Codes, CodeSpace, CodeStream
from models.errors import MalformedInput, OutOfRange, TalkerError
from models.textalker.codes import RATE_HZ, bits_of, moment_layout, pack, unpack
from service.encoders import ENCODERS, encode
from talker_client.codes import CHUNK, END, HEADER, MAGIC, PREFIX, RANGE, end_body, read_codes

PAPER = {part: CodeSpace(f"textalker-{part}", 1024, 16) for part in ("motion", "wrinkle")}
SMALL = {"motion": CodeSpace("textalker-motion", 6, 3), "wrinkle": CodeSpace("textalker-wrinkle", 64, 2)}
WINDOW = 4


def batches(moments: int, spaces: dict[str, CodeSpace], window: int = WINDOW) -> Iterator[CodeBatch]:
    """Any codes and contacts, a window at a time."""
    random = np.random.default_rng(0)
    parts = {k: random.integers(0, s.entries, (moments, s.grid, s.grid)).astype(np.uint16) for k, s in spaces.items()}
    contact = random.random(moments, np.float32)
    for start in range(0, moments, window):
        own = slice(start, start + window)
        wrinkle = parts["wrinkle"][own] if "wrinkle" in parts else None
        yield CodeBatch(start, contact[own], Codes(parts["motion"][own], wrinkle))


def coded(moments: int = 10, spaces: dict[str, CodeSpace] = SMALL, window: int = WINDOW, **changes: Any) -> Clip:
    """A clip whose codes are `batches`, at 30 frames a second."""
    clip = bumpy_clip(moments, 512 if "wrinkle" in spaces else None, rows=3, columns=4)
    stream = CodeStream(moments, spaces, "default", None, 0.75, batches(moments, spaces, window))
    return replace(clip, engine="textalker", codes=replace(stream, **changes))


def written(clip: Clip) -> bytes:
    return b"".join(encode(clip, ENCODERS["codes"]()))


def message(kind: bytes, body: bytes) -> bytes:
    return PREFIX.pack(kind, len(body), zlib.crc32(body)) + body


def messages(data: bytes) -> list[tuple[bytes, bytes]]:
    """Type and body of each message."""
    result, place = [], len(MAGIC)
    while place < len(data):
        kind, size, _ = PREFIX.unpack_from(data, place)
        place += PREFIX.size + size
        result.append((kind, data[place - size : place]))
    return result


def with_header(**changes: Any) -> bytes:
    """The stream with another header, its checksum right."""
    (_, body), *rest = messages(written(coded()))
    fields = json.loads(body) | changes
    return MAGIC + b"".join(message(*part) for part in [(HEADER, json.dumps(fields).encode()), *rest])


def with_chunk(body: bytes) -> bytes:
    """The stream with another first chunk, its checksum right."""
    parts = messages(written(coded()))
    parts[1] = CHUNK, body
    return MAGIC + b"".join(message(*part) for part in parts)


def read_all(data: bytes) -> list[CodeBatch]:
    return list(read_codes(BytesIO(data))[1])


# Bits.


@pytest.mark.parametrize("entries", [2, 6, 8, 64, 1000, 1024, 65536])
@pytest.mark.parametrize("grid", [1, 2, 3, 16])
def test_packing_and_unpacking_is_the_identity(entries, grid):
    codes = np.random.default_rng(0).integers(0, entries, (5, grid, grid)).astype(np.uint16)
    codes[0], codes[1] = 0, entries - 1
    packed = pack(codes, entries)
    assert packed.shape == (5, -(-grid * grid * bits_of(entries) // 8))
    assert np.array_equal(unpack(packed, entries, grid), codes)


def test_bits_are_filled_from_the_lowest_on():
    """1, 2, 7, 0 of 8: 100 010 111 000."""
    assert pack(np.array([[[1, 2], [7, 0]]], np.uint16), 8).tolist() == [[0b11010001, 0b0001]]


def test_a_moment_has_the_size_that_the_document_tells():
    """640 bytes of codes at paper size, 320 without wrinkles, and four of lip contact."""
    assert moment_layout(PAPER).itemsize == 4 + 320 + 320
    assert moment_layout({"motion": PAPER["motion"]}).itemsize == 4 + 320


def test_a_second_takes_19_kb():
    size = [len(written(coded(moments, PAPER, window=3 * RATE_HZ))) for moments in (30 * RATE_HZ, 60 * RATE_HZ)]
    assert (size[1] - size[0]) / 30 == pytest.approx(19_327, abs=1)


# The stream.


@pytest.mark.parametrize("spaces", [SMALL, PAPER, {"motion": SMALL["motion"]}], ids=["small", "paper", "motion"])
def test_what_is_written_is_read_back(spaces):
    clip = coded(spaces=spaces)
    header, came = read_codes(BytesIO(written(clip)))
    assert (header.frame_count, header.moments, header.spaces) == (10, 10, spaces)
    assert (header.options.fps, header.options.intensity, header.options.seed) == (clip.fps, 0.75, clip.seed)
    assert (header.template, header.options.resolution, header.options.texture) == ("default", None, clip.texture)
    assert (header.checkpoints, header.styles) == (clip.checkpoints, clip.styles)
    for batch, wanted in zip(came, batches(10, spaces), strict=True):
        assert batch.first == wanted.first
        assert batch.contact.tobytes() == wanted.contact.tobytes()
        assert np.array_equal(batch.codes.motion, wanted.codes.motion)
        assert (batch.codes.wrinkle is None) == ("wrinkle" not in spaces)
        assert wanted.codes.wrinkle is None or np.array_equal(batch.codes.wrinkle, wanted.codes.wrinkle)


def test_a_clip_of_nothing_is_a_whole_stream():
    assert read_all(written(replace(coded(0), frame_count=0))) == []


def test_a_source_that_gives_few_bytes_at_a_time_is_read_whole():
    assert len(list(read_codes(Dribble(written(coded())))[1])) == 3


def test_a_window_leaves_before_the_next_is_drawn():
    seen = []
    noted = (seen.append(batch.first) or batch for batch in batches(10, SMALL))  # type: ignore[func-returns-value]
    stream = encode(coded(batches=noted), ENCODERS["codes"]())
    came = b"".join(islice(stream, 2))
    assert seen == [0]
    assert next(read_codes(BytesIO(came))[1]).first == 0
    stream.close()


@pytest.mark.parametrize("chunks", [0, 1, 3])
def test_a_consumer_that_stops_early_frees_the_engine(chunks):
    clip = coded()
    stream = encode(clip, ENCODERS["codes"]())
    for _ in islice(stream, chunks):
        pass
    stream.close()
    assert clip.codes is not None
    assert next(clip.codes.batches, None) is None
    assert next(clip.frames, None) is None


@pytest.mark.parametrize(
    ("came", "error"),
    [
        (lambda every: every[:-1], "8 moments came; wanted 10"),
        (lambda every: every[1:], "moments from 4 on came; wanted 0"),
    ],
    ids=["too few", "out of order"],
)
def test_an_engine_that_does_not_keep_its_word_leaves_a_cut_stream(came, error):
    clip, chunks = coded(batches=(batch for batch in came(list(batches(10, SMALL))))), []
    with pytest.raises(TalkerError, match=error):
        chunks.extend(encode(clip, ENCODERS["codes"]()))
    with pytest.raises(MalformedInput, match="was cut"):
        read_all(b"".join(chunks))


def test_a_clip_without_codes_is_refused():
    with pytest.raises(OutOfRange, match="a clip without codes"):
        written(bumpy_clip())


# Strangers.


def test_a_stream_cut_anywhere_is_refused_after_what_came_whole():
    data = written(coded())
    for size in range(len(data)):
        came = []
        with pytest.raises(MalformedInput, match="was cut") as refusal:
            came.extend(read_codes(BytesIO(data[:size]))[1])
        assert refusal.value.code == "damaged_codes"
        assert len(came) <= 3
    assert len(read_all(data)) == 3


def test_a_stream_with_any_bit_changed_is_refused():
    """Before anything of the message that it hit is given."""
    data, wanted = written(coded()), [batch.contact.tolist() for batch in batches(10, SMALL)]
    for place in range(len(data)):
        changed, came = bytearray(data), []
        changed[place] ^= 1 << place % 8
        with pytest.raises(MalformedInput):
            came.extend(batch.contact.tolist() for batch in read_codes(BytesIO(changed))[1])
        assert came == wanted[: len(came)]


@pytest.mark.parametrize(
    "changes",
    [
        {"fps": 0},
        {"fps": float("nan")},
        {"fps": "fast"},
        {"fps": 24},
        {"intensity": 9},
        {"seed": -1},
        {"moments": 2**40, "frame_count": 2**40},
        {"moments": 10.0},
        {"moments": True, "frame_count": True},
        {"frame_count": 0},
        {"resolution": 10**9},
        {"resolution": 3},
        {"texture": 10**9},
        {"template": "../../etc"},
        {"template": None},
        {"checkpoints": 3},
        {"styles": ["calm"]},
        {"codes": {}},
        {"codes": {"motion": {"checkpoint": "textalker-motion", "entries": 6, "grid": 10**6}}},
        {"codes": {part: {"checkpoint": "a/b", "entries": 6, "grid": 3} for part in SMALL}},
        {"codes": {part: {"checkpoint": "a", "entries": 1, "grid": 3} for part in SMALL}},
        {"codes": {part: {"checkpoint": "a", "entries": 6, "grid": 0} for part in SMALL}},
    ],
    ids=str,
)
def test_a_header_that_cannot_be_is_refused(changes):
    with pytest.raises(MalformedInput, match="its header cannot be read") as refusal:
        read_codes(BytesIO(with_header(**changes)))
    assert refusal.value.code == "damaged_codes"


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"{}", b"[" * 100_000, b"\xff"], ids=lambda body: repr(body[:3]))
def test_a_header_that_is_none_is_refused(body):
    with pytest.raises(MalformedInput, match="its header cannot be read"):
        read_codes(BytesIO(MAGIC + message(HEADER, body)))


def first_chunk(first: int = 0, count: int = WINDOW, **fields: Any) -> bytes:
    moments = np.zeros(WINDOW, moment_layout(SMALL))
    for name, value in fields.items():
        moments[name] = value
    return RANGE.pack(first, count) + moments.tobytes()


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (first_chunk(first=1), "holds 4 moments from 1 on"),
        (first_chunk(count=0), "holds 0 moments"),
        (first_chunk(count=2**32 - 1), "holds 4294967295 moments"),
        (first_chunk()[:-1], "a chunk of 51 bytes"),
        (first_chunk() + b"\0", "a chunk of 53 bytes"),
        (b"", "a chunk of 0 bytes"),
        (first_chunk(motion=255), "codes or contacts that there are not"),
        (first_chunk(contact=np.nan), "codes or contacts that there are not"),
        (first_chunk(contact=1.5), "codes or contacts that there are not"),
    ],
)
def test_a_chunk_that_cannot_be_is_refused(body, error):
    with pytest.raises(MalformedInput, match=error):
        read_all(with_chunk(body))


def test_no_memory_is_taken_for_what_a_message_claims():
    """A size over the limit is refused before a byte of it is read."""
    for kind, before in ((HEADER, MAGIC), (CHUNK, MAGIC + message(*messages(written(coded()))[0]))):
        file = BytesIO(before + PREFIX.pack(kind, 2**32 - 1, 0) + bytes(100))
        with pytest.raises(MalformedInput, match="4,294,967,295 bytes came"):
            list(read_codes(file)[1])
        assert file.tell() == len(before) + PREFIX.size


@pytest.mark.parametrize("end", [end_body(9), b"{}", b'{"status":"failed","moments":10}'])
def test_an_end_that_disagrees_is_refused(end):
    parts = messages(written(coded()))
    with pytest.raises(MalformedInput, match="it ends after 10 moments"):
        read_all(MAGIC + b"".join(message(*part) for part in [*parts[:-1], (END, end)]))


def test_what_is_no_stream_of_codes_is_refused():
    with pytest.raises(MalformedInput, match=r"does not begin with b'TALKCOD1'; wanted application/x-talker-codes"):
        read_all(b"TALKFRM1 and the rest")


def test_decoding_needs_no_torch_and_no_service():
    code = "import talker_client.codec, sys; sys.exit(bool({'torch', 'service', 'PIL'} & sys.modules.keys()))"
    subprocess.run([sys.executable, "-c", code], check=True)
