"""A registered template as a file: safetensors with a `talker` header, as a checkpoint is.

Arrays are stored as they are, so that numbers come back bit for bit. The header holds what is no array: id, licence and
report, the head that the template was registered to, and the version of the registration. A file of another head, of
another format or of another version is not read.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from scipy.sparse import csr_matrix

from models.atlas import Anchors
from models.core import Mesh, Source
from models.errors import CheckpointError
from models.files import whole_path
from models.lips import LipSeal
from models.template import Component, Form, Head, Report, Template

KIND, FORMAT = "template", 1
DAMAGES = (SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError)
"""What reading raises of a file that is not what it seems."""

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Origin:
    """What a template depends on beside its file: the head's fingerprint, and the version of the registration."""

    head: str
    version: int

    @staticmethod
    def of(head: Head, version: int) -> "Origin":
        """The head's surface and how it is charted: anchors are faces of the one, own uvs may be the other's."""
        return Origin(f"{head.fingerprint}-{head.atlas.fingerprint}", version)


@dataclass(frozen=True, eq=False)
class StoredTemplate:
    """A template that lies in a file: its facts are at hand, its mesh is read when it is asked for."""

    path: Path
    origin: Origin
    id: str
    licence: str
    vertex_count: int
    face_count: int
    region_sizes: Mapping[str, int]
    report: Report | None

    @property
    def mesh(self) -> Mesh:
        """The head at rest, read anew each time."""
        return self.open().mesh

    def open(self) -> Template:
        """The whole template. CheckpointError as of `read_template`."""
        return read_template(self.path, self.origin)


def save_template(path: Path, template: Template, origin: Origin) -> None:
    """Write a template whole or not at all."""
    header = {
        "kind": KIND,
        "format": FORMAT,
        "origin": asdict(origin),
        "id": template.id,
        "licence": template.licence,
        "report": None if template.report is None else asdict(template.report),
        "source": None if (source := template.mesh.source) is None else [source.materials, source.skin],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_path(path) as partial:
        text = json.dumps(header, sort_keys=True, allow_nan=False)
        save_file(_arrays(template), partial, metadata={"talker": text})


def read_template(path: Path, origin: Origin) -> Template:
    """What `save_template` wrote. CheckpointError for a file that is missing, damaged, or of another origin."""
    try:
        with safe_open(path, framework="numpy") as file:
            header = _header(file.metadata(), origin)
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a mapping
        return _template(header, arrays)
    except DAMAGES as error:
        raise _unusable(path, error) from error


def read_facts(path: Path, origin: Origin) -> StoredTemplate:
    """What the header alone tells of a stored template. CheckpointError as of `read_template`."""
    try:
        with safe_open(path, framework="numpy") as file:
            header = _header(file.metadata(), origin)
            sizes = {name: file.get_slice(name).get_shape()[0] for name in file.keys()}  # noqa: SIM118, not a mapping
        regions = {name.partition(".")[2]: size for name, size in sizes.items() if name.startswith("region.")}
        counts = sizes["mesh.vertices"], sizes["mesh.faces"]
        return StoredTemplate(
            path, origin, header["id"], header["licence"], *counts, regions, _report(header["report"])
        )
    except DAMAGES as error:
        raise _unusable(path, error) from error


def _arrays(template: Template) -> Arrays:
    mesh, seal, form = template.mesh, template.seal, template.form
    groups: dict[str, Any] = {
        "mesh": {name: getattr(mesh, name) for name in ("vertices", "faces", "uvs", "uv_faces")},
        "seal": {
            "gaps": seal.gaps,
            "data": seal.field.data,
            "indices": seal.field.indices,
            "indptr": seal.field.indptr,
            "parted": seal.parted,
        },
        "anchors": template.anchors._asdict(),
        "region": template.regions,
        "form": {} if form is None else vars(form),
    }
    if mesh.source is not None:
        groups["source"] = {name: getattr(mesh.source, name) for name in ("vertices", "turn", "polygon", "material")}
    if mesh.base_color_png is not None:
        groups["mesh"]["base_color_png"] = np.frombuffer(mesh.base_color_png, np.uint8)
    named = {f"{group}.{name}": array for group, members in groups.items() for name, array in members.items()}
    return {"maps": template.maps} | {
        name: np.ascontiguousarray(array) for name, array in named.items() if array is not None
    }


def _template(header: Mapping[str, Any], arrays: Arrays) -> Template:
    groups: dict[str, Arrays] = {"form": {}}
    for name, array in arrays.items():
        group, _, member = name.partition(".")
        groups.setdefault(group, {})[member] = array
    seal, form = groups["seal"], groups["form"]
    field = csr_matrix(
        (seal["data"], seal["indices"], seal["indptr"]), shape=(len(arrays["mesh.vertices"]), len(seal["gaps"]))
    )
    field.check_format(full_check=True)  # scipy's products trust the indices
    return Template(
        mesh=_mesh(groups["mesh"], groups.get("source"), header["source"]),
        maps=arrays["maps"],
        seal=LipSeal(seal["gaps"], field, seal.get("parted")),
        id=header["id"],
        anchors=Anchors(**groups["anchors"]),
        regions=groups.get("region", {}),
        licence=header["licence"],
        form=Form(**form) if form else None,
        report=_report(header["report"]),
    )


def _mesh(arrays: Arrays, source: Arrays | None, about: Any) -> Mesh:
    picture = arrays.pop("base_color_png", None)
    own = None if source is None else Source(**source, materials=tuple(about[0]), skin=about[1])
    return Mesh(**arrays, base_color_png=None if picture is None else picture.tobytes(), source=own)


def _report(entry: Mapping[str, Any] | None) -> Report | None:
    if entry is None:
        return None
    return Report(
        **dict(entry)
        | {
            "components": tuple(Component(*component) for component in entry["components"]),
            "landmarks": {name: (place[0], place[1], place[2]) for name, place in entry["landmarks"].items()},
            "warnings": tuple(entry["warnings"]),
        }
    )


def _header(metadata: Mapping[str, str] | None, origin: Origin) -> dict[str, Any]:
    header: dict[str, Any] = json.loads((metadata or {})["talker"])
    wanted = {"kind": KIND, "format": FORMAT, "origin": asdict(origin)}
    if (came := {name: header[name] for name in wanted}) != wanted:
        raise ValueError(f"it is {came}; wanted {wanted}")
    return header


def _unusable(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{path} holds no template of this head ({error}); upload the head again")
