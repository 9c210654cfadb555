// Vectors of the instruction set this file is compiled for, as the compiler's own vector types (GCC and Clang).
#pragma once

#include "../simd.hpp"

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
constexpr int kPanel = 2 * kLanes;  // two vectors wide: each broadcast value is used twice

typedef float Vec __attribute__((vector_size(kLanes * sizeof(float)), aligned(sizeof(float)), may_alias));

inline __attribute__((always_inline)) Vec load(const float* p) { return *reinterpret_cast<const Vec*>(p); }
inline __attribute__((always_inline)) void store(float* p, Vec v) { *reinterpret_cast<Vec*>(p) = v; }

void gemm(const Gemm&) noexcept;
void skin(const Skin&) noexcept;
void activate(const float*, float*, int, int, ptrdiff_t, Activation) noexcept;
void affine(const float*, float*, int, int, ptrdiff_t, const float*, const float*) noexcept;
void normalise(const float*, float*, int, int, ptrdiff_t, const float*, const float*, float) noexcept;
void axis_angle_to_matrix(const float*, int64_t, float*) noexcept;
void sum_rows(const float* const*, int, int, float*) noexcept;

}  // namespace BEINGH0_ISA
}  // namespace beingh0
