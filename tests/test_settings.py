"""Settings: from the environment, documented, and strict."""

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from service.settings import PREFIX, Settings

PAGE = Path(__file__).parent.parent / "docs" / "settings.md"
ROW = re.compile(r"^\| `(TALKER_\w+)` \| (.+?) \| (.+?) \|$", re.MULTILINE)


def test_page_and_class_agree() -> None:
    """Each setting has its row, in order, with the class's own words."""
    rows = [(name, what) for name, _, what in ROW.findall(PAGE.read_text(encoding="utf-8"))]
    assert rows == [(PREFIX + name.upper(), field.description) for name, field in Settings.model_fields.items()]


def test_the_page_tells_the_defaults() -> None:
    """Folders apart, which depend on the machine."""
    rows = {name: default for name, default, _ in ROW.findall(PAGE.read_text(encoding="utf-8"))}
    for name, field in Settings.model_fields.items():
        if not isinstance(field.default, Path):
            assert rows[PREFIX + name.upper()] == f"`{field.default}`"


def test_the_environment_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALKER_PORT", "9000")
    monkeypatch.setenv("TALKER_CACHE", "/var/cache/talker")
    assert (Settings().port, Settings().cache) == (9000, Path("/var/cache/talker"))


@pytest.mark.parametrize(
    ("unknown", "near"),
    [
        ("TALKER_PROT", "TALKER_PORT"),
        ("TALKER_MAX_POINT", "TALKER_MAX_POINTS"),
        ("TALKER_ZZZZZZZZZZZZ", "TALKER_HOST"),
    ],
)
def test_an_unknown_variable_is_refused_with_the_near_ones(
    monkeypatch: pytest.MonkeyPatch, unknown: str, near: str
) -> None:
    monkeypatch.setenv(unknown, "1")
    with pytest.raises(ValidationError, match=f"{unknown}.*{near}"):
        Settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "70000"),
        ("port", "http"),
        ("device", "tpu"),
        ("threads", "-1"),
        ("sampler_steps", "0"),
        ("sampler_steps", "501"),
        ("concurrency", "-1"),
        ("engine", "ray://nowhere"),
        ("batch", "-1"),
        ("queue", "-1"),
        ("queue_per_client", "0"),
        ("slow_factor", "0"),
        ("max_audio_s", "0"),
        ("max_audio_s", "nan"),
        ("stall_s", "inf"),
        ("max_fps", "240"),
        ("log_level", "loud"),
        ("live_sessions", "0"),
        ("live_ahead_s", "0"),
        ("live_idle_s", "nan"),
        ("live_max_s", "inf"),
    ],
)
def test_a_value_out_of_range_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(PREFIX + name.upper(), value)
    with pytest.raises(ValidationError, match=name):
        Settings()


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 1


def test_ten_minutes_of_the_default_head_are_within_the_limits() -> None:
    """600 s at 30 fps, 5,838 points."""
    settings = Settings()
    assert settings.max_audio_s * 30 * 5838 <= settings.max_frame_points
