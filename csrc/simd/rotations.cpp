// What forward kinematics converts 16 times per hand: axis-angle and 6D to matrices, many at once.
#include "vec.hpp"

namespace beingh0 {
namespace BEINGH0_ISA {
namespace {

constexpr int kBlock = 16, kDoubles = kLanes / 2;

typedef double Doubles __attribute__((vector_size(kLanes * sizeof(float)), aligned(sizeof(double)), may_alias));
typedef float Floats __attribute__((vector_size(kDoubles * sizeof(float)), aligned(sizeof(float)), may_alias));

BEINGH0_INLINE Doubles root_of(Doubles x) {
#if defined(__AVX512F__)
    return (Doubles)_mm512_maskz_sqrt_pd((__mmask8)-1, (__m512d)x);
#elif defined(__AVX__)
    return (Doubles)_mm256_sqrt_pd((__m256d)x);
#elif defined(__SSE2__)
    return (Doubles)_mm_sqrt_pd((__m128d)x);
#elif defined(__aarch64__)
    return (Doubles)vsqrtq_f64((float64x2_t)x);
#else
    for (int i = 0; i < kDoubles; ++i) x[i] = __builtin_sqrt(x[i]);
    return x;
#endif
}

void block(const float* axis_angle, int count, float* matrix) noexcept {
    float v[3][kBlock] = {};
    for (int j = 0; j < count; ++j)
        for (int i = 0; i < 3; ++i) v[i][j] = axis_angle[3 * j + i];

    float m[9][kBlock];
    for (int j = 0; j < kBlock; j += kLanes) {
        const Vec x0 = load(v[0] + j), y0 = load(v[1] + j), z0 = load(v[2] + j);
        const Vec angle = root(x0 * x0 + y0 * y0 + z0 * z0);
        // Half angle, less a multiple of pi: that only changes the quaternion's sign, which the matrix does not see.
        const Vec half = 0.5f * angle;
        const Vec turns = nearest(half * 0.318309886f);
        const Vec r = (half - turns * 3.140625f) - turns * 9.67653589793e-4f;
        const Vec s = r * r;
        // sin(r)/r and cos(r) by their series on |r| <= pi/2; the first omitted terms are below 6e-8
        Vec sine = 1.0f / 362880 - s * (1.0f / 39916800);
        sine = 1.0f + s * (-1.0f / 6 + s * (1.0f / 120 + s * (-1.0f / 5040 + s * sine)));
        Vec w = 1.0f / 40320 + s * (-1.0f / 3628800 + s * (1.0f / 479001600));
        w = 1.0f + s * (-0.5f + s * (1.0f / 24 + s * (-1.0f / 720 + s * w)));
        // sin(half)/angle without dividing by a small angle
        const Vec scale = turns == 0.0f ? 0.5f * sine : r * sine / angle;
        const Vec x = scale * x0, y = scale * y0, z = scale * z0;
        // 2 / |q|^2, so that rounding in the quaternion turns the matrix a little but does not stretch it
        const Vec two = 2.0f / (w * w + x * x + y * y + z * z);
        store(m[0] + j, 1.0f - two * (y * y + z * z));
        store(m[1] + j, two * (x * y - w * z));
        store(m[2] + j, two * (x * z + w * y));
        store(m[3] + j, two * (x * y + w * z));
        store(m[4] + j, 1.0f - two * (x * x + z * z));
        store(m[5] + j, two * (y * z - w * x));
        store(m[6] + j, two * (x * z - w * y));
        store(m[7] + j, two * (y * z + w * x));
        store(m[8] + j, 1.0f - two * (x * x + y * y));
    }
    for (int j = 0; j < count; ++j)
        for (int i = 0; i < 9; ++i) matrix[9 * j + i] = m[i][j];
}

// In double: what is left of the second column after the first is taken out may be small.
void block_6d(const float* rot6d, int count, bool interleaved, float* matrix) noexcept {
    constexpr double kFloor = 1e-12;  // as upstream: a vector of zeros stays one instead of becoming NaN
    const int step = interleaved ? 2 : 1, second = interleaved ? 1 : 3;
    double a[3][kBlock] = {}, b[3][kBlock] = {};
    for (int j = 0; j < count; ++j)
        for (int i = 0; i < 3; ++i) {
            a[i][j] = rot6d[6 * j + i * step];
            b[i][j] = rot6d[6 * j + second + i * step];
        }
    float m[9][kBlock];
    const Doubles floor = Doubles{} + kFloor;
    for (int j = 0; j < kBlock; j += kDoubles) {
        const auto read = [j](const double* row) { return *reinterpret_cast<const Doubles*>(row + j); };
        const auto write = [j](float* row, Doubles value) {
            *reinterpret_cast<Floats*>(row + j) = __builtin_convertvector(value, Floats);
        };
        Doubles x = read(a[0]), y = read(a[1]), z = read(a[2]), u = read(b[0]), v = read(b[1]), w = read(b[2]);
        Doubles size = root_of(x * x + y * y + z * z);
        Doubles gain = 1.0 / (size > floor ? size : floor);
        x *= gain, y *= gain, z *= gain;
        const Doubles dot = x * u + y * v + z * w;
        u -= dot * x, v -= dot * y, w -= dot * z;
        size = root_of(u * u + v * v + w * w);
        gain = 1.0 / (size > floor ? size : floor);
        u *= gain, v *= gain, w *= gain;
        write(m[0], x);
        write(m[1], u);
        write(m[2], y * w - z * v);
        write(m[3], y);
        write(m[4], v);
        write(m[5], z * u - x * w);
        write(m[6], z);
        write(m[7], w);
        write(m[8], x * v - y * u);
    }
    for (int j = 0; j < count; ++j)
        for (int i = 0; i < 9; ++i) matrix[9 * j + i] = m[i][j];
}

}  // namespace

void rot6d_to_matrix(const float* rot6d, int64_t n, bool interleaved, float* matrix) noexcept {
    for (int64_t i = 0; i < n; i += kBlock)
        block_6d(rot6d + 6 * i, n - i < kBlock ? static_cast<int>(n - i) : kBlock, interleaved, matrix + 9 * i);
}

void axis_angle_to_matrix(const float* axis_angle, int64_t n, float* matrix) noexcept {
    for (int64_t i = 0; i < n; i += kBlock)
        block(axis_angle + 3 * i, n - i < kBlock ? static_cast<int>(n - i) : kBlock, matrix + 9 * i);
}

}  // namespace BEINGH0_ISA
}  // namespace beingh0
