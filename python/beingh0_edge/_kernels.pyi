"""The compiled kernels. Arrays must have exactly the dtype, shape and C order written here, else ValueError.

T frames, N items, B blocks, G groups, K codes, C channels. Lengths in metres, angles in radians.
"""

import numpy as np
import numpy.typing as npt

_F32 = npt.NDArray[np.float32]
_F64 = npt.NDArray[np.float64]
_I32 = npt.NDArray[np.int32]
_U8 = npt.NDArray[np.uint8]
_Camera = tuple[float, float, float, float]  # fx, fy, cx, cy in pixels
_Vector = tuple[float, float, float]

def isa() -> str:
    """The instruction set in use; the environment variable BEINGH0_ISA forces one at import."""

def available_isas() -> list[str]:
    """Those this machine can run, best first."""

def use_isa(name: str) -> None:
    """Forces one for what is built from now on (objects keep theirs) and for rotations; "" is the best again."""

# ---- rotations: float32[N, ...] each ----

def axis_angle_to_matrix(axis_angle: _F32) -> _F32: ...
def axis_angle_to_quaternion(axis_angle: _F32) -> _F32: ...
def matrix_to_axis_angle(matrix: _F32) -> _F32: ...
def matrix_to_quaternion(matrix: _F32) -> _F32: ...
def quaternion_to_matrix(quaternion: _F32) -> _F32: ...
def quaternion_to_axis_angle(quaternion: _F32) -> _F32: ...
def rot6d_to_matrix(rot6d: _F32, interleaved: bool) -> _F32: ...
def matrix_to_rot6d(matrix: _F32, interleaved: bool) -> _F32: ...

# ---- hand kinematics ----

class HandModel:
    def __init__(
        self,
        *,
        v_template: _F32,
        shapedirs: _F32,
        posedirs: _F32,
        j_regressor: _F32,
        weights: _F32,
        components: _F32,
        mean_pose: _F32,
        parents: _I32,
        tips: _I32,
        pose_blends: str = "float32",
    ) -> None:
        """MANO's arrays ([778, 3], [778, 3, 10], [778, 3, 135], [16, 778], [778, 16], [45, 45], [45]), parents [16],
        tip vertices of two conventions [2, 5]. pose_blends: float32, bfloat16 or int8, how the mesh's are kept."""

    def forward(
        self,
        pose: _F32,
        betas: _F32,
        trans: _F32 | None,
        kind: str,
        mean_pose: bool,
        center: bool,
        tips: int,
        keypoints: _F32,
        vertices: _F32 | None = None,
        jacobian: _F32 | None = None,
    ) -> None:
        """Writes keypoints [N, 21, 3], and vertices [N, 778, 3] and jacobian [N, 21, 3, 48 or 3 + C] if given.

        pose by kind: axis_angle [N, 16, 3], matrix [N, 16, 3, 3], rot6d_interleaved or rot6d_columns [N, 16, 6],
        pca [N, 3 + C]; betas [10] or [N, 10]; trans [N, 3]; mean_pose adds the mean (axis_angle, pca)."""

# ---- motion tokenizer ----

class GrqPart:
    """One part: quantizer, encoder and decoder. Add layers in order, then finish()."""

    def __init__(
        self,
        *,
        codebooks: _F32,
        mean: _F32,
        std: _F32,
        quantizers: int,
        window: int,
        frames: int,
        positions: int,
        id_offset: int,
        weights: str = "float32",
    ) -> None:
        """codebooks [G, 1 if shared else quantizers, K, C / G]; mean, std [dims]; frames = window + padding;
        weights of the networks kept as float32, bfloat16 or int8."""

    def add_conv(
        self,
        *,
        encoder: bool,
        weight: _F32,
        bias: _F32,
        stride: int = 1,
        padding: int = 1,
        upsample: bool = False,
        relu: bool = False,
    ) -> None:
        """weight [C_out, C_in, kernel]; upsample repeats every frame before it, relu follows it."""

    def add_residual(
        self,
        *,
        encoder: bool,
        weight1: _F32,
        bias1: _F32,
        weight2: _F32,
        bias2: _F32,
        dilation: int,
        activation: str,
        norm: str = "none",
        scale1: _F32 | None = None,
        shift1: _F32 | None = None,
        scale2: _F32 | None = None,
        shift2: _F32 | None = None,
    ) -> None:
        """x + conv2(act(norm2(conv1(act(norm1(x)))))); activation relu, silu, gelu; norm none, affine, layer,
        group."""

    def finish(self) -> None: ...
    def weight_bytes(self, *, encoder: bool) -> int:
        """Of one network, as kept and without what no frame reaches."""

    def first_foreign_id(self, ids: _I32, start: int) -> int:
        """Flat index of the first id at [:, start : start + ids_per_block] outside this part's range, or -1."""

    def decode(self, ids: _I32, start: int, out: _F32, column: int) -> None:
        """ids [B, >= start + ids_per_block] -> out [B, window, >= column + dims], from `column` on."""

    def encode(self, features: _F32, ids: _I32, start: int) -> None:
        """features [B, window, dims] -> ids [B, ...], from `start` on."""

    def dequantize(self, ids: _I32, start: int, out: _F32 | None = None) -> _F32:
        """-> [B, positions, C]: `out`, which is made if there is none"""

    def latent(self, features: _F32, out: _F32 | None = None) -> _F32:
        """[B, window, dims] -> [B, positions, C], before quantisation: `out`, which is made if there is none"""

