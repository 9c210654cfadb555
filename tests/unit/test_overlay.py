"""Hands drawn over a photo lie where the camera would see them, and nowhere else."""

from importlib.resources import files

import numpy as np
import pytest

from beingh0_edge import HandModel, overlay

K = (300.0, 310.0, 160.0, 120.0)
SHAPE = (240, 320, 3)
SQUARE = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
HALF_LEVEL = 0.5 / 255  # colours are rounded to 8 bits


def photo(value: int = 40) -> np.ndarray:
    return np.full(SHAPE, value, np.uint8)


def square(z_m: float, half_m: float, x_m: float = 0.0) -> np.ndarray:
    """Facing the camera."""
    corners = np.array([[-1, -1], [-1, 1], [1, 1], [1, -1]]) * half_m
    return np.c_[corners[:, 0] + x_m, corners[:, 1], np.full(4, z_m)].astype(np.float32)


def hand() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    model = HandModel.load(str(files("beingh0_edge") / "assets" / "hands" / "synthetic_right.npz"))
    points = model.forward(np.zeros(48, np.float32), trans=np.array([0.05, 0.0, 0.5], np.float32), vertices=True)
    return points.vertices, model.faces, points.joints


def test_only_the_pixels_of_the_hand_change() -> None:
    vertices, faces, joints = hand()
    out = overlay.draw_hand(photo(), vertices, faces, K)
    changed = (out != 40).any(-1)
    u = K[0] * vertices[:, 0] / vertices[:, 2] + K[2]
    v = K[1] * vertices[:, 1] / vertices[:, 2] + K[3]
    rows, columns = np.nonzero(changed)
    assert u.min() - 1 <= columns.min() <= u.min() + 2
    assert u.max() - 2 <= columns.max() + 1 <= u.max() + 1
    assert v.min() - 1 <= rows.min() <= v.min() + 2
    assert v.max() - 2 <= rows.max() + 1 <= v.max() + 1
    for joint in joints:  # every keypoint lies inside the hand (tips on its surface: a pixel of slack)
        x, y = int(K[0] * joint[0] / joint[2] + K[2]), int(K[1] * joint[1] / joint[2] + K[3])
        assert changed[y - 1:y + 2, x - 1:x + 2].any()


def test_coverage_is_the_share_of_the_pixel_that_is_covered() -> None:
    # A square of 60.9 x 62.93 px: with nine samples a pixel the area is right to a third of a pixel along each edge.
    found = overlay.render([overlay.Mesh(square(1.0, 0.1015), SQUARE)], K, SHAPE[1], SHAPE[0])
    assert found is not None
    (top, left), layer = found
    width, height = 2 * 0.1015 * K[0], 2 * 0.1015 * K[1]
    assert abs(layer.coverage.sum() - width * height) < (width + height) / 3
    assert (top, left) == (int(K[3] - height / 2), int(K[2] - width / 2))
    np.testing.assert_allclose(layer.depth_m[layer.coverage > 0], 1.0, rtol=1e-5)
    assert np.isinf(layer.depth_m[layer.coverage == 0]).all()


def test_opacity_mixes_the_photo_with_the_drawing() -> None:
    meshes = [overlay.Mesh(square(1.0, 0.2), SQUARE)]
    none, half, full = (overlay.draw_meshes(photo(), meshes, K, a)[120, 160].astype(float) for a in (0.0, 0.5, 1.0))
    np.testing.assert_array_equal(none, 40)
    np.testing.assert_allclose(half, (none + full) / 2, atol=255 * 2 * HALF_LEVEL)


def test_the_nearer_mesh_hides_the_farther_in_either_order() -> None:
    red = overlay.Mesh(square(0.5, 0.05), SQUARE, (1.0, 0.0, 0.0))
    blue = overlay.Mesh(square(1.0, 0.2), SQUARE, (0.0, 0.0, 1.0))
    pictures = [overlay.draw_meshes(photo(), pair, K, 1.0) for pair in ((red, blue), (blue, red))]
    np.testing.assert_array_equal(*pictures)
    assert pictures[0][120, 160, 0] > 0
    assert pictures[0][120, 160, 2] == 0
    assert pictures[0][120, 120, 2] > 0


def test_normals_point_out_of_a_closed_mesh() -> None:
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64)
    faces = np.array([[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1], [2, 3, 7], [2, 7, 6],
                      [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]], np.int32)
    normals = overlay.vertex_normals(corners, faces)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1)
    assert ((normals * corners).sum(1) > 0.5).all()


@pytest.mark.parametrize("z_m", [-1.0, 0.0])
def test_nothing_is_drawn_of_a_mesh_behind_the_camera(z_m: float) -> None:
    np.testing.assert_array_equal(overlay.draw_meshes(photo(), [overlay.Mesh(square(z_m, 0.1), SQUARE)], K), photo())


def test_nothing_is_drawn_of_a_mesh_beside_the_picture() -> None:
    assert overlay.render([overlay.Mesh(square(1.0, 0.1, 3.0), SQUARE)], K, SHAPE[1], SHAPE[0]) is None
    np.testing.assert_array_equal(overlay.draw_meshes(photo(), [], K), photo())


def test_a_mesh_that_reaches_behind_the_camera_is_cut_at_the_near_plane() -> None:
    floor = np.array([[-1, 0.1, -1], [1, 0.1, -1], [1, 0.1, 5], [-1, 0.1, 5]], np.float32)
    out = overlay.draw_meshes(photo(), [overlay.Mesh(floor, SQUARE)], K)
    horizon = K[3] + K[1] * 0.1 / 5
    assert (out[: int(horizon) - 1] == 40).all()
    assert (out[-1] != 40).any(-1).all()


def test_the_photo_itself_is_not_written_to() -> None:
    image = photo()
    overlay.draw_hand(image, *hand()[:2], K)
    np.testing.assert_array_equal(image, photo())


def test_wrong_input_is_named() -> None:
    vertices, faces, _ = hand()
    with pytest.raises(ValueError, match=r"alpha: expected 0 to 1, got 1.5"):
        overlay.draw_hand(photo(), vertices, faces, K, alpha=1.5)
    with pytest.raises(ValueError, match=r"vertices_cam_m: expected float\[V, 3\], got float32\[778, 2\]"):
        overlay.draw_hand(photo(), vertices[:, :2], faces, K)
    with pytest.raises(ValueError, match="finite"):
        overlay.draw_hand(photo(), np.full_like(vertices, np.nan), faces, K)
    with pytest.raises(ValueError, match=r"faces: expected indices in \[0, 10\)"):
        overlay.draw_hand(photo(), vertices[:10], faces, K)
    with pytest.raises(ValueError, match="fx, fy > 0"):
        overlay.draw_hand(photo(), vertices, faces, (0.0, 1.0, 1.0, 1.0))
    with pytest.raises(TypeError, match="uint8"):
        overlay.draw_hand(photo().astype(np.float32), vertices, faces, K)
