"""Meshes that strangers send: OBJ, PLY and GLB, with every vertex, face and name in the order of the file.

    file ─ read_mesh ─► MeshFile

Files are read in memory within limits; what they name is taken from the zip that it came in, or left aside.
"""

from models.meshes.files import read_mesh
from models.meshes.record import MeshFile, MeshLimits

__all__ = ["MeshFile", "MeshLimits", "read_mesh"]