# ---- rasteriser ----

def raster_triangles(
    colour: _F32,
    inverse_depth: _F32,
    vertices: _F32,
    colours: _F32,
    faces: _I32,
    intrinsics_px: _Camera,
    near_m: float = 0.02,
) -> None:
    """Draws lit triangles (camera frame) into colour [H, W, 3] and inverse_depth [H, W]."""

def raster_coverage(
    mask: _U8, vertices: _F32, faces: _I32, intrinsics_px: _Camera, near_m: float = 0.02
) -> None:
    """Sets mask [H, W] to 1 where a triangle covers the pixel's centre."""

def raster_soften(mask: _U8, radius: int) -> _U8:
    """Mean of mask [H, W] (0 or 1) over (2 radius + 1)^2 pixels around each, 0..255."""

def raster_plane(
    colour: _F32,
    intrinsics_px: _Camera,
    origin: _Vector,
    u: _Vector,
    v: _Vector,
    normal: _Vector,
    colour_a: _Vector,
    colour_b: _Vector,
    horizon: _Vector,
    scale_per_m: float,
    texture: int,
    seed: int,
) -> None:
    """Fills colour [H, W, 3] with a textured plane; texture 0 plain, 1 checker, 2 noise, 3 wood."""

def raster_compose(
    background: _F32, shadow: _U8, strength: float, colour: _F32, inverse_depth: _F32, grain: _F32
) -> _U8:
    """Averages things drawn at twice the size, before background [H, W, 3] with its shadow: uint8 [H, W, 3]."""

# ---- retargeting ----

class RetargetSolver:
    """Kinematics of a robot hand and the bounded least-squares solver that follows a human hand with it."""

    def __init__(
        self,
        *,
        parents: _I32,
        origins: _F64,
        axes: _F64,
        link_joints: _I32,
        multipliers: _F64,
        offsets: _F64,
        point_links: _I32,
        points: _F64,
        tips: int,
        lower: _F64,
        upper: _F64,
        human_tips: _I32,
        human_bases: _I32,
        bases: _F64,
        maps: _F64,
        thumb: int,
        palm_from_wrist: _F64,
        huber_m: float,
        smoothness_m2: float,
        pinch_weight: float,
        pinch_near_m: float,
        pinch_far_m: float,
        pairs: _I32,
        pair_distances: _F64,
        pair_weight: float,
    ) -> None: ...
    def jacobian(self, q_rad: _F64) -> _F64:
        """[J] -> [P, 3, J], metres per radian"""

    def solve(self, keypoints_wrist_m: _F32, q_start_rad: _F64) -> tuple[_F64, _I32]:
        """[T, 21, 3], [J] -> [T, J] within limits, [T] iterations; each frame starts at the one before"""

    def objective(self, keypoints_wrist_m: _F64, previous_rad: _F64, q_rad: _F64) -> float:
        """The value solve() makes small for one frame, m^2"""

    def gradient(self, keypoints_wrist_m: _F64, previous_rad: _F64, q_rad: _F64) -> _F64:
        """[J], its derivative by q, m^2 / rad"""

    def pair_distances(self, q_rad: _F64) -> _F64:
        """[J] -> [pairs], shortest distance between the axes of each pair, m"""

def hand_points(
    q_rad: _F64,
    *,
    parents: _I32,
    origins: _F64,
    axes: _F64,
    link_joints: _I32,
    multipliers: _F64,
    offsets: _F64,
    point_links: _I32,
    points: _F64,
) -> _F64:
    """[N, J] and a hand as RetargetSolver takes it -> [N, P, 3], palm frame; no limits"""

def rotation_about(axis: _F64, angle_rad: float) -> _F64:
    """[3] of length 1 -> [3, 3]"""

def first_strange_frame(
    keypoints_wrist_m: _F32,
    palm_m: _F64,
    *,
    max_wrist_m: float,
    max_size_ratio: float,
    max_reach_m: float,
    max_palm_error: float,
) -> int:
    """[T, 21, 3], [6, 3] of the open hand -> the first frame that is not such a hand in the wrist frame, or -1"""
