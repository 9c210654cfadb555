"""The rasteriser against areas and depths that can be computed by hand."""

import numpy as np
import pytest

from beingh0_edge import _kernels

K = (100.0, 100.0, 50.0, 50.0)
FACE = np.array([[0, 1, 2]], np.int32)
# A pixel belongs to a triangle by its centre, so an area is off by at most about half its outline.
HALF_OUTLINE = 0.5
HALF_LEVEL = 0.5001  # a picture is rounded to 8 bits, after sums in float32


def blank(size: int = 100):
    return np.zeros((size, size, 3), np.float32), np.zeros((size, size), np.float32)


def triangle(*points) -> np.ndarray:
    return np.array(points, np.float32)


def white(n: int = 3) -> np.ndarray:
    return np.ones((n, 3), np.float32)


def test_a_triangle_covers_its_projected_area():
    colour, depth = blank()
    z = 2.0
    vertices = triangle([-0.8, -0.8, z], [0.8, -0.8, z], [-0.8, 0.8, z])  # legs of 80 px
    _kernels.raster_triangles(colour, depth, vertices, white(), FACE, K)
    assert abs((depth > 0).sum() - 80 * 80 / 2) <= HALF_OUTLINE * (80 + 80 + 80 * 2**0.5)
    np.testing.assert_allclose(depth[depth > 0], 1 / z, rtol=1e-5)


def test_two_triangles_of_a_square_leave_no_gap_and_no_overlap():
    vertices = triangle([-0.71, -0.63, 1.9], [0.77, -0.63, 1.9], [0.77, 0.81, 1.9], [-0.71, 0.81, 1.9])
    masks = []
    for face in ([[0, 1, 2]], [[0, 2, 3]], [[0, 1, 2], [0, 2, 3]]):
        mask = np.zeros((100, 100), np.uint8)
        _kernels.raster_coverage(mask, vertices, np.array(face, np.int32), K)
        masks.append(mask)
    rows, columns = np.nonzero(masks[2])
    assert masks[2].sum() == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
    np.testing.assert_array_equal(masks[0] | masks[1], masks[2])


def test_the_nearer_triangle_wins_in_either_order():
    near = triangle([-0.5, -0.5, 1], [0.5, -0.5, 1], [-0.5, 0.5, 1])
    far = 2 * near
    red, blue = np.tile([[1, 0, 0]], (3, 1)).astype(np.float32), np.tile([[0, 0, 1]], (3, 1)).astype(np.float32)
    for order in ((near, red, far, blue), (far, blue, near, red)):
        colour, depth = blank()
        _kernels.raster_triangles(colour, depth, order[0], order[1], FACE, K)
        _kernels.raster_triangles(colour, depth, order[2], order[3], FACE, K)
        np.testing.assert_allclose(colour[40, 40], [1, 0, 0])


def test_colour_is_interpolated_in_space_not_on_the_screen():
    # An edge from z = 1 to z = 3: half way on the screen is a quarter of the way along the edge.
    vertices = triangle([-0.4, -0.01, 1], [1.2, -0.01, 3], [-0.4, 0.4, 1])
    ramp = np.array([[0, 0, 0], [1, 1, 1], [0, 0, 0]], np.float32)
    colour, depth = blank()
    _kernels.raster_triangles(colour, depth, vertices, ramp, FACE, K)
    row = colour[49, :, 0]  # the top edge runs just above this row's centre
    u = np.array([20.5, 30.5, 40.5, 50.5, 60.5])
    x_over_z = (u - 50) / 100
    t = (0.4 + x_over_z) / (1.6 - 2 * x_over_z)  # x = -0.4 + 1.6 t, z = 1 + 2 t
    np.testing.assert_allclose(row[u.astype(int)], t, atol=0.02)  # the row is half a pixel inside the edge


@pytest.mark.parametrize("shift", [(0, 0, -5), (50, 0, 0), (0, -50, 0)])
def test_what_is_behind_or_beside_the_camera_draws_nothing(shift):
    colour, depth = blank()
    vertices = triangle([-0.5, -0.5, 1], [0.5, -0.5, 1], [-0.5, 0.5, 1]) + np.array(shift, np.float32)
    _kernels.raster_triangles(colour, depth, vertices, white(), FACE, K)
    assert not depth.any()
    assert not colour.any()


def test_a_triangle_through_the_camera_plane_is_cut_not_dropped():
    colour, depth = blank()
    floor = triangle([-1, 0.3, -1], [1, 0.3, -1], [0, 0.3, 4])
    _kernels.raster_triangles(colour, depth, floor, white(), FACE, K)
    drawn = np.nonzero(depth.any(1))[0]
    assert drawn[-1] == 99  # reaches the bottom edge of the picture, where the floor is nearest
    assert drawn[0] > 50    # and stays below the horizon
    assert depth.max() <= 1 / 0.02


def test_a_checkered_plane_has_the_right_cell_at_the_right_place():
    colour = np.zeros((100, 100, 3), np.float32)
    _kernels.raster_plane(colour, K, (0, 0, 2), (1, 0, 0), (0, 1, 0), (0, 0, -1), (0, 0, 0), (1, 1, 1), (0, 0, 0),
                          5.0, 1, 0)
    x = (np.arange(100) + 0.5 - 50) / 100 * 2 * 5
    expected = (np.floor(x)[None] + np.floor(x)[:, None]) % 2
    np.testing.assert_array_equal(colour[..., 0], expected)


