// Rows of float32 as smaller numbers, for weights of two bytes or one.
#include "vec.hpp"

namespace beingh0 {
namespace BEINGH0_ISA {

void to_bf16(const float* x, int n, uint16_t* y) noexcept {
    for (int i = 0; i < n; ++i) {
        uint32_t bits;
        __builtin_memcpy(&bits, x + i, sizeof bits);
        const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
        y[i] = static_cast<uint16_t>(x[i] != x[i] ? 0x7fc0u : rounded);
    }
    if (n % 2 != 0) y[n] = 0;
}

namespace {

// x as integers of at most `limit`, times what is returned.
template <typename Int>
float to_integers(const float* x, int n, int limit, Int* y) {
    Vec largest = {}, nothing = {};
    int i = 0;
    for (; i + kLanes <= n; i += kLanes) {
        const Vec value = load(x + i), size = value < 0.0f ? -value : value;
        largest = size > largest ? size : largest;
        nothing += value * 0.0f;
    }
    float most = 0.0f, zero = 0.0f;
    for (int lane = 0; lane < kLanes; ++lane) {
        most = largest[lane] > most ? largest[lane] : most;
        zero += nothing[lane];
    }
    for (; i < n; ++i) {
        const float size = x[i] < 0.0f ? -x[i] : x[i];
        most = size > most ? size : most;
        zero += x[i] * 0.0f;
    }
    const bool usable = most > 1e-30f && zero == 0.0f;  // below, the scale's inverse would overflow
    const float gain = usable ? static_cast<float>(limit) / most : 0.0f;
    if (usable)
        for (int k = 0; k < n; ++k) y[k] = static_cast<Int>(static_cast<int>(__builtin_rintf(x[k] * gain)));
    else
        for (int k = 0; k < n; ++k) y[k] = 0;
    return (usable ? most / static_cast<float>(limit) : 0.0f) + zero;
}

}  // namespace

float to_int16(const float* x, int n, int limit, int16_t* y) noexcept {
    if (n % 2 != 0) y[n] = 0;
    return to_integers(x, n, limit, y);
}

float to_bytes(const float* x, int n, int8_t* y) noexcept {
    for (int k = n; k % 4 != 0; ++k) y[k] = 0;
    return to_integers(x, n, 127, y);
}

}  // namespace BEINGH0_ISA
}  // namespace beingh0
