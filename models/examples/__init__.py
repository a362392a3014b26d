"""Example sequences: somebody's motion, and perhaps their wrinkles, from which a style pivot is made.

    file ─ read_example ─► Example ─ check_topology ─► vertices of our head, in its order
                                   ─ .log_ratios ────► wrinkle maps, one a frame

Taken are what `/animate` gives (an animated `glb`, `bundle`, `glb-sequence`, `obj`, `npz-stream`) and numpy's `.npz`.
Files come from strangers: they are read in memory within limits, and nothing that they name is opened.
"""

from models.examples.files import read_example
from models.examples.sequence import Example, ExampleLimits, check_topology

__all__ = ["Example", "ExampleLimits", "check_topology", "read_example"]
