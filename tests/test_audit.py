"""The audit of the dependencies: what it makes of pip-audit's answers."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

AUDIT = Path(__file__).parents[1] / ".ci" / "audit"
ADVISORY = {"id": "PYSEC-2026-1", "fix_versions": ["2.0"], "aliases": []}


def package(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "version": "1.0", "vulns": [], **fields}


@pytest.mark.parametrize(
    ("packages", "code", "said"),
    [
        ([package("av"), package("torch", skip_reason="no index")], 0, "audited 1 of 2 packages"),
        ([package("av"), package("numpy", vulns=[ADVISORY])], 1, "numpy 1.0: PYSEC-2026-1, fixed in 2.0"),
        ([package("av", skip_reason="no advisories")], 0, "audit skipped: the index has no advisories"),
        (None, 0, "audit skipped: ConnectionError: no network"),
    ],
)
def test_only_a_known_weakness_fails(
    tmp_path: Path, packages: list[dict[str, Any]] | None, code: int, said: str
) -> None:
    """Not that nobody could be asked, which is said."""
    answer = f"print({json.dumps({'dependencies': packages})!r})"
    (tmp_path / "pip_audit.py").write_text(answer if packages else "raise ConnectionError('no network')")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    run = subprocess.run([sys.executable, str(AUDIT)], capture_output=True, text=True, env=environment)
    assert run.returncode == code
    assert said in run.stdout + run.stderr
