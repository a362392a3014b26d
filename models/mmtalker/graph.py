"""Residual graph convolution over the template (MMTalker III-C, Eq. 2 and 3)."""

import warnings
from functools import reduce
from operator import add
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Int64
from scipy.sparse import csr_matrix, diags, identity
from torch import Tensor, nn
from torch.nn import functional

from models.surface import vertex_neighbours

Features = Float[Tensor, "vertices frames width"]
Rows = Int[Tensor, " rows"]


def propagation_matrix(faces: Int[np.ndarray, "faces 3"], count: int) -> csr_matrix:
    """A of Eq. 3: 1 on the diagonal, 1 / d_i on the edges of vertex i, whose degree is d_i."""
    neighbours = vertex_neighbours(faces, count)
    degree = np.maximum(neighbours @ np.ones(count), 1)
    return (identity(count) + diags(1 / degree) @ neighbours).tocsr()


class Propagation(nn.Module):
    """x → A x for features (vertices, frames, width).

    Sparse where torch runs it; as gathers, one for each neighbour slot, where it is exported: ONNX has no sparse
    matrix.
    """

    matrix: Tensor
    neighbours: Tensor
    weights: Tensor

    def __init__(self, matrix: csr_matrix) -> None:
        super().__init__()
        matrix.sort_indices()
        starts, columns = (torch.from_numpy(part.astype(np.int64)) for part in (matrix.indptr, matrix.indices))
        values = torch.from_numpy(matrix.data.astype(np.float32))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch calls its sparse matrices a beta feature
            sparse = torch.sparse_csr_tensor(starts, columns, values, matrix.shape)
        neighbours, weights = _neighbour_slots(matrix)
        self.register_buffer("matrix", sparse, persistent=False)
        self.register_buffer("neighbours", torch.from_numpy(neighbours), persistent=False)
        self.register_buffer("weights", torch.from_numpy(weights), persistent=False)

    def forward(self, x: Features) -> Features:
        """Every vertex gathers from its neighbours and itself."""
        if torch.compiler.is_exporting():
            return self.gather(x, self.neighbours, self.weights)
        return (self.matrix @ x.flatten(1)).reshape(x.shape)

    def around(self, rows: Rows) -> tuple[Rows, Int[Tensor, "slots rows"]]:
        """All that `rows` gather from, and for each slot and row the place therein."""
        return torch.unique(self.neighbours[:, rows], return_inverse=True)

    @staticmethod
    def gather(x: Features, neighbours: Int[Tensor, "slots rows"], weights: Float[Tensor, "slots rows"]) -> Features:
        """The same for some rows: neighbours index x, slot by slot."""
        return reduce(add, (x[neighbours[k]] * weights[k][:, None, None] for k in range(len(neighbours))))


class ResidualGraph(nn.Module):
    """O⁰ = f_st ⊕ f_al; Oˡ = ReLU(A Oˡ⁻¹ Wˡ⁻¹), two layers with residuals (Fig. 4).

    Both parts of O⁰ are tables of the vertices times something of the frame (f_al = mixing · channels), so A is
    applied to the tables and W⁰ to the few channels: O⁰ is never formed, and only the second layer gathers features.
    """

    def __init__(self, encoding: int, width: int) -> None:
        super().__init__()
        self.place, self.sound = nn.Linear(encoding, width), nn.Linear(width, width, bias=False)
        self.place_skip, self.sound_skip = nn.Linear(encoding, width), nn.Linear(width, width, bias=False)
        self.second = nn.Linear(width, width)

    def first(self, near: "Factors", own: "Factors", channels: Float[Tensor, "frames channels width"]) -> Features:
        """O¹ from A's view of the factors (near) and from the vertices' own."""
        inner = self.place(near.encoded) + torch.einsum("nk,tkh->nth", near.mixing, self.sound(channels))
        skipped = self.place_skip(own.encoded) + torch.einsum("nk,tkh->nth", own.mixing, self.sound_skip(channels))
        return functional.relu(inner) + skipped

    def last(self, gathered: Features, own: Features) -> Features:
        """O² from A O¹ (gathered) and O¹ (own)."""
        return functional.relu(self.second(gathered)) + own


class Factors(NamedTuple):
    """What O⁰ is made of at some vertices: f_st (vertices, frames, encoding), and the weights that mix the channels."""

    encoded: Features
    mixing: Float[Tensor, "vertices channels"]


def _neighbour_slots(
    matrix: csr_matrix,
) -> tuple[Int64[np.ndarray, "slots vertices"], Float32[np.ndarray, "slots vertices"]]:
    """A's rows padded to the longest: column indices and values, 0 where a row is shorter."""
    lengths = np.diff(matrix.indptr)
    slot = np.arange(matrix.nnz) - np.repeat(matrix.indptr[:-1], lengths)
    row = np.repeat(np.arange(matrix.shape[0]), lengths)
    neighbours = np.zeros((lengths.max(), matrix.shape[0]), np.int64)
    weights = np.zeros(neighbours.shape, np.float32)
    neighbours[slot, row], weights[slot, row] = matrix.indices, matrix.data
    return neighbours, weights
