"""Lips that meet: the gap between them along the mouth, and the field that closes it.

The inner rim of the lips is cut into columns, left to right, each with a point on the upper and a point on the lower
lip that touch at rest. A column's gap is the difference of the two points' offsets. Closing moves the upper lip down
and the lower lip up by shares of the gap that fade away from the rim; whatever else the face does, lips that would pass
through each other are parted. Columns lie between the vertices of the two rims, so both hold to a hundredth of the gap.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int
from scipy.sparse import csr_matrix

CONTACT_LOW, CONTACT_RANGE = 0.03, 0.2
"""Contact probability at which the lips begin to close, and how much more of it shuts them: little, since a closure
that is missed is seen, and one that is not needed hardly."""


@dataclass(frozen=True, eq=False)
class LipSeal:
    """Closes lips on any set of surface points.

    gaps (J, R): the R rim vertices' offsets → J gap vectors, lower minus upper. field (P, J): how far each of P points
    moves along each gap; positive on the upper lip, negative on the lower; their difference is 1 at the rim.
    parted (J, 3): gaps at rest, of a head whose lips are not together then; the second number is never positive.
    """

    gaps: Float32[np.ndarray, "columns rim"]
    field: csr_matrix
    parted: Float32[np.ndarray, "columns 3"] | None = None

    def close(
        self,
        offsets: Float32[np.ndarray, "frames points 3"],
        rim_offsets: Float32[np.ndarray, "frames rim 3"],
        contact: Float32[np.ndarray, " frames"],
    ) -> Float32[np.ndarray, "frames points 3"]:
        """Offsets with the lips `contact` (0..1) of the way to touching, and never through each other."""
        closing = self.closing(rim_offsets, contact)
        touched = np.unique(self.field.nonzero()[0])
        result = offsets.copy()
        if touched.size:
            field = self.field[touched]
            moved = field @ closing.transpose(1, 0, 2).reshape(closing.shape[1], -1)
            result[:, touched] += moved.reshape(touched.size, -1, 3).transpose(1, 0, 2).astype(np.float32)
        return result

    def closing(
        self, rim_offsets: Float32[np.ndarray, "frames rim 3"], contact: Float32[np.ndarray, " frames"]
    ) -> Float32[np.ndarray, "frames columns 3"]:
        """What each column must give: its share of the gap by contact, and all of it where the lips would cross."""
        gap = np.einsum("jr,trc->tjc", self.gaps, rim_offsets)
        if self.parted is not None:
            gap = gap + self.parted
        result = gap * contact[:, None, None]
        left = gap[..., 1] - result[..., 1]
        result[..., 1] += np.maximum(left, 0)
        return result.astype(np.float32)

    def opening(self, rim_offsets: Float32[np.ndarray, "frames rim 3"]) -> Float32[np.ndarray, "frames columns"]:
        """Vertical opening of each column in metres, 0 where the lips touch."""
        gap = np.einsum("jr,tr->tj", self.gaps, rim_offsets[..., 1])
        return np.maximum(-(gap if self.parted is None else gap + self.parted[:, 1]), 0).astype(np.float32)

    def at(self, weights: csr_matrix) -> "LipSeal":
        """The same seal on other points, each a (sparse) weighted sum of this one's: `weights` (Q, P)."""
        return LipSeal(self.gaps, (weights @ self.field).tocsr(), self.parted)


def contact_amount(probability: Float[np.ndarray, " frames"]) -> Float32[np.ndarray, " frames"]:
    """Contact probability → how far the lips close, 0..1."""
    return np.clip((probability - CONTACT_LOW) / CONTACT_RANGE, 0, 1).astype(np.float32)


def column_gaps(
    x: Float[np.ndarray, " rim"], upper: Int[np.ndarray, " arc"], lower: Int[np.ndarray, " arc"]
) -> tuple[Float[np.ndarray, " columns"], Float32[np.ndarray, "columns rim"]]:
    """Columns of a rim: their positions across the mouth and the (J, R) matrix of `LipSeal.gaps`.

    x: position of each rim vertex across the mouth; upper and lower: indices into it, corner to corner, both corners
    included, x increasing. There is a column at every vertex between the corners.
    """
    columns = np.sort(np.concatenate([x[upper[1:-1]], x[lower[1:-1]]]))
    gaps = np.zeros((len(columns), len(x)), np.float32)
    for arc, sign in ((lower, 1.0), (upper, -1.0)):
        left = np.clip(np.searchsorted(x[arc], columns, side="right") - 1, 0, len(arc) - 2)
        share = (columns - x[arc[left]]) / (x[arc[left + 1]] - x[arc[left]])
        np.add.at(gaps, (np.arange(len(columns)), arc[left]), sign * (1 - share))
        np.add.at(gaps, (np.arange(len(columns)), arc[left + 1]), sign * share)
    return columns, gaps


def seal_field(
    x: Float[np.ndarray, " points"], columns: Float[np.ndarray, " columns"], strength: Float[np.ndarray, " points"]
) -> csr_matrix:
    """(P, J) field: each point takes the gap at its own x, times its signed strength."""
    place = np.interp(x, columns, np.arange(len(columns)))
    left = np.clip(place.astype(int), 0, len(columns) - 2)
    share = place - left
    moving = np.flatnonzero(np.abs(strength) > 1e-6)
    rows = np.concatenate([moving, moving])
    cols = np.concatenate([left[moving], left[moving] + 1])
    values = np.concatenate([strength[moving] * (1 - share[moving]), strength[moving] * share[moving]])
    return csr_matrix((values.astype(np.float32), (rows, cols)), shape=(len(x), len(columns)))
