"""Residual graph convolution over the template (MMTalker III-C, Eq. 2 and 3)."""

import warnings
from functools import reduce
from operator import add

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Int64
from scipy.sparse import csr_matrix, diags, identity
from torch import Tensor, nn
from torch.nn import functional

from models.surface import vertex_neighbours

Features = Float[Tensor, "vertices frames width"]


def propagation_matrix(faces: Int[np.ndarray, "faces 3"], count: int) -> csr_matrix:
    """A of Eq. 3: 1 on the diagonal, 1 / d_i on the edges of vertex i, whose degree is d_i."""
    neighbours = vertex_neighbours(faces, count)
    degree = np.maximum(neighbours @ np.ones(count), 1)
    return (identity(count) + diags(1 / degree) @ neighbours).tocsr()


class Propagation(nn.Module):
    """x → A x for features (vertices, frames, width).

    Sparse where torch runs it; as gathers, one for each neighbour slot, where it is exported: ONNX has no sparse matrix.
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
            slots = range(len(self.neighbours))
            return reduce(add, (x[self.neighbours[k]] * self.weights[k][:, None, None] for k in slots))
        return (self.matrix @ x.flatten(1)).reshape(x.shape)


class ResidualGraph(nn.Module):
    """Oˡ = ReLU(A Oˡ⁻¹ Wˡ⁻¹), two layers with residuals (Fig. 4).

    With `propagation` None the layers see each vertex alone: the paper's ablation, an MLP instead of the graph.
    """

    def __init__(self, width_in: int, width: int, propagation: Propagation | None) -> None:
        super().__init__()
        self.propagation = propagation
        self.first = nn.Linear(width_in, width)
        self.second = nn.Linear(width, width)
        self.skip = nn.Linear(width_in, width, bias=False)

    def forward(self, x: Features) -> Features:
        """O⁰ → O²."""
        hidden = functional.relu(self._propagate(self.first(x))) + self.skip(x)
        return functional.relu(self._propagate(self.second(hidden))) + hidden

    def _propagate(self, x: Features) -> Features:
        return x if self.propagation is None else self.propagation(x)


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
