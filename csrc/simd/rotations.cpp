// Axis-angle to matrix for many rotations at once.
#include "vec.hpp"

namespace beingh0 {
namespace BEINGH0_ISA {
namespace {

constexpr int kBlock = 16;

// The loops below run over whole blocks so that the compiler turns each into vector instructions.
void block(const float* axis_angle, int count, float* matrix) noexcept {
    float v[3][kBlock] = {};
    for (int j = 0; j < count; ++j)
        for (int i = 0; i < 3; ++i) v[i][j] = axis_angle[3 * j + i];

    float m[9][kBlock];
    for (int j = 0; j < kBlock; ++j) {
        const float x0 = v[0][j], y0 = v[1][j], z0 = v[2][j];
        const float angle = __builtin_sqrtf(x0 * x0 + y0 * y0 + z0 * z0);
        // Half angle, less a multiple of pi: that only changes the quaternion's sign, which the matrix does not see.
        const float half = 0.5f * angle;
        const float turns = __builtin_rintf(half * 0.318309886f);
        const float r = (half - turns * 3.140625f) - turns * 9.67653589793e-4f;
        const float s = r * r;
        // sin(r)/r and cos(r) by their series on |r| <= pi/2; the first omitted terms are below 6e-8
        float sine = 1.0f / 362880 - s * (1.0f / 39916800);
        sine = 1.0f + s * (-1.0f / 6 + s * (1.0f / 120 + s * (-1.0f / 5040 + s * sine)));
        float w = 1.0f / 40320 + s * (-1.0f / 3628800 + s * (1.0f / 479001600));
        w = 1.0f + s * (-0.5f + s * (1.0f / 24 + s * (-1.0f / 720 + s * w)));
        // sin(half)/angle without dividing by a small angle
        const float scale = turns == 0.0f ? 0.5f * sine : r * sine / angle;
        const float x = scale * x0, y = scale * y0, z = scale * z0;
        m[0][j] = 1.0f - 2.0f * (y * y + z * z);
        m[1][j] = 2.0f * (x * y - w * z);
        m[2][j] = 2.0f * (x * z + w * y);
        m[3][j] = 2.0f * (x * y + w * z);
        m[4][j] = 1.0f - 2.0f * (x * x + z * z);
        m[5][j] = 2.0f * (y * z - w * x);
        m[6][j] = 2.0f * (x * z - w * y);
        m[7][j] = 2.0f * (y * z + w * x);
        m[8][j] = 1.0f - 2.0f * (x * x + y * y);
    }
    for (int j = 0; j < count; ++j)
        for (int i = 0; i < 9; ++i) matrix[9 * j + i] = m[i][j];
}

}  // namespace

void axis_angle_to_matrix(const float* axis_angle, int64_t n, float* matrix) noexcept {
    for (int64_t i = 0; i < n; i += kBlock)
        block(axis_angle + 3 * i, n - i < kBlock ? static_cast<int>(n - i) : kBlock, matrix + 9 * i);
}

}  // namespace BEINGH0_ISA
}  // namespace beingh0
