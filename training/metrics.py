"""Vertex metrics of talking heads (MMTalker Eq. 11 to 13), both as the papers print them and as they are computed.

The field's "LVE" is mostly the mean of squared maxima though tables say mm, and its FDD averages signed differences, so
that errors cancel. Here both forms stand side by side, in mm and mm².
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Float, Int

Motion = Float[np.ndarray, "frames vertices 3"]


@dataclass(frozen=True)
class VertexErrors:
    """lve, eve, mve: mean over frames of the largest error at lips / eyes / anywhere, in mm, and of its square, in mm².

    fdd: mean over the upper face of the difference of temporal standard deviations (truth less prediction), in mm;
    fdd_abs of its absolute value.
    """

    lve_mm: float
    lve_mm2: float
    eve_mm: float
    eve_mm2: float
    mve_mm: float
    mve_mm2: float
    fdd_mm: float
    fdd_abs_mm: float


def vertex_errors(predicted: Motion, truth: Motion, regions: Mapping[str, Int[np.ndarray, " members"]]) -> VertexErrors:
    """Errors of one sequence; positions or offsets in metres; regions lips, eyes and upper_face index the vertices.

    "Anywhere" is the region `face`, if it is given, or else every vertex.
    """
    error = 1e3 * np.linalg.norm(predicted - truth, axis=-1)
    largest = {name: error[:, regions[name]].max(1) for name in ("lips", "eyes")}
    largest["face"] = error[:, regions.get("face", slice(None))].max(1)
    upper = regions["upper_face"]
    deviation = _dynamics(truth[:, upper]) - _dynamics(predicted[:, upper])
    return VertexErrors(
        lve_mm=float(largest["lips"].mean()),
        lve_mm2=float((largest["lips"] ** 2).mean()),
        eve_mm=float(largest["eyes"].mean()),
        eve_mm2=float((largest["eyes"] ** 2).mean()),
        mve_mm=float(largest["face"].mean()),
        mve_mm2=float((largest["face"] ** 2).mean()),
        fdd_mm=float(deviation.mean()),
        fdd_abs_mm=float(np.abs(deviation).mean()),
    )


def mean_errors(errors: list[VertexErrors]) -> VertexErrors:
    """The mean over sequences."""
    return VertexErrors(*(float(np.mean([getattr(e, field.name) for e in errors])) for field in fields(VertexErrors)))


def difference_intervals(
    errors: Sequence[VertexErrors], reference: Sequence[VertexErrors], rounds: int = 1000, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """95 % intervals of each mean error less the reference's, clips drawn in pairs, with replacement."""
    random, intervals = np.random.default_rng(seed), {}
    for field in fields(VertexErrors):
        pairs = zip(errors, reference, strict=True)
        difference = np.array([getattr(own, field.name) - getattr(other, field.name) for own, other in pairs])
        means = difference[random.integers(len(difference), size=(rounds, len(difference)))].mean(1)
        low, high = np.percentile(means, (2.5, 97.5)).tolist()
        intervals[field.name] = (low, high)
    return intervals


def _dynamics(motion: Motion) -> Float[np.ndarray, " vertices"]:
    """Standard deviation of each vertex's place over time, in mm."""
    return np.asarray(1e3 * np.sqrt(motion.var(0).sum(-1)))
