"""Variants by name: a head as a file, and the truth about it.

    for name in VARIANTS: make_variant(head, name, seed)

Each is deterministic by name and seed, and has an identity of its own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import permutations, product

import numpy as np
from jaxtyping import Float

from models.atlas import Anchors
from models.meshes.record import MeshFile
from models.template import Head, Template, template_of_identity
from training.head import action_basis
from training.variants import alterations
from training.variants.figure import (
    NOWHERE,
    Figure,
    own_figure,
    quadrangulate,
    shuffle,
    shuffle_components,
    without,
)
from training.variants.identities import draw_identity
from training.variants.remeshing import decimated, sampled, subdivided

UNITS = (1.0, 100.0, 1000.0, 39.37007874, 10.0, 3.7)
"""Units in a metre: metres, centimetres, millimetres, inches, decimetres, and one of nobody's."""
PARTING = 0.12
"""Strength of the opening jaw on a head whose lips are parted at rest."""


@dataclass(frozen=True, eq=False)
class Variant:
    """A head as a file, of VARIANTS by name and seed, and what is known of it.

    anchors: where each of the file's vertices lies on the atlas, face NOWHERE for one that lies nowhere. truth: the
    same head on the canonical topology, in metres, as it rests in the file; turn (3, 3) and shift (3,) took metres to
    the file: `vertices = metres @ turn.T + shift`.
    """

    name: str
    seed: int
    file: MeshFile
    anchors: Anchors
    truth: Template
    turn: Float[np.ndarray, "3 3"]
    shift: Float[np.ndarray, " 3"]

    @property
    def known(self) -> np.ndarray:
        """Which of the file's vertices lie on the atlas."""
        return self.anchors.face != NOWHERE

    def metres(self) -> Float[np.ndarray, "vertices 3"]:
        """The file's vertices in metres, +Y up and +Z forward."""
        return np.asarray((self.file.vertices - self.shift) @ np.linalg.inv(self.turn).T)


Maker = Callable[[Head, np.ndarray, int], Figure]
"""Of the canonical head, an identity's vertices and a seed."""


def _own(head: Head, vertices: np.ndarray, seed: int) -> Figure:
    return own_figure(head, vertices)


def _sampled(count: int, *, even: bool = True, welded: bool = True) -> Maker:
    return lambda head, vertices, seed: sampled(head, vertices, count, seed, even=even, welded=welded)


def _decimated(count: int) -> Maker:
    return lambda head, vertices, seed: decimated(head, vertices, count)


def _altered(alter: Callable[[Figure, Head], Figure], count: int = 10_000) -> Maker:
    return lambda head, vertices, seed: alter(sampled(head, vertices, count, seed), head)


def _worn(add: Callable[[Figure, Head, np.ndarray], Figure], count: int = 10_000) -> Maker:
    return lambda head, vertices, seed: add(sampled(head, vertices, count, seed), head, vertices)


def _bare(head: Head, vertices: np.ndarray, seed: int) -> Figure:
    """Skin alone, sealed nowhere: no eyes, sockets, mouth."""
    return without(sampled(head, vertices, 10_000, seed), head, "eye", "socket", "cavity", "tongue", "teeth")


def _shuffled(head: Head, vertices: np.ndarray, seed: int) -> Figure:
    return shuffle(shuffle_components(sampled(head, vertices, 10_000, seed), seed), seed)


def _dressed(head: Head, vertices: np.ndarray, seed: int) -> Figure:
    """All that can be worn, on shoulders, pieces in another order."""
    figure = alterations.bust(sampled(head, vertices, 20_000, seed, even=False), head)
    figure = alterations.eyelashes(alterations.glasses(figure, head, vertices), head, vertices)
    return shuffle_components(alterations.hair(figure, head), seed)


