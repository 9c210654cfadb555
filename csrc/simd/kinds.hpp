// How weights of each storage meet their inputs: what gemm.cpp and mesh.cpp share.
#pragma once

#include "vec.hpp"

namespace beingh0 {
namespace BEINGH0_ISA {
namespace {

// A step of a sum takes kStep inputs, one after the other in kParts turns.
struct F32 {
    static constexpr int kStep = 1, kParts = 1, kBytes = 4, kTile = kRows;  // bytes of a weight, rows of a tile
    typedef Vec Sum;
    static BEINGH0_INLINE Vec weight(const char* p, int) { return *reinterpret_cast<const Vec*>(p); }
    static BEINGH0_INLINE float input(const void* x, int step, int) { return static_cast<const float*>(x)[step]; }
    static BEINGH0_INLINE Vec add(Vec sum, Vec w, float x) { return sum + w * x; }
    static BEINGH0_INLINE Vec finish(Vec sum, const float*, float) { return sum; }
};

struct Int8 {
    static constexpr int kStep = 2, kParts = 1, kBytes = 1, kTile = kRows;
    typedef IntVec Sum;
    static BEINGH0_INLINE ShortVec weight(const char* p, int) { return widen(reinterpret_cast<const int8_t*>(p)); }
    static BEINGH0_INLINE ShortVec input(const void* x, int step, int) {
        return splat_pair(static_cast<const char*>(x) + 4 * static_cast<ptrdiff_t>(step));
    }
    static BEINGH0_INLINE IntVec add(IntVec sum, ShortVec w, ShortVec x) { return add_products(sum, w, x); }
    static BEINGH0_INLINE Vec finish(IntVec sum, const float* weight_scale, float scale) {
        return __builtin_convertvector(sum, Vec) * (load(weight_scale) * scale);
    }
};

struct Int8Bytes {
    static constexpr int kStep = 4, kParts = 1, kBytes = 1;
    static constexpr int kTile = kLanes == 8 ? 5 : kRows;  // products and ones take registers too
    typedef IntVec Sum;
    static BEINGH0_INLINE IntVec weight(const char* p, int) { return *reinterpret_cast<const IntVec*>(p); }
    static BEINGH0_INLINE IntVec input(const void* x, int step, int) {
        return splat_int(static_cast<const char*>(x) + 4 * static_cast<ptrdiff_t>(step));
    }
    static BEINGH0_INLINE IntVec add(IntVec sum, IntVec w, IntVec x) { return add_quads(sum, x, w); }
    static BEINGH0_INLINE Vec finish(IntVec sum, const float* weight_scale, float scale) {
        return Int8::finish(sum, weight_scale, scale);
    }
};

#if defined(__AVX512BF16__)
struct Bf16 {
    static constexpr int kStep = 2, kParts = 1, kBytes = 2, kTile = kRows;
    typedef Vec Sum;
    static BEINGH0_INLINE ShortVec weight(const char* p, int) { return *reinterpret_cast<const ShortVec*>(p); }
    static BEINGH0_INLINE ShortVec input(const void* x, int step, int) {
        return splat_pair(static_cast<const char*>(x) + 4 * static_cast<ptrdiff_t>(step));
    }
    static BEINGH0_INLINE Vec add(Vec sum, ShortVec w, ShortVec x) {
        return (Vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)w, (__m512bh)x);
    }
    static BEINGH0_INLINE Vec finish(Vec sum, const float*, float) { return sum; }
};
#else
struct Bf16 {  // the even one is the upper half of a float, the odd one with the even one below it is a float
    static constexpr int kStep = 2, kParts = 2, kBytes = 2, kTile = kRows;
    typedef Vec Sum;
    static BEINGH0_INLINE Vec weight(const char* p, int part) {
        const BitVec bits = *reinterpret_cast<const BitVec*>(p);
        return (Vec)(part == 0 ? bits << 16 : bits);
    }
    static BEINGH0_INLINE float input(const void* x, int step, int part) {
        return static_cast<const float*>(x)[2 * step + part];
    }
    static BEINGH0_INLINE Vec add(Vec sum, Vec w, float x) { return sum + w * x; }
    static BEINGH0_INLINE Vec finish(Vec sum, const float*, float) { return sum; }
};
#endif

// R rows of sums += V vectors of weights times each row's input. With one row the weights go by. With more they stay
// for all rows, one part after the other: both would not fit the registers, so the second is read again.
template <typename Kind, int R, int V, typename At>
BEINGH0_INLINE void add_step(typename Kind::Sum (&sum)[R][V], const void* const (&x)[R], int step, const At& at) {
    if constexpr (R == 1) {
        decltype(Kind::input(x[0], step, 0)) input[Kind::kParts];
        for (int part = 0; part < Kind::kParts; ++part) input[part] = Kind::input(x[0], step, part);
        for (int v = 0; v < V; ++v)
            for (int part = 0; part < Kind::kParts; ++part)
                sum[0][v] = Kind::add(sum[0][v], Kind::weight(at(v), part), input[part]);
    } else {
        for (int part = 0; part < Kind::kParts; ++part) {
            decltype(Kind::weight(at(0), 0)) weight[V];
            for (int v = 0; v < V; ++v) {
                const char* p = at(v);
                if (part != 0) __asm__("" : "+r"(p));  // the compiler would keep them
                weight[v] = Kind::weight(p, part);
            }
            for (int r = 0; r < R; ++r) {
                const auto input = Kind::input(x[r], step, part);
                for (int v = 0; v < V; ++v) sum[r][v] = Kind::add(sum[r][v], weight[v], input);
            }
        }
    }
}

}  // namespace
}  // namespace BEINGH0_ISA
}  // namespace beingh0
