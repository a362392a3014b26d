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

from models.core import Mesh
from models.errors import SHOWN, MalformedInput
from models.lips import LipSeal
from models.puppet import Puppet
from models.textalker.playback import MapQuery

DAMAGES = (BadZipFile, zlib.error, LookupError, TypeError, ValueError, AttributeError, EOFError, NotImplementedError)
"""What numpy and json raise of files that are not what they seem."""
MADE_OF = ("head", "mmtalker", "textalker-motion", "textalker-wrinkle")
"""Checkpoints that such a head is made of: MMTalker's decides where sampled points lie."""


@dataclass(frozen=True, eq=False)
class CodecHead:
    """A template at a resolution, None for native: how it moves, where it reads motion maps, and which texels wrinkle.

    checkpoints has the sha256 of each of MADE_OF.
    """

    template: str
    resolution: int | None
    checkpoints: Mapping[str, str]
    puppet: Puppet
    query: MapQuery
    skin: Bool[np.ndarray, "size size"]


def codec_head_bytes(head: CodecHead) -> bytes:
    """The head as a file, the same bytes each time."""
    mesh, seal = head.puppet.mesh, head.puppet.seal
    facts = {"template": head.template, "resolution": head.resolution, "checkpoints": dict(head.checkpoints)}
    arrays = {name: getattr(mesh, name) for name in ("vertices", "faces", "uvs", "uv_faces")}
    arrays |= {"facts": np.frombuffer(json.dumps(facts).encode(), np.uint8), "skin": head.skin}
    arrays |= {"maps": head.puppet.maps, "gaps": seal.gaps}
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
    mesh = Mesh(vertices, faces, uvs, uv_faces, picture)
    reader, field = _matrix(arrays, "reader"), _matrix(arrays, "seal")
    gaps, maps, skin = arrays["gaps"], arrays["maps"], arrays["skin"]
    points, (columns, rim) = len(mesh.vertices), gaps.shape
    fitting = maps.shape == (points, 3, 3) and field.shape == (points, columns) and skin.shape == (len(skin), len(skin))
    if not fitting or reader.shape[0] != points + rim:
        raise ValueError("its parts do not fit together")
    query, puppet = MapQuery(reader, points), Puppet(mesh, maps, LipSeal(gaps, field))
    return CodecHead(facts["template"], facts["resolution"], dict(facts["checkpoints"]), puppet, query, skin)


def _matrix(arrays: Mapping[str, Any], name: str) -> csr_matrix:
    parts = tuple(arrays[f"{name}_{part}"] for part in ("data", "indices", "indptr"))
    matrix = csr_matrix(parts, shape=tuple(arrays[f"{name}_shape"].tolist()))
    matrix.check_format(full_check=True)  # scipy's products trust the indices
    return matrix