VARIANTS: Mapping[str, Maker] = {
    "canonical": _own,
    "even-2k": _sampled(2_000),
    "even-10k": _sampled(10_000),
    "even-50k": _sampled(50_000),
    "uneven-2k": _sampled(2_000, even=False),
    "uneven-10k": _sampled(10_000, even=False),
    "uneven-50k": _sampled(50_000, even=False),
    "decimated-2k": _decimated(2_000),
    "decimated-10k": _decimated(10_000),
    "decimated-50k": _decimated(50_000),
    "unwelded": _sampled(10_000, welded=False),
    "turned": _sampled(10_000),
    "parted": _sampled(10_000),
    "quads": lambda head, vertices, seed: quadrangulate(subdivided(head, vertices, 2)),
    "shuffled": _shuffled,
    "without-eyes": _altered(lambda figure, head: without(figure, head, "eye")),
    "without-teeth": _altered(lambda figure, head: without(figure, head, "teeth", "tongue")),
    "without-mouth": _altered(alterations.without_mouth),
    "bare": _bare,
    "mask": _altered(alterations.mask),
    "bust": _altered(alterations.bust),
    "hair": _altered(alterations.hair),
    "glasses": _worn(alterations.glasses),
    "eyelashes": _worn(alterations.eyelashes),
    "dressed": _dressed,
}


def make_variant(head: Head, name: str, seed: int = 0) -> Variant:
    """One of VARIANTS, of an identity of its own; `turned` is turned anyhow, the others by one of 24 axis turns."""
    random = np.random.default_rng([seed, 14])
    vertices = draw_identity(seed).vertices()
    truth = template_of_identity(head, vertices, name)
    if name == "parted":
        truth = part_lips(head, truth)
    figure = VARIANTS[name](head, truth.mesh.vertices.astype(float), seed)
    turn = _any_turn(random) if name == "turned" else AXIS_TURNS[random.integers(len(AXIS_TURNS))]
    turn = turn * UNITS[random.integers(len(UNITS))]
    return _place(name, seed, figure, truth, turn, turn @ random.uniform(-0.5, 0.5, 3))


def part_lips(head: Head, template: Template, strength: float = PARTING) -> Template:
    """A head on the canonical topology that rests with its jaw a little open, and knows by how much its lips part."""
    offsets = (strength * action_basis()["jawOpen"]).astype(np.float32)
    parted = np.einsum("jr,rc->jc", head.seal.gaps, offsets[head.rim]).astype(np.float32)
    mesh = replace(template.mesh, vertices=template.place(offsets[None])[0].astype(np.float32))
    return replace(template, mesh=mesh, seal=replace(template.seal, parted=np.minimum(parted, [np.inf, 0, np.inf])))


def mesh_file(
    vertices: np.ndarray, faces: np.ndarray, polygon: np.ndarray, parts: np.ndarray, names: tuple[str, ...]
) -> MeshFile:
    """A file of an OBJ's kind without uvs; parts (F,) into names become its materials, those that have faces."""
    used, material = np.unique(parts, return_inverse=True)
    return MeshFile(
        "obj",
        vertices.astype(np.float32),
        faces.astype(np.int32),
        polygon.astype(np.int32),
        None,
        None,
        material.astype(np.int32),
        tuple(names[number] for number in used),
    )


def _place(name: str, seed: int, figure: Figure, truth: Template, turn: np.ndarray, shift: np.ndarray) -> Variant:
    vertices = figure.vertices @ turn.T + shift
    file = mesh_file(vertices, figure.faces, figure.polygon, np.zeros(len(figure.faces), int), ("head",))
    return Variant(name, seed, file, figure.anchors, truth, turn, shift)


def _axis_turns() -> tuple[np.ndarray, ...]:
    signed = (
        np.eye(3)[list(order)] * signs for order in permutations(range(3)) for signs in product((1, -1), repeat=3)
    )
    return tuple(matrix for matrix in signed if np.linalg.det(matrix) > 0)


AXIS_TURNS = _axis_turns()
"""The 24 turns that take axes to axes."""


def _any_turn(random: np.random.Generator) -> Float[np.ndarray, "3 3"]:
    left, upper = np.linalg.qr(random.normal(size=(3, 3)))
    left *= np.sign(np.diag(upper))
    return np.asarray(left * [np.sign(np.linalg.det(left)), 1, 1])
