"""The arrows between the packages, and what they may import from outside."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("models", "service", "talker_client", "training")
FORBIDDEN = {
    "models": {"service", "talker_client", "training"},
    "service": {"training", "torch", "torchaudio", "transformers"},
    "talker_client": {"service", "training", "torch", "torchaudio", "transformers"},
    "training": {"service", "talker_client"},
}
EXTRAS = {
    "models": ("cpu", "encoders", "cluster"),
    "service": ("s3", "otel"),
    "talker_client": ("client",),
    "training": ("cpu", "train"),
    "benchmarks": ("cpu",),
    "tests": ("cpu", "train", "dev", "cluster", "otel"),
}
"""What each folder may use besides the base dependencies."""

DISTRIBUTIONS = {"parselmouth": "praat-parselmouth", "opentelemetry": "opentelemetry-api"}
"""Of modules that packages do not list among theirs, or that several share."""
UNLISTED = {"anny"}
"""Installed with --no-deps, as pyproject.toml says."""
NOT_IMPORTED = {
    "fastapi-swagger",
    "mypy",
    "opentelemetry-exporter-otlp-proto-http",
    "opentelemetry-sdk",
    "pip-audit",
    "pytest-timeout",
    "pytest-xdist",
    "ruff",
}
"""Files, commands, plug-ins, and what `pytest.importorskip` asks for."""
IMPORTED_BY_OTHERS = {"onnxscript", "roma"}
"""By torch and anny."""


def imports(folder: str) -> Iterator[tuple[Path, str]]:
    """Every import in a folder's files, wherever it stands: the file, and the top-level name that it imports."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((path, alias.name.partition(".")[0]) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path} imports relatively; wanted the full name"
                yield path, str(node.module).partition(".")[0]


def outside(folder: str) -> set[str]:
    """Distributions that a folder's files import."""
    ours = {*PACKAGES, *(path.stem for name in ("tests", folder) for path in (ROOT / name).glob("*.py"))}
    names = {name for _, name in imports(folder)} - ours - sys.stdlib_module_names
    known = packages_distributions()
    return {normal(DISTRIBUTIONS.get(name) or known.get(name, [name])[0]) for name in names} - UNLISTED


def normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def dependencies(*extras: str) -> set[str]:
    """Distributions that the base and some extras of pyproject.toml list."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    return {normal(re.split(r"[\[<>=~; ]", line, maxsplit=1)[0]) for line in listed}


@pytest.mark.parametrize("package", PACKAGES)
def test_no_file_imports_against_the_arrows(package: str) -> None:
    """models knows nobody; service and training know models, and not each other; the client knows models, and service
    the client; neither knows torch.
    """
    assert [(path.name, name) for path, name in imports(package) if name in FORBIDDEN[package]] == []


@pytest.mark.parametrize("folder", EXTRAS)
def test_every_import_is_a_listed_dependency(folder: str) -> None:
    """Of the base, or of an extra that whoever runs the folder has installed."""
    assert outside(folder) - dependencies(*EXTRAS[folder]) == set()


def test_every_listed_dependency_is_imported() -> None:
    imported = set().union(*map(outside, EXTRAS))
    assert (
        dependencies("cpu", "gpu", "encoders", "cluster", "s3", "train", "dev", "otel") - imported
        == NOT_IMPORTED | IMPORTED_BY_OTHERS
    )


def test_the_constraints_pin_every_listed_dependency() -> None:
    """To one version, without a local build: the same file serves every machine."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[\w.-]+==[\w.-]+", pin)] == []
    assert dependencies("cpu", "gpu", "encoders", "cluster", "s3", "train", "dev", "otel") | UNLISTED <= {
        normal(pin.partition("==")[0]) for pin in pins
    }
