"""Triangles cut into smaller ones, without a crack."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int


class Cut(NamedTuple):
    """Faces cut into parts² alike ones each: points on a face each (P,) at weights (P, 3), those on common edges once;
    the small faces (F · parts², 3), face by face; and of each old face its points (F, L), at the weights `lattice`
    (L, 3).
    """

    face: Int[np.ndarray, " points"]
    weights: Float[np.ndarray, "points 3"]
    faces: Int[np.ndarray, "small 3"]
    of: Int[np.ndarray, "faces lattice"]
    lattice: Float[np.ndarray, "lattice 3"]


def cut_faces(faces: Int[np.ndarray, "faces 3"], parts: int) -> Cut:
    """Every triangle cut along lines parallel to its edges, which it cuts into `parts`."""
    lattice = np.array([(i, j, parts - i - j) for i in range(parts + 1) for j in range(parts + 1 - i)])
    number = {(i, j): k for k, (i, j, _) in enumerate(lattice.tolist())}
    small = [(number[i, j], number[i + 1, j], number[i, j + 1]) for i, j in number if i + j < parts]
    small += [(number[i, j + 1], number[i + 1, j], number[i + 1, j + 1]) for i, j in number if i + j < parts - 1]
    weights, face = np.tile(lattice, (len(faces), 1)), np.repeat(np.arange(len(faces)), len(lattice))
    owner = np.where(weights > 0, faces[face], -1)
    order = np.argsort(owner, 1)
    key = np.c_[np.take_along_axis(owner, order, 1), np.take_along_axis(weights, order, 1)]
    _, first, inverse = np.unique(key, axis=0, return_index=True, return_inverse=True)
    of = inverse.reshape(len(faces), len(lattice))
    return Cut(face[first], weights[first] / parts, of[:, np.array(small)].reshape(-1, 3), of, lattice / parts)