@pytest.mark.parametrize(("change", "message"), [
    ({"faces": np.array([[0, 1, 3]], np.int32)}, r"index 3 outside \[0, 3\)"),
    ({"vertices": np.zeros((3, 3), np.float64)}, r"expected float32\[N, 3\], got float64\[3, 3\]"),
    ({"vertices": np.full((3, 3), np.nan, np.float32)}, "expected finite values"),
    ({"intrinsics_px": (0.0, 1.0, 0.0, 0.0)}, "focal lengths"),
    ({"near_m": 0.0}, "near_m"),
    ({"colour": np.zeros((4, 4, 3), np.float32)[:, ::2]}, "not C-contiguous"),
])
def test_bad_arguments_are_refused_by_name(change, message):
    colour, depth = blank(4)
    arguments = {"colour": colour, "inverse_depth": depth, "vertices": np.ones((3, 3), np.float32), "colours": white(),
                 "faces": FACE, "intrinsics_px": K} | change
    with pytest.raises(ValueError, match=message):
        _kernels.raster_triangles(**arguments)


def layers(height: int = 4, width: int = 5, value: float = 0.41) -> dict[str, np.ndarray]:
    return {"background": np.full((height, width, 3), value, np.float32),
            "shadow": np.zeros((2 * height, 2 * width), np.uint8),
            "colour": np.zeros((2 * height, 2 * width, 3), np.float32),
            "inverse_depth": np.zeros((2 * height, 2 * width), np.float32),
            "grain": np.zeros((height, width, 3), np.float32)}


def compose(parts: dict[str, np.ndarray], strength: float = 0.4) -> np.ndarray:
    return _kernels.raster_compose(parts["background"], parts["shadow"], strength, parts["colour"],
                                   parts["inverse_depth"], parts["grain"])


def test_a_picture_of_nothing_is_its_background():
    ramp = layers(width=8)
    ramp["background"][:] = (np.linspace(0.1, 0.8, 8)[:, None] * [1, 0.5, 0.25])[None]
    # Enlarging and averaging keeps a ramp, except at the border, where there is nothing beyond the picture.
    np.testing.assert_allclose(compose(ramp)[:, 1:-1], 255 * ramp["background"][:, 1:-1], atol=HALF_LEVEL)
    np.testing.assert_array_equal(compose(layers()), round(255 * 0.41))


def test_a_shadow_takes_its_share_of_the_light_of_the_background_only():
    parts = layers()
    parts["shadow"][:] = 255
    parts["inverse_depth"][:2, :2] = 1
    parts["colour"][:2, :2] = 0.8
    out = compose(parts, 0.4)
    assert (out[0, 0] == round(255 * 0.8)).all()
    assert (out[2:, 2:] == round(255 * 0.41 * 0.6)).all()


def test_an_object_that_covers_one_sample_of_four_gives_a_quarter_of_its_colour():
    parts = layers(value=0.0)
    parts["inverse_depth"][3, 4] = 0.1
    parts["colour"][3, 4] = [1.0, 0.4, 0.0]
    out = compose(parts)
    np.testing.assert_array_equal(out[1, 2], [round(255 / 4), round(255 * 0.4 / 4), 0])
    out[1, 2] = 0
    assert not out.any()


def test_grain_is_added_and_the_sum_saturates():
    parts = layers()
    parts["grain"][0, :4, 0] = [0.2, 9.0, -9.0, np.nan]
    np.testing.assert_array_equal(compose(parts)[0, :4, 0], [round(255 * 0.61), 255, 0, 0])


def test_layers_of_other_sizes_are_refused():
    parts = layers()
    parts["shadow"] = parts["shadow"][1:]
    with pytest.raises(ValueError, match=r"shadow: expected uint8\[8, 10\], got uint8\[7, 10\]"):
        compose(parts)
    with pytest.raises(ValueError, match="strength: expected 0 to 1"):
        compose(layers(), 1.5)


@pytest.mark.parametrize(("shape", "radius"), [((9, 13), 2), ((40, 31), 5), ((3, 4), 6), ((1, 7), 1), ((5, 5), 0)])
def test_soft_edges_are_the_mean_of_the_window_with_mirrored_borders(shape, radius):
    mask = np.random.default_rng(0).integers(0, 2, shape).astype(np.uint8)
    padded = mask.astype(float)
    for axis in range(2):  # numpy mirrors only once per call
        index = np.arange(-radius, shape[axis] + radius)
        period = max(2 * (shape[axis] - 1), 1)
        index = np.abs((index + shape[axis] - 1) % period - (shape[axis] - 1)) if shape[axis] > 1 else 0 * index
        padded = np.take(padded, index, axis)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * radius + 1, 2 * radius + 1))
    np.testing.assert_allclose(_kernels.raster_soften(mask, radius), 255 * windows.mean((2, 3)), atol=HALF_LEVEL)


def test_a_mask_holds_only_zero_and_one():
    with pytest.raises(ValueError, match="mask: expected 0 or 1, got 255"):
        _kernels.raster_soften(np.full((2, 2), 255, np.uint8), 1)
    with pytest.raises(ValueError, match="radius"):
        _kernels.raster_soften(np.zeros((2, 2), np.uint8), -1)
