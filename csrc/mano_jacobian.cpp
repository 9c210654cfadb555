// Derivative of the 21 keypoints by the pose, analytic.
//
// Turning joint a a little further by the rotation vector delta, in its parent's frame, turns all that hangs on it about
// the joint: dp = omega x (p - p_a), omega = (parent's rotation) delta. Finger tips are skinned vertices: of each only
// the share that hangs on the joint turns, and the pose blend shapes move it where it rests. An axis-angle pose is the
// rotation vector's integral: delta = (left Jacobian of SO(3)) d(axis_angle).
#include <cmath>

#include "mano.hpp"

namespace beingh0 {

using namespace mano;

namespace {

void transform(const float* m, const float* p, float* out) noexcept {
    for (int i = 0; i < 3; ++i) out[i] = m[4 * i] * p[0] + m[4 * i + 1] * p[1] + m[4 * i + 2] * p[2] + m[4 * i + 3];
}

void cross(const float* a, const float* b, float* out) noexcept {
    out[0] = a[1] * b[2] - a[2] * b[1];
    out[1] = a[2] * b[0] - a[0] * b[2];
    out[2] = a[0] * b[1] - a[1] * b[0];
}

// I + (1 - cos t) / t^2 [v] + (t - sin t) / t^3 [v]^2, columns first
void left_jacobian(const float* v, float (&columns)[3][3]) noexcept {
    const double x = v[0], y = v[1], z = v[2], square = x * x + y * y + z * z, angle = std::sqrt(square);
    const bool small = square < 1e-4;  // the next terms of the series are below 1e-9
    const double first = small ? 0.5 - square / 24 : (1 - std::cos(angle)) / square;
    const double second = small ? 1.0 / 6 - square / 120 : (angle - std::sin(angle)) / (square * angle);
    const double diagonal = 1 - second * square;
    const double j[3][3] = {{diagonal + second * x * x, second * x * y - first * z, second * x * z + first * y},
                            {second * x * y + first * z, diagonal + second * y * y, second * y * z - first * x},
                            {second * x * z - first * y, second * y * z + first * x, diagonal + second * z * z}};
    for (int k = 0; k < 3; ++k)
        for (int i = 0; i < 3; ++i) columns[k][i] = static_cast<float>(j[i][k]);
}

}  // namespace

void HandModel::jacobian_of(const Batch& b, std::int64_t hand, const Hand& h, const ChainHand& posed) const noexcept {
    const bool angles = b.kind == Pose::axis_angle || b.kind == Pose::pca;
    float full[kKeypoints * 3][kPoseAngles] = {};  // keypoints in the order of kKeypointOrder's entries

    // Of each tip: where each joint of its weights carries it, and the blend of their rotations.
    float carried[kTips][kJoints][3], blended[kTips][9] = {};
    for (int tip = 0; tip < kTips; ++tip) {
        const TipWeights& w = tip_weights_[b.tips][tip];
        for (int e = 0; e < w.count; ++e) {
            const float* const skin = posed.skin + 12 * w.joint[e];
            transform(skin, posed.tip_rest + 3 * tip, carried[tip][e]);
            for (int i = 0; i < 9; ++i) blended[tip][i] += w.weight[e] * skin[i / 3 * 4 + i % 3];
        }
    }

    for (int a = 0; a < kJoints; ++a) {
        const float at[3] = {h.world[a][3], h.world[a][7], h.world[a][11]};
        float turns[3][3] = {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}};  // delta of each pose number
        if (angles) left_jacobian(h.axis_angle + 3 * a, turns);
        float lever[kTips][3] = {};  // sum of weight (p - p_a) over the joints that turn with a
        for (int tip = 0; tip < kTips; ++tip) {
            const TipWeights& w = tip_weights_[b.tips][tip];
            for (int e = 0; e < w.count; ++e)
                if (moved_by_[a] >> w.joint[e] & 1u)
                    for (int i = 0; i < 3; ++i) lever[tip][i] += w.weight[e] * (carried[tip][e][i] - at[i]);
        }
        for (int k = 0; k < 3; ++k) {
            const int column = 3 * a + k;
            float omega[3] = {turns[k][0], turns[k][1], turns[k][2]};
            if (parents_[a] >= 0) {
                const Affine& parent = h.world[parents_[a]];
                for (int i = 0; i < 3; ++i)
                    omega[i] = parent[4 * i] * turns[k][0] + parent[4 * i + 1] * turns[k][1] +
                               parent[4 * i + 2] * turns[k][2];
            }
            float moved[3];
            for (int j = 0; j < kJoints; ++j) {
                if (j == a || !(moved_by_[a] >> j & 1u)) continue;
                const float arm[3] = {h.world[j][3] - at[0], h.world[j][7] - at[1], h.world[j][11] - at[2]};
                cross(omega, arm, moved);
                for (int i = 0; i < 3; ++i) full[3 * j + i][column] = moved[i];
            }
            // The rotation's own change, for the blend shapes: [delta] R.
            float turned[9];
            for (int c = 0; c < 3; ++c) {
                const float* const r = posed.rotations + 9 * a;
                const float old[3] = {r[c], r[3 + c], r[6 + c]};
                cross(turns[k], old, moved);
                for (int i = 0; i < 3; ++i) turned[3 * i + c] = moved[i];
            }
            float rest[3 * kTips] = {};
            if (a > 0)
                for (int e = 0; e < 9; ++e) {
                    const float* const dirs = tip_dirs_[b.tips].data() + (9 * (a - 1) + e) * 3 * kTips;
                    for (int i = 0; i < 3 * kTips; ++i) rest[i] += turned[e] * dirs[i];
                }
            for (int tip = 0; tip < kTips; ++tip) {
                cross(omega, lever[tip], moved);
                const float* const m = blended[tip];
                const float* const d = rest + 3 * tip;
                for (int i = 0; i < 3; ++i)
                    full[3 * (kJoints + tip) + i][column] =
                        moved[i] + m[3 * i] * d[0] + m[3 * i + 1] * d[1] + m[3 * i + 2] * d[2];
            }
        }
    }

    const int width = b.jacobian_width();
    float* out = b.jacobian + hand * kKeypoints * 3 * width;
    for (int k = 0; k < kKeypoints; ++k)
        for (int i = 0; i < 3; ++i, out += width) {
            const float* const row = full[3 * kKeypointOrder[k] + i];
            if (b.kind != Pose::pca) {
                std::memcpy(out, row, sizeof full[0]);
                continue;
            }
            std::memcpy(out, row, 3 * sizeof(float));
            for (int c = 0; c < b.components; ++c) {
                float sum = 0.0f;
                for (int n = 0; n < kFingerAngles; ++n) sum += row[3 + n] * components_[c * kFingerAngles + n];
                out[3 + c] = sum;
            }
        }
}

}  // namespace beingh0
