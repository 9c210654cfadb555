// Vectors of the instruction set this file is compiled for, as the compiler's own vector types (GCC and Clang), and the
// few operations on pairs of 16-bit numbers that have no spelling in those.
#pragma once

#include "../simd.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#ifndef BEINGH0_ISA
#error "compile with -DBEINGH0_ISA=<namespace>"
#endif

namespace beingh0 {
namespace BEINGH0_ISA {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
constexpr int kRows = 8;
#elif defined(__AVX__)
constexpr int kLanes = 8;
constexpr int kRows = 6;
#elif defined(__aarch64__)
constexpr int kLanes = 4;
constexpr int kRows = 8;
#else
constexpr int kLanes = 4;
constexpr int kRows = 4;
#endif
constexpr int kPanel = kLanes;

#define BEINGH0_INLINE inline __attribute__((always_inline))

typedef float Vec __attribute__((vector_size(kLanes * sizeof(float)), aligned(sizeof(float)), may_alias));
typedef int32_t IntVec __attribute__((vector_size(kLanes * sizeof(float)), aligned(1), may_alias));
typedef uint32_t BitVec __attribute__((vector_size(kLanes * sizeof(float)), aligned(1), may_alias));
typedef int16_t ShortVec __attribute__((vector_size(kLanes * sizeof(float)), aligned(1), may_alias));  // pairs
typedef int8_t ByteVec __attribute__((vector_size(kLanes * sizeof(int16_t)), aligned(1), may_alias));  // pairs

BEINGH0_INLINE Vec load(const float* p) { return *reinterpret_cast<const Vec*>(p); }
BEINGH0_INLINE void store(float* p, Vec v) { *reinterpret_cast<Vec*>(p) = v; }
BEINGH0_INLINE Vec splat(float x) { return x - Vec{}; }

BEINGH0_INLINE Vec root(Vec x) {
#if defined(__AVX512F__)
    return (Vec)_mm512_maskz_sqrt_ps((__mmask16)-1, (__m512)x);  // the plain one warns in GCC 12
#elif defined(__AVX__)
    return (Vec)_mm256_sqrt_ps((__m256)x);
#elif defined(__SSE__)
    return (Vec)_mm_sqrt_ps((__m128)x);
#elif defined(__aarch64__)
    return (Vec)vsqrtq_f32((float32x4_t)x);
#else
    for (int lane = 0; lane < kLanes; ++lane) x[lane] = __builtin_sqrtf(x[lane]);
    return x;
#endif
}

// Nearest integer, ties to even; beyond 2^22 within one.
BEINGH0_INLINE Vec nearest(Vec x) {
    constexpr float kShift = 12582912.0f;  // 1.5 * 2^23
    return (x + kShift) - kShift;
}

// sum[i] + a[2i] b[2i] + a[2i+1] b[2i+1]
BEINGH0_INLINE IntVec add_products(IntVec sum, ShortVec a, ShortVec b) {
#if defined(__AVX512VNNI__)
    return (IntVec)_mm512_dpwssd_epi32((__m512i)sum, (__m512i)a, (__m512i)b);
#elif defined(__AVX512BW__)
    return sum + (IntVec)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
    return sum + (IntVec)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
    return sum + (IntVec)_mm_madd_epi16((__m128i)a, (__m128i)b);
#elif defined(__aarch64__)
    const int16x8_t u = (int16x8_t)a, v = (int16x8_t)b;
    return sum + (IntVec)vpaddq_s32(vmull_s16(vget_low_s16(u), vget_low_s16(v)), vmull_high_s16(u, v));
#else
    for (int i = 0; i < kLanes; ++i) sum[i] += a[2 * i] * b[2 * i] + a[2 * i + 1] * b[2 * i + 1];
    return sum;
#endif
}

// One instruction where GCC 12 makes four or five of a convertvector.
BEINGH0_INLINE ShortVec widen(const int8_t* p) {
#if defined(__AVX512BW__)
    return (ShortVec)_mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#elif defined(__AVX2__)
    return (ShortVec)_mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#elif defined(__SSE4_1__)
    return (ShortVec)_mm_cvtepi8_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
#else
    return __builtin_convertvector(*reinterpret_cast<const ByteVec*>(p), ShortVec);
#endif
}

// sum[i] + a[4i] b[4i] + .. + a[4i+3] b[4i+3], with a from 0 to 127 and b from -127 to 127.
BEINGH0_INLINE IntVec add_quads(IntVec sum, IntVec a, IntVec b) {
#if defined(__AVX512VNNI__)
    return (IntVec)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)a, (__m512i)b);
#elif defined(__AVX512BW__)
    return sum + (IntVec)_mm512_madd_epi16(_mm512_maddubs_epi16((__m512i)a, (__m512i)b), _mm512_set1_epi16(1));
#elif defined(__AVX2__)
    return sum + (IntVec)_mm256_madd_epi16(_mm256_maddubs_epi16((__m256i)a, (__m256i)b), _mm256_set1_epi16(1));
#elif defined(__SSSE3__)
    return sum + (IntVec)_mm_madd_epi16(_mm_maddubs_epi16((__m128i)a, (__m128i)b), _mm_set1_epi16(1));
#elif defined(__ARM_FEATURE_DOTPROD)
    return (IntVec)vdotq_s32((int32x4_t)sum, (int8x16_t)a, (int8x16_t)b);
#elif defined(__aarch64__)
    const int8x16_t u = (int8x16_t)a, v = (int8x16_t)b;
    return (IntVec)vpadalq_s16((int32x4_t)sum,
                               vpaddq_s16(vmull_s8(vget_low_s8(u), vget_low_s8(v)), vmull_high_s8(u, v)));
#else
    typedef int8_t Bytes __attribute__((vector_size(kLanes * sizeof(float))));
    const Bytes u = (Bytes)a, v = (Bytes)b;
    for (int i = 0; i < 4 * kLanes; ++i) sum[i / 4] += u[i] * v[i];
    return sum;
#endif
}

BEINGH0_INLINE IntVec splat_int(const void* p) {
    int32_t value;
    __builtin_memcpy(&value, p, sizeof value);
    return value - IntVec{};
}

// The same pair in every lane.
BEINGH0_INLINE ShortVec splat_pair(const void* p) { return (ShortVec)splat_int(p); }

void gemm_f32(const Gemm&) noexcept;
void gemm_bf16(const Gemm&) noexcept;
void gemm_int8(const Gemm&) noexcept;
void gemm_int8_bytes(const Gemm&) noexcept;
void chain(const Chain&) noexcept;
void mesh_f32(const Mesh&) noexcept;
void mesh_bf16(const Mesh&) noexcept;
void mesh_int8(const Mesh&) noexcept;
void to_bf16(const float*, int, uint16_t*) noexcept;
float to_int16(const float*, int, int, int16_t*) noexcept;
float to_bytes(const float*, int, int8_t*) noexcept;
void activate(const float*, float*, int, int, ptrdiff_t, Activation) noexcept;
void affine(const float*, float*, int, int, ptrdiff_t, const float*, const float*) noexcept;
void normalise(const float*, float*, int, int, ptrdiff_t, const float*, const float*, float) noexcept;
void axis_angle_to_matrix(const float*, int64_t, float*) noexcept;
void rot6d_to_matrix(const float*, int64_t, bool, float*) noexcept;
void sum_rows(const float* const*, int, int, float*) noexcept;

}  // namespace BEINGH0_ISA
}  // namespace beingh0
