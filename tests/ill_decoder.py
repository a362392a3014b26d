"""A decoder that does what its file says, for tests of the wall around it."""

import ctypes
import os
import tempfile
from pathlib import Path
from typing import BinaryIO

import numpy as np

from models.audio import AudioLimits, decode_audio
from models.core import Waveform


def decode(file: BinaryIO, limits: AudioLimits) -> Waveform:
    """Decode, or do what the file says."""
    match file.read(8):
        case b"segfault":
            ctypes.string_at(0)
        case b"abort   ":
            os.abort()
        case b"raise   ":
            raise RuntimeError("a bug")
        case b"hang    ":
            ctypes.PyDLL(None).sleep(1000)  # with the interpreter's lock held
        case b"memory  ":
            b"x" * (8 << 30)
        case b"write   ":
            Path(tempfile.gettempdir(), "of-a-stranger").write_bytes(b"x" * 100)
        case b"alter   ":
            os.write(file.fileno(), b"altered")
        case b"lie     ":
            return Waveform(np.zeros(100 * 16_000, np.float32))
    file.seek(0)
    return decode_audio(file, limits)
