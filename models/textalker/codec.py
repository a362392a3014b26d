"""What a decoder of codes needs of a head at a resolution, as numpy's npz. Nothing here needs torch."""

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any, BinaryIO
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Bool
from scipy.sparse import csr_matrix

from models.core import Mesh, Source
from models.errors import SHOWN, MalformedInput
from models.layout import Layout
from models.lips import LipSeal
from models.puppet import Puppet
from models.textalker.playback import MapQuery

DAMAGES = (BadZipFile, zlib.error, LookupError, TypeError, ValueError, AttributeError, EOFError, NotImplementedError)
"""What numpy and json raise of files that are not what they seem."""
MADE_OF = ("head", "mmtalker", "textalker-motion", "textalker-wrinkle")
"""Checkpoints that such a head is made of: MMTalker's decides where sampled points lie."""
_OF_SOURCE = ("vertices", "turn", "polygon", "material")


@dataclass(frozen=True, eq=False)
class CodecHead:
    """A template at a resolution, None for native: how it moves, where it reads motion maps, which texels wrinkle, and
    how its texture is laid out, where that is not as the atlas.

    checkpoints has the sha256 of each of MADE_OF.
    """

    template: str
    resolution: int | None
    checkpoints: Mapping[str, str]
    puppet: Puppet
    query: MapQuery
    skin: Bool[np.ndarray, "size size"]
    layout: Layout | None = None


def codec_head_bytes(head: CodecHead) -> bytes:
    """The head as a file, the same bytes each time."""
    mesh, seal = head.puppet.mesh, head.puppet.seal
    facts: dict[str, Any] = {"template": head.template, "resolution": head.resolution}
    facts["checkpoints"] = dict(head.checkpoints)
    if mesh.source is not None:
        facts["source"] = {"materials": mesh.source.materials, "skin": mesh.source.skin}
    arrays = {name: getattr(mesh, name) for name in ("vertices", "faces", "uvs", "uv_faces")}
    arrays |= {"facts": np.frombuffer(json.dumps(facts).encode(), np.uint8), "skin": head.skin}
    arrays |= {"maps": head.puppet.maps, "gaps": seal.gaps}
    if seal.parted is not None:
        arrays["parted"] = seal.parted
    if head.layout is not None:
        arrays |= {"layout_own": head.layout.own, "layout_atlas": head.layout.atlas}
    if mesh.source is not None:
        arrays |= {f"source_{name}": getattr(mesh.source, name) for name in _OF_SOURCE}
    if mesh.base_color_png:
        arrays["base_color_png"] = np.frombuffer(mesh.base_color_png, np.uint8)
    for name, matrix in (("reader", head.query.reader), ("seal", seal.field)):
        arrays |= {f"{name}_{part}": getattr(matrix, part) for part in ("data", "indices", "indptr", "shape")}
    file = BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def read_codec_head(file: BinaryIO) -> CodecHead:
    """`codec_head_bytes` undone. MalformedInput for a file that is no such head, or whose parts do not fit."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return _head(arrays)
    except DAMAGES as error:
        raise MalformedInput(
            f"no head to decode with ({str(error)[:SHOWN]}); wanted the file of GET /codec/….npz: download it",
            code="not_a_codec_head",
        ) from error


def _head(arrays: Mapping[str, Any]) -> CodecHead:
    facts = json.loads(arrays["facts"].tobytes())
    picture = arrays["base_color_png"].tobytes() if "base_color_png" in arrays else None
    vertices, faces, uvs, uv_faces = (arrays[name] for name in ("vertices", "faces", "uvs", "uv_faces"))
    mesh = Mesh(vertices, faces, uvs, uv_faces, picture, _source(arrays, facts.get("source"), vertices, faces))
    reader, field = _matrix(arrays, "reader"), _matrix(arrays, "seal")
    gaps, maps, skin = arrays["gaps"], arrays["maps"], arrays["skin"]
    points, (columns, rim) = len(mesh.vertices), gaps.shape
    fitting = maps.shape == (points, 3, 3) and field.shape == (points, columns) and skin.shape == (len(skin), len(skin))
    parted = arrays.get("parted")
    if not fitting or reader.shape[0] != points + rim or (parted is not None and parted.shape != (columns, 3)):
        raise ValueError("its parts do not fit together")
    query, puppet = MapQuery(reader, points), Puppet(mesh, maps, LipSeal(gaps, field, parted))
    checkpoints, layout = dict(facts["checkpoints"]), _layout(arrays)
    return CodecHead(facts["template"], facts["resolution"], checkpoints, puppet, query, skin, layout)


def _source(
    arrays: Mapping[str, Any], facts: Mapping[str, Any] | None, vertices: np.ndarray, faces: np.ndarray
) -> Source | None:
    if facts is None:
        return None
    names, skin = tuple(map(str, facts["materials"])), int(facts["skin"])
    own, turn, polygon, material = (arrays[f"source_{name}"] for name in _OF_SOURCE)
    shapes = own.shape, turn.shape, polygon.shape, material.shape
    if shapes != (vertices.shape, (3, 3), faces.shape[:1], faces.shape[:1]) or not 0 <= skin < len(names):
        raise ValueError("its source does not fit its mesh")
    if not ((material >= 0) & (material < len(names))).all():
        raise ValueError("its faces are of materials that there are not")
    return Source(own, turn, polygon, material, names, skin)


def _layout(arrays: Mapping[str, Any]) -> Layout | None:
    if "layout_own" not in arrays:
        return None
    own, atlas = arrays["layout_own"], arrays["layout_atlas"]
    if own.shape != (len(own), 3, 2) or own.shape != atlas.shape or not (np.isfinite(own) & np.isfinite(atlas)).all():
        raise ValueError("its layout does not fit together")
    return Layout(own, atlas)


def _matrix(arrays: Mapping[str, Any], name: str) -> csr_matrix:
    parts = tuple(arrays[f"{name}_{part}"] for part in ("data", "indices", "indptr"))
    matrix = csr_matrix(parts, shape=tuple(arrays[f"{name}_shape"].tolist()))
    matrix.check_format(full_check=True)  # scipy's products trust the indices
    return matrix
