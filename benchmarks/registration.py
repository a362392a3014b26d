"""How long it takes to register a head, step by step.

python benchmarks/registration.py --vertices 5000 30000 100000

The head is the default one, sampled evenly at so many points, in centimetres with +Z up. A step lasts until the next
is told of.
"""

import argparse
import time
from itertools import pairwise

import numpy as np

from models.checkpoint import pinned_file
from models.engine import DEFAULT_WEIGHTS
from models.meshes import MeshFile
from models.mmtalker.sampling import sample_surface
from models.registration.guide import Guide
from models.registration.register import register
from models.registration.shapes import load_shapes
from models.surface import face_areas
from models.template import load_head

STEPS = {
    "how it lies": "looking for how",
    "shapes": "fitting the shapes",
    "mouth and eyes": "by its mouth",
    "drawing": "drawing",
    "placing": "placing",
    "template": "building",
}
"""Columns, and what the message of their steps holds."""


def main() -> None:
    """Print a row for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vertices", type=int, nargs="+", default=[5_000, 30_000, 100_000])
    sizes = parser.parse_args().vertices
    head = load_head(pinned_file(DEFAULT_WEIGHTS, "head")[0])
    guide = Guide(head, load_shapes(pinned_file(DEFAULT_WEIGHTS, "shapes")[0], head))
    register(sampled(guide, 2_000), guide, id="warm-up")
    print("| vertices | " + " | ".join(STEPS) + " | total s |\n|" + "---:|" * (len(STEPS) + 2))
    for size in sizes:
        spent = timed(sampled(guide, size), guide)
        row = [f"{size:>8,}", *(f"{spent[name]:.1f}" for name in STEPS), f"{sum(spent.values()):.1f}"]
        print("| " + " | ".join(row) + " |", flush=True)


def sampled(guide: Guide, count: int) -> MeshFile:
    """The default head at so many points."""
    atlas = guide.head.atlas
    sampling = sample_surface(atlas, np.log(face_areas(guide.rest, atlas.faces) + 1e-12), count)
    vertices = 100 * atlas.interpolate(guide.rest, sampling.anchors) @ np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]])
    faces = sampling.faces.astype(np.int32)
    number = np.arange(len(faces), dtype=np.int32)
    return MeshFile("obj", vertices.astype(np.float32), faces, number, None, None, np.zeros_like(number), ("head",))


def timed(file: MeshFile, guide: Guide) -> dict[str, float]:
    """Seconds of each step."""
    told: list[tuple[float, str]] = []
    register(file, guide, id="timed", progress=lambda step: told.append((time.perf_counter(), step)))
    told.append((time.perf_counter(), ""))
    spent = dict.fromkeys(STEPS, 0.0)
    for (begin, step), (end, _) in pairwise(told):
        spent[next(name for name, words in STEPS.items() if words in step)] += end - begin
    return spent


if __name__ == "__main__":
    main()
