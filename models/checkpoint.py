"""Weights on disk: safetensors with a JSON header, and a manifest that pins them.

A checkpoint is one file. Its header says what the network is (`kind`, `config`), what it learned from (`data`), how it
did (`metrics`), the commit and the licence. `manifest.json` beside the checkpoints holds name → file and sha256; a file
that does not match its sum is refused. Loading is strict: missing and unexpected tensors are listed.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from models.errors import CheckpointError

FORMAT = 1
Config = TypeVar("Config")


@dataclass(frozen=True)
class Header:
    """What a checkpoint says of itself."""

    kind: str
    config: Mapping[str, Any]
    data: str = ""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    commit: str = ""
    licence: str = "Apache-2.0"
    format: int = FORMAT


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], header: Header, *, half: bool = False) -> None:
    """Write a checkpoint whole or not at all; `half` stores floating tensors as float16."""
    stored = {
        name: (tensor.half() if half and tensor.is_floating_point() else tensor).detach().cpu().contiguous()
        for name, tensor in tensors.items()
    }
    partial = path.with_suffix(".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(stored, partial, metadata={"talker": json.dumps(asdict(header), sort_keys=True)})
    partial.chmod(0o644)  # safetensors writes for the owner alone
    partial.replace(path)


def read_header(path: Path) -> Header:
    """The header alone. CheckpointError if the file is no checkpoint of ours, or of a later format."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors ({error}); train or download it again") from error
    if "talker" not in metadata:
        raise CheckpointError(f"{path} has no talker header; it is not a checkpoint of this project")
    try:
        stored = json.loads(metadata["talker"])
        if stored["format"] > FORMAT:
            raise CheckpointError(
                f"{path} has format {stored['format']}; this version reads up to {FORMAT}: upgrade talker"
            )
        return Header(**stored)
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"the header of {path} cannot be read ({error!r}); train or download it again") from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors, floating ones as float32."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a mapping
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors ({error}); train or download it again") from error
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Load strictly. CheckpointError lists what is missing, unexpected, or of another shape."""
    own = module.state_dict()
    missing = sorted(own.keys() - tensors.keys())
    unexpected = sorted(tensors.keys() - own.keys())
    misshapen = [
        f"{name} {tuple(tensors[name].shape)} for {tuple(own[name].shape)}"
        for name in sorted(own.keys() & tensors.keys())
        if tensors[name].shape != own[name].shape
    ]
    if missing or unexpected or misshapen:
        raise CheckpointError(f"{source} does not fit: missing {missing}, unexpected {unexpected}, shapes {misshapen}")
    module.load_state_dict(tensors)


def config_from(kind: type[Config], header: Header) -> Config:
    """A config record from a header. CheckpointError names the fields that do not match."""
    assert is_dataclass(kind)
    known = {item.name for item in fields(kind)}
    if header.config.keys() != known:
        odd = sorted(header.config.keys() ^ known)
        raise CheckpointError(f"the {header.kind} checkpoint's config differs in {odd}; it is of another version")
    return kind(**header.config)


def file_sha256(path: Path) -> str:
    """sha256 of a file, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(folder: Path) -> dict[str, dict[str, str]]:
    """Name → {file, sha256}. CheckpointError if there is none, or it is damaged."""
    path = folder / "manifest.json"
    if not path.is_file():
        raise CheckpointError(f"no {path}; point TALKER_WEIGHTS at a folder that holds the weights")
    try:
        entries = json.loads(path.read_text()).items()
        return {name: {key: entry[key] for key in ("file", "sha256")} for name, entry in entries}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged ({error!r}); restore the weights folder") from error


def pinned_file(folder: Path, name: str) -> tuple[Path, str]:
    """Path and sha256 of a manifest's entry, checked against the file."""
    manifest = read_manifest(folder)
    if name not in manifest:
        raise CheckpointError(f"the manifest in {folder} has no {name!r}; it holds {sorted(manifest)}")
    path = folder / manifest[name]["file"]
    if not path.is_file():
        raise CheckpointError(f"{path} is missing, though the manifest names it; restore the weights folder")
    digest = file_sha256(path)
    if digest != manifest[name]["sha256"]:
        raise CheckpointError(f"{path} is damaged: sha256 {digest}, the manifest says {manifest[name]['sha256']}")
    return path, digest


def pin(folder: Path, name: str, path: Path) -> str:
    """Enter a file of `folder` into its manifest; returns its sha256."""
    manifest = read_manifest(folder) if (folder / "manifest.json").is_file() else {}
    digest = file_sha256(path)
    manifest[name] = {"file": path.relative_to(folder).as_posix(), "sha256": digest}
    (folder / "manifest.json").write_text(json.dumps(dict(sorted(manifest.items())), indent=2) + "\n")
    return digest
