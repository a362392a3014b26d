"""What crosses machines as bytes: pickled, and no larger than what is in it.

A pickled tensor brings all of its storage along, and states are mostly views of larger tensors.
"""

import pickle
from collections.abc import Callable
from io import BytesIO
from typing import Any

import torch
from torch import Tensor


def pack(value: Any) -> bytes:
    """Anything that can be pickled; tensors as arrays of their own."""
    file = BytesIO()
    _Packer(file, pickle.HIGHEST_PROTOCOL).dump(value)
    return file.getvalue()


def unpack(data: bytes) -> Any:
    """`pack` undone. Only for what came over the cluster's own network: a forged pickle runs what it likes."""
    return pickle.loads(data)


class _Packer(pickle.Pickler):
    def reducer_override(self, value: Any) -> tuple[Callable[..., Tensor], tuple[Any]]:
        if isinstance(value, Tensor):
            return torch.from_numpy, (value.detach().cpu().numpy(),)
        return NotImplemented
