"""Meshes that strangers send: OBJ, PLY and GLB, with every vertex, face and name in the order of the file."""
