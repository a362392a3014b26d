"""Exported graphs, run by onnxruntime on the CPU; nothing here needs torch."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from models.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnxruntime import InferenceSession


def open_graph(path: Path, threads: int = 0) -> "InferenceSession":
    """A session over an ONNX file; threads 0 leaves their number to onnxruntime. CheckpointError for no such file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the classes that onnxruntime raises share no other base
        raise CheckpointError(
            f"onnxruntime cannot load {path} ({error}); wanted an exported graph; check the disk, and reinstall "
            "the cpu extra"
        ) from error


def in_batches(run: "Callable[[np.ndarray], np.ndarray]", rows: np.ndarray, size: int) -> np.ndarray:
    """A function of exactly `size` rows, for any number of them but none; the last ones are padded with zeros."""
    results = []
    for start in range(0, len(rows), size):
        own = rows[start : start + size]
        padded = np.concatenate([own, np.zeros((size - len(own), *own.shape[1:]), own.dtype)])
        results.append(run(np.ascontiguousarray(padded))[: len(own)])
    return np.concatenate(results)
