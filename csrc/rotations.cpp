// Rotation conversions. Arithmetic in double, so that inputs near 0 and pi keep all the digits float32 has; what
// forward kinematics needs 16 times per hand, axis-angle and 6D to matrices, is vectorised (simd/rotations.cpp).
#include <cmath>

#include "kernels.hpp"

namespace beingh0 {
namespace {

void matrix_of(double w, double x, double y, double z, float* m) noexcept {
    m[0] = static_cast<float>(1 - 2 * (y * y + z * z));
    m[1] = static_cast<float>(2 * (x * y - w * z));
    m[2] = static_cast<float>(2 * (x * z + w * y));
    m[3] = static_cast<float>(2 * (x * y + w * z));
    m[4] = static_cast<float>(1 - 2 * (x * x + z * z));
    m[5] = static_cast<float>(2 * (y * z - w * x));
    m[6] = static_cast<float>(2 * (x * z - w * y));
    m[7] = static_cast<float>(2 * (y * z + w * x));
    m[8] = static_cast<float>(1 - 2 * (x * x + y * y));
}

// Unit quaternion with w >= 0; q is scaled and its sign chosen.
void canonical(double (&q)[4]) noexcept {
    const double norm = std::sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3]);
    const double scale = (q[0] < 0 ? -1.0 : 1.0) / norm;
    for (double& value : q) value *= scale;
}

void quaternion_of(const float* axis_angle, double (&q)[4]) noexcept {
    const double x = axis_angle[0], y = axis_angle[1], z = axis_angle[2];
    const double angle = std::sqrt(x * x + y * y + z * z);
    // sin(a/2)/a, whose limit at 0 is 1/2
    const double scale = angle > 1e-9 ? std::sin(0.5 * angle) / angle : 0.5;
    q[0] = std::cos(0.5 * angle);
    q[1] = scale * x;
    q[2] = scale * y;
    q[3] = scale * z;
}

// Shepperd's method: divide by the largest of the four components, so that nothing small is divided by.
void quaternion_of_matrix(const float* m, double (&q)[4]) noexcept {
    const double trace = static_cast<double>(m[0]) + m[4] + m[8];
    const double size[4] = {trace, m[0], m[4], m[8]};
    int largest = 0;
    for (int i = 1; i < 4; ++i)
        if (size[i] > size[largest]) largest = i;
    if (largest == 0) {
        q[0] = 1.0 + trace;
        q[1] = static_cast<double>(m[7]) - m[5];
        q[2] = static_cast<double>(m[2]) - m[6];
        q[3] = static_cast<double>(m[3]) - m[1];
    } else {
        const int i = largest - 1, j = (i + 1) % 3, k = (i + 2) % 3;
        q[0] = static_cast<double>(m[3 * k + j]) - m[3 * j + k];
        q[1 + i] = 1.0 + m[4 * i] - m[4 * j] - m[4 * k];
        q[1 + j] = static_cast<double>(m[3 * j + i]) + m[3 * i + j];
        q[1 + k] = static_cast<double>(m[3 * k + i]) + m[3 * i + k];
    }
    canonical(q);
}

void axis_angle_of(const double (&q)[4], float* axis_angle) noexcept {
    const double sine = std::sqrt(q[1] * q[1] + q[2] * q[2] + q[3] * q[3]);
    // angle / sin(angle/2), whose limit at 0 is 2
    const double scale = sine > 1e-9 ? 2.0 * std::atan2(sine, q[0]) / sine : 2.0;
    for (int i = 0; i < 3; ++i) axis_angle[i] = static_cast<float>(scale * q[1 + i]);
}

void write(const double (&q)[4], float* out) noexcept {
    for (int i = 0; i < 4; ++i) out[i] = static_cast<float>(q[i]);
}

}  // namespace

void axis_angle_to_matrix(const float* axis_angle, std::int64_t n, float* matrix) noexcept {
    simd().axis_angle_to_matrix(axis_angle, n, matrix);
}

void axis_angle_to_quaternion(const float* axis_angle, std::int64_t n, float* quaternion) noexcept {
    for (std::int64_t i = 0; i < n; ++i) {
        double q[4];
        quaternion_of(axis_angle + 3 * i, q);
        canonical(q);
        write(q, quaternion + 4 * i);
    }
}

void quaternion_to_matrix(const float* quaternion, std::int64_t n, float* matrix) noexcept {
    for (std::int64_t i = 0; i < n; ++i, quaternion += 4) {
        double q[4] = {quaternion[0], quaternion[1], quaternion[2], quaternion[3]};
        canonical(q);
        matrix_of(q[0], q[1], q[2], q[3], matrix + 9 * i);
    }
}

void quaternion_to_axis_angle(const float* quaternion, std::int64_t n, float* axis_angle) noexcept {
    for (std::int64_t i = 0; i < n; ++i, quaternion += 4) {
        double q[4] = {quaternion[0], quaternion[1], quaternion[2], quaternion[3]};
        canonical(q);
        axis_angle_of(q, axis_angle + 3 * i);
    }
}

void matrix_to_quaternion(const float* matrix, std::int64_t n, float* quaternion) noexcept {
    for (std::int64_t i = 0; i < n; ++i) {
        double q[4];
        quaternion_of_matrix(matrix + 9 * i, q);
        write(q, quaternion + 4 * i);
    }
}

void matrix_to_axis_angle(const float* matrix, std::int64_t n, float* axis_angle) noexcept {
    for (std::int64_t i = 0; i < n; ++i) {
        double q[4];
        quaternion_of_matrix(matrix + 9 * i, q);
        axis_angle_of(q, axis_angle + 3 * i);
    }
}

void rot6d_to_matrix(const float* rot6d, std::int64_t n, bool interleaved, float* matrix) noexcept {
    simd().rot6d_to_matrix(rot6d, n, interleaved, matrix);
}

void matrix_to_rot6d(const float* matrix, std::int64_t n, bool interleaved, float* rot6d) noexcept {
    const int step = interleaved ? 2 : 1, second = interleaved ? 1 : 3;
    for (std::int64_t i = 0; i < n; ++i, matrix += 9, rot6d += 6)
        for (int k = 0; k < 3; ++k) {
            rot6d[k * step] = matrix[3 * k];
            rot6d[second + k * step] = matrix[3 * k + 1];
        }
}

}  // namespace beingh0
