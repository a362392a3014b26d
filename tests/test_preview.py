"""Pictures show what is in front, upright and evenly lit, and of a head where its lips and eyes were found."""

import io

import numpy as np
import pytest
from PIL import Image
from tiny import grid_faces, grid_plane, shipped_head

from models.preview import MARGIN, SIZE, preview, render
from models.template import Template, default_template, template_of_identity

SQUARE = grid_faces(2, 2)
RED, GREEN, GREY = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.5, 0.5, 0.5)


def plane(z: float = 0.0, size: float = 1.0) -> np.ndarray:
    """A square (4, 3) that faces the camera, around the origin."""
    return np.c_[(grid_plane(2, 2) - 0.5) * size, np.full(4, z)].astype(np.float32)


def painted(*colours: tuple[float, float, float]) -> np.ndarray:
    return np.repeat(np.array(colours, np.float32), 4, axis=0)


def covered(image: np.ndarray) -> np.ndarray:
    """Pixels that are not the background, which is grey and light."""
    return (image.astype(int) != image[0, 0]).any(2)


def test_a_square_fills_the_picture_up_to_the_margin_in_one_shade() -> None:
    image = render(plane(), SQUARE, painted(GREY), 100)
    assert image.shape == (100, 100, 3)
    rows, columns = np.nonzero(covered(image))
    edge = round(100 * MARGIN)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (edge, 99 - edge, edge, 99 - edge)
    assert len(np.unique(image[edge + 1 : -edge - 1, edge + 1 : -edge - 1])) == 1


def test_what_is_in_front_hides_what_is_behind_in_whatever_order() -> None:
    near, far = plane(1.0, 0.5), plane(0.0)
    faces = np.concatenate([SQUARE, SQUARE + 4])
    for vertices, colours in (([near, far], [GREEN, RED]), ([far, near], [RED, GREEN])):
        image = render(np.concatenate(vertices), faces, painted(*colours), 80)
        assert image[40, 40].argmax() == 1
        assert image[10, 10].argmax() == 0


def test_planes_that_cross_hide_each_other_by_halves() -> None:
    slanted = plane()
    slanted[:, 2] = slanted[:, 0]
    image = render(np.concatenate([plane(), slanted]), np.concatenate([SQUARE, SQUARE + 4]), painted(RED, GREEN), 80)
    assert (image[20:60, 10:38].argmax(2) == 0).all()
    assert (image[20:60, 42:70].argmax(2) == 1).all()


def test_up_is_up_and_colours_run_between_vertices() -> None:
    """From black below to red above, and the +X side on the right."""
    colours = np.array([(0, 0, 0), (0, 0, 0), RED, (1, 0, 1)], np.float32)
    image = render(plane(), SQUARE, colours, 80).astype(int)
    assert (np.diff(image[10:70, 40, 0]) <= 0).all()
    assert image[10, 40, 0] > image[69, 40, 0] + 100
    assert image[10, 60, 2] > image[10, 20, 2] + 50


def test_both_sides_of_a_face_are_lit_alike() -> None:
    there, back = (render(plane(), faces, painted(GREY), 40) for faces in (SQUARE, SQUARE[:, ::-1]))
    np.testing.assert_array_equal(there, back)


def test_light_falls_from_the_camera_and_from_a_little_above() -> None:
    """A roof's upper slope is lighter than its lower one, and what faces the camera than what faces the side."""
    across, y = 2 * grid_plane(9, 2).T - 1

    def lit(depth: np.ndarray) -> np.ndarray:
        vertices = np.c_[across, y, depth].astype(np.float32)
        return render(vertices, grid_faces(9, 2), np.full((18, 3), 0.5, np.float32), 80).astype(int)[..., 0]

    roof = lit(-np.abs(y))
    assert roof[15, 40] > roof[65, 40]
    assert lit(0 * across)[40, 40] > lit(3 * across)[40, 40] + 20


def test_nothing_at_all_is_background() -> None:
    image = render(np.zeros((4, 3), np.float32), SQUARE, painted(RED), 20)
    assert not covered(image).any()


@pytest.fixture(scope="module")
def views() -> list[np.ndarray]:
    return drawn(default_template(shipped_head()))


def drawn(template: Template) -> list[np.ndarray]:
    with Image.open(io.BytesIO(preview(template))) as image:
        assert (image.format, image.size) == ("PNG", (3 * SIZE, SIZE))
        return np.split(np.asarray(image).astype(int), 3, axis=1)


def reddish(image: np.ndarray) -> np.ndarray:
    return image[..., 0] > image[..., 1] + 60


def bluish(image: np.ndarray) -> np.ndarray:
    return image[..., 2] > image[..., 0] + 40


def test_a_preview_shows_lips_and_eyes_where_they_are(views: list[np.ndarray]) -> None:
    lips, eyes = np.argwhere(reddish(views[0])), np.argwhere(bluish(views[0]))
    assert lips[:, 0].min() > eyes[:, 0].max(), "the mouth is below the eyes"
    for found in (lips, eyes):
        assert abs(found[:, 1].mean() - (SIZE - 1) / 2) < 2, "both are in the middle"
    assert eyes[:, 1].min() < lips[:, 1].min() < lips[:, 1].max() < eyes[:, 1].max()


def test_the_second_picture_is_of_the_side(views: list[np.ndarray]) -> None:
    lips = np.argwhere(reddish(views[1]))
    assert lips[:, 1].min() > SIZE / 2
    assert len(lips) < reddish(views[0]).sum()


def test_the_third_picture_opens_the_mouth_and_moves_nothing_else(views: list[np.ndarray]) -> None:
    rest, parted = views[0], views[2]
    changed = np.argwhere((rest != parted).any(2))
    lips = np.argwhere(reddish(rest))
    away = np.abs(changed - lips.mean(0)).max(0)
    assert len(changed) > 500
    assert (away < [SIZE / 6, SIZE / 6]).all()
    middle = reddish(parted)[:, SIZE // 2]
    rows = np.flatnonzero(middle)
    assert (np.diff(rows) > 3).any(), "between the lips there is something else"


def test_a_head_of_another_shape_and_size_fills_its_pictures() -> None:
    head = shipped_head()
    image = drawn(template_of_identity(head, head.atlas.vertices * [2.0, 2.5, 2.0] + [1, 2, 3], "tall"))[0]
    rows, _ = np.nonzero(covered(image))
    assert rows.max() - rows.min() > 0.88 * SIZE
