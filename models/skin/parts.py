"""The colours of what lies behind the skin: eyes, teeth with their gums, mouth, tongue.

A place on a chart is (across, up), 0..1 within the chart's own box. The meshes are made by `training.anatomy`, with the
measures that are here.
"""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float

from models.skin.complexion import FLUSH, LIPS, Colors, mix, rgb
from models.skin.relief import mottle
from models.template import Head
from models.texels import Texels

IRIS_ANGLE = np.arcsin(0.0058 / 0.0120)
"""Half the angle that an iris of 11.6 mm takes of an eyeball of 24 mm."""
EYE_ANGLE = np.radians(115)
"""How far back from the pupil the eyeball is modelled."""
TOOTH_WIDTHS = np.array([8.5, 6.6, 7.6, 7.0, 6.8, 10.0]) / 1e3
"""Central incisor to first molar."""
TOOTH_ROWS, GUM_ROW = 9, 2
"""Rows of vertices from the gum's edge to the back of the crown, and the one where the gum ends."""

SCLERA, IRIS, PUPIL = rgb(236, 231, 226), rgb(96, 122, 126), rgb(12, 10, 10)
ENAMEL, GUM, FLESH, TONGUE = rgb(240, 232, 214), rgb(192, 108, 104), rgb(136, 50, 50), rgb(188, 98, 96)

Places = Float[np.ndarray, "texels 2"]


def paint_part(head: Head, chart: str, texels: Texels) -> Colors:
    """Colours of any chart but the skin."""
    own = head.atlas.uvs[head.atlas.uv_faces[head.atlas.chart == head.charts.index(chart)]].reshape(-1, 2)
    return _PAINTERS[chart.split("_")[0]](texels, (texels.uv - own.min(0)) / np.ptp(own, axis=0))


def _eye(texels: Texels, place: Places) -> Colors:
    away = 2 * place - 1
    radius, around = (away**2).sum(1) * EYE_ANGLE / IRIS_ANGLE, np.arctan2(away[:, 1], away[:, 0])
    glint = np.hypot(away[:, 0] + 0.17, away[:, 1] - 0.2) / 0.055
    color = SCLERA * (1 - 0.3 * np.clip(radius / 3.2, 0, 1) ** 1.5)[:, None]
    fibres = 0.5 + 0.25 * np.sin(37 * around + 3 * np.sin(5 * around)) + 0.25 * np.sin(61 * around + 2)
    iris = IRIS * (0.65 + 0.55 * fibres * np.clip(radius, 0, 1))[:, None]
    iris = mix(iris, PUPIL, np.clip((radius - 0.84) / 0.16, 0, 1) * 0.7)
    inside = np.clip((1.02 - radius) / 0.06, 0, 1)[:, None]
    color = color * (1 - inside) + iris * inside
    color = mix(color, PUPIL, np.clip((0.42 - radius) / 0.05, 0, 1))
    return mix(color, SCLERA, np.clip(2 - 2 * glint, 0, 1))


def _teeth(texels: Texels, place: Places) -> Colors:
    edges = np.concatenate([[0], np.cumsum(TOOTH_WIDTHS)]) / TOOTH_WIDTHS.sum()
    along = np.abs(2 * place[:, 0] - 1)
    tooth = np.clip(np.searchsorted(edges, along, side="right") - 1, 0, len(TOOTH_WIDTHS) - 1)
    centred = np.abs(2 * (along - edges[tooth]) / (edges[tooth + 1] - edges[tooth]) - 1)
    color = ENAMEL * (1 - 0.05 * along - 0.30 * np.minimum(centred, 1) ** 14)[:, None]
    row = (1 - place[:, 1]) * (TOOTH_ROWS - 1)
    scallop = GUM_ROW + 0.35 * (1 - centred**2) - 0.25
    color = mix(color, GUM, np.clip((scallop - row) / 0.15, 0, 1))
    return mix(color, GUM, np.clip((row - TOOTH_ROWS + 1.8) / 0.2, 0, 1))


def _cavity(texels: Texels, place: Places) -> Colors:
    z = texels.position[:, 2]
    near_lips = np.clip((z - 0.118) / 0.012, 0, 1)
    return mix(FLESH * np.clip((z - 0.06) / 0.06, 0.4, 1)[:, None], LIPS * 0.9, near_lips)


def _tongue(texels: Texels, place: Places) -> Colors:
    depth = np.clip((texels.position[:, 2] - 0.05) / 0.05, 0.55, 1)
    return TONGUE * (depth * (1 + 0.04 * mottle(texels, 5, 0.002)))[:, None]


def _socket(texels: Texels, place: Places) -> Colors:
    return np.tile(FLUSH * 0.7, (len(texels.index), 1))


_PAINTERS: Mapping[str, Callable[[Texels, Places], Colors]] = {
    "eye": _eye,
    "teeth": _teeth,
    "cavity": _cavity,
    "tongue": _tongue,
    "socket": _socket,
}
