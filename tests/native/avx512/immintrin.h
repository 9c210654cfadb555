// AVX-512 instructions out of AVX2 ones, by SIMDe (https://github.com/simd-everywhere/simde, MIT): stands before the
// compiler's own immintrin.h, so that csrc/simd is compiled as it is. BEINGH0_EMULATE_AVX512 is 1 for F and BW, 2 for
// VNNI and BF16 as well. See check_avx512.sh.
#pragma once
#include_next <immintrin.h>
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>

// What version 0.7.4 calls otherwise or lacks.
#undef _mm512_madd_epi16
#define _mm512_madd_epi16 simde_mm512_madd_epi16
#define _mm512_maskz_sqrt_ps(mask, x) simde_mm512_sqrt_ps(x)
#define _mm512_maskz_sqrt_pd(mask, x) simde_mm512_sqrt_pd(x)

#define __AVX512F__ 1
#define __AVX512BW__ 1
#if BEINGH0_EMULATE_AVX512 > 1
#define __AVX512VNNI__ 1
#define __AVX512BF16__ 1
#endif
