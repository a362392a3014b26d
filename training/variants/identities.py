"""Identities more various than the corpus' cast: from children to the old, with many local changes at once."""

from dataclasses import dataclass

import numpy as np

from training.anny_head import local_changes
from training.head import identity_vertices

PLACES = (
    "cheek", "chin", "ear", "eyebrows", "eye", "forehead", "head", "mouth", "neck", "nose",
)  # fmt: skip
"""What the names of changes begin with that tell heads apart, after an `l-` or `r-` for those of one side."""
CHANGES = 24
"""How many changes an identity has."""
SIDEWAYS = ("head-trans-out", "neck-trans-out", "mouth-trans-out", "nose-trans-out")
"""Changes that make a face lopsided, and are drawn small."""


@dataclass(frozen=True)
class Identity:
    """anny's phenotypes and local changes."""

    phenotypes: dict[str, float]
    changes: dict[str, float]

    def vertices(self) -> np.ndarray:
        """Vertices (N, 3) in metres on the canonical topology, lips closed."""
        return identity_vertices(self.phenotypes, self.changes)


def draw_identity(seed: int, strength: float = 1.0) -> Identity:
    """An identity, deterministic by seed; changes reach up to `strength`."""
    random = np.random.default_rng([seed, 10])
    origin = random.dirichlet([0.6, 0.6, 0.6])
    phenotypes = {
        "gender": float(random.uniform(0, 1)),
        "age": float(random.uniform(0.3, 1.0)),
        "muscle": float(random.uniform(0.1, 0.9)),
        "weight": float(random.uniform(0.1, 1.0)),
        **{key: float(share) for key, share in zip(("african", "asian", "caucasian"), origin, strict=True)},
    }
    names = _changes()
    changes = {}
    for name in random.choice(names, CHANGES, replace=False).tolist():
        amount, difference = strength * random.uniform(-1, 1), random.normal(0, 0.08)
        if name in SIDEWAYS:
            amount *= 0.2
        for side in (("l-", -1), ("r-", 1)) if f"l-{name}" in local_changes() else (("", 0),):
            changes[side[0] + name] = float(np.clip(amount + side[1] * difference, -1, 1))
    return Identity(phenotypes, changes)


def _changes() -> list[str]:
    """The changes of PLACES, both sides as one."""
    names = {name.removeprefix("l-").removeprefix("r-") for name in local_changes()}
    return sorted(name for name in names if name.split("-")[0] in PLACES)
