"""The report on styles: halves that do not reach each other, and mixes that go from one to the other."""

import json

import numpy as np
import pytest
from tiny import speech
from tiny_engine import tiny_engine, tiny_styles

from training.disentanglement import SHARES, Take, style_report


@pytest.fixture(scope="module")
def report():
    names = sorted(style.id for style in tiny_styles() if style.motion is not None and style.wrinkle is not None)[:3]
    return style_report(tiny_engine(), speech(0.6), names)


def test_a_wrinkle_style_moves_no_vertex_and_a_motion_style_changes_no_map(report):
    for pair in report["wrinkle_style"]:
        assert pair["vertices_max_mm"] == 0
        assert pair["maps_rms"] > 0
    for pair in report["motion_style"]:
        assert pair["maps_max"] == 0
        assert pair["vertices_rms_mm"] > 0


def test_mixes_begin_at_one_style_and_end_at_the_other(report):
    for way, motion, skin in zip(report["mixes"], report["motion_style"], report["wrinkle_style"], strict=True):
        assert len(way["vertices_rms_mm"]) == len(way["maps_rms"]) == len(SHARES)
        assert way["vertices_rms_mm"][0] == way["maps_rms"][0] == 0
        assert way["vertices_rms_mm"][-1] == pytest.approx(motion["vertices_rms_mm"])
        assert way["maps_rms"][-1] == pytest.approx(skin["maps_rms"])
    assert json.loads(json.dumps(report))["shares"] == list(SHARES)


def test_distances_are_of_vertices_and_of_texels():
    nothing = Take(np.zeros((2, 3, 3), np.float32), np.zeros((2, 4, 4, 3), np.float16))
    moved = Take(np.full((2, 3, 3), 0.001, np.float32), np.full((2, 4, 4, 3), 0.5, np.float16))
    assert nothing.moved_mm(moved) == pytest.approx(np.sqrt(3))
    assert nothing.changed(moved) == pytest.approx(0.5)
