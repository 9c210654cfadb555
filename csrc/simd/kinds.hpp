// How weights of each storage meet their inputs: what gemm.cpp and mesh.cpp share.
#pragma once

#include "vec.hpp"

namespace beingh0 {
namespace BEINGH0_ISA {
namespace {

struct F32 {
    static constexpr int kStep = 1, kBytes = 4;  // inputs taken at once, bytes of a weight
    static constexpr int kTile = kRows;          // rows whose sums are held in registers
    typedef Vec Sum;
    static BEINGH0_INLINE Vec weight(const char* p) { return *reinterpret_cast<const Vec*>(p); }
    static BEINGH0_INLINE float input(const void* x, int step) { return static_cast<const float*>(x)[step]; }
    static BEINGH0_INLINE Vec add(Vec sum, Vec w, float x) { return sum + w * x; }
    static BEINGH0_INLINE Vec finish(Vec sum, const float*, float) { return sum; }
};

struct Int8 {
    static constexpr int kStep = 2, kBytes = 1, kTile = kRows;
    typedef IntVec Sum;
    static BEINGH0_INLINE ShortVec weight(const char* p) { return widen(reinterpret_cast<const int8_t*>(p)); }
    static BEINGH0_INLINE ShortVec input(const void* x, int step) {
        return splat_pair(static_cast<const char*>(x) + 4 * static_cast<ptrdiff_t>(step));
    }
    static BEINGH0_INLINE IntVec add(IntVec sum, ShortVec w, ShortVec x) { return add_products(sum, w, x); }
    static BEINGH0_INLINE Vec finish(IntVec sum, const float* weight_scale, float scale) {
        return __builtin_convertvector(sum, Vec) * (load(weight_scale) * scale);
    }
};

#if defined(__AVX512BF16__)
struct Bf16 {
    static constexpr int kStep = 2, kBytes = 2, kTile = kRows;
    typedef Vec Sum;
    static BEINGH0_INLINE ShortVec weight(const char* p) { return *reinterpret_cast<const ShortVec*>(p); }
    static BEINGH0_INLINE ShortVec input(const void* x, int step) {
        return splat_pair(static_cast<const char*>(x) + 4 * static_cast<ptrdiff_t>(step));
    }
    static BEINGH0_INLINE Vec add(Vec sum, ShortVec w, ShortVec x) {
        return (Vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)w, (__m512bh)x);
    }
    static BEINGH0_INLINE Vec finish(Vec sum, const float*, float) { return sum; }
};
#else
struct Bf16 {  // a bf16 is the upper half of a float
    static constexpr int kStep = 2, kBytes = 2;
    static constexpr int kTile = kLanes == 8 ? 5 : kRows;  // weights take four of 16 registers: a sixth row spills
    typedef Vec Sum;
    struct Pair {
        Vec even, odd;
    };
    struct Input {
        float even, odd;
    };
    static BEINGH0_INLINE Pair weight(const char* p) {
        const BitVec bits = *reinterpret_cast<const BitVec*>(p);
        return {(Vec)(bits << 16), (Vec)(bits & 0xffff0000u)};
    }
    static BEINGH0_INLINE Input input(const void* x, int step) {
        const float* const pair = static_cast<const float*>(x) + 2 * step;
        return {pair[0], pair[1]};
    }
    static BEINGH0_INLINE Vec add(Vec sum, const Pair& w, const Input& x) {
        return sum + w.even * x.even + w.odd * x.odd;
    }
    static BEINGH0_INLINE Vec finish(Vec sum, const float*, float) { return sum; }
};
#endif

}  // namespace
}  // namespace BEINGH0_ISA
}  // namespace beingh0
