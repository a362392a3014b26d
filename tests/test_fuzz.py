"""A few hundred forged uploads; `python tests/fuzz.py` has the rest."""

from pathlib import Path

import fuzz
import pytest


def test_forged_files_are_refused_or_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing fails, hangs or dies; and what the files do to the parsers is not all the same."""
    monkeypatch.setattr(fuzz, "OUTPUT", tmp_path)
    with fuzz.served(fuzz.ParsingEngine()) as client:
        answers, findings = fuzz.fuzz(client, seed=0, until=lambda count: count == 300)
    assert findings == []
    assert len(answers) > 20


def test_whole_files_are_served() -> None:
    """So that what is forged comes near to what is taken."""
    with fuzz.served(fuzz.ParsingEngine()) as client:
        for target in fuzz.targets():
            for number, seed in enumerate(target.seeds):
                response = target.post(client, seed)
                assert response.status_code in (200, 201), (target.field, number, response.json())
