"""The materials of a mesh: those of the file that it came in, or one, `skin`."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32, Int64

from models.core import Mesh


@dataclass(frozen=True, eq=False)
class Materials:
    """names in the order of their first face; skin is the number of the one that is textured; of_face (F,)."""

    names: tuple[str, ...]
    skin: int
    of_face: Int32[np.ndarray, " faces"]

    def parts(self) -> Iterator[tuple[int, Int64[np.ndarray, " part"]]]:
        """Each material that has faces, and which, in order."""
        for number in range(len(self.names)):
            if (faces := np.flatnonzero(self.of_face == number)).size:
                yield number, faces


def materials_of(mesh: Mesh) -> Materials:
    """What the mesh's source says, if it has one."""
    if mesh.source is None:
        return Materials(("skin",), 0, np.zeros(len(mesh.faces), np.int32))
    return Materials(mesh.source.materials, mesh.source.skin, mesh.source.material)
