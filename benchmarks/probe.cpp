// What one core of this machine can do: peak of multiply-adds, and of reading memory. A shared library, so that its
// functions take turns with what they bound.
//   c++ -O3 -march=native -funroll-loops -shared -fPIC probe.cpp -o probe.so
#include <cstddef>
#include <cstdlib>
#include <cstring>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif
typedef float Vec __attribute__((vector_size(kLanes * 4)));
constexpr int kChains = 12;

volatile float sink = 0;

}  // namespace

extern "C" {

// Aligned, written once, in huge pages where the system gives them, as the kernels' own weights.
void* probe_memory(std::size_t bytes) {
    constexpr std::size_t kHugePage = std::size_t{2} << 20;
    const std::size_t align = bytes > kHugePage ? kHugePage : 4096, size = (bytes + align - 1) / align * align;
    void* const data = std::aligned_alloc(align, size);
#if defined(__linux__)
    if (align == kHugePage) madvise(data, size, MADV_HUGEPAGE);
#endif
    std::memset(data, 0, size);
    return data;
}

// Reads `bytes`, a multiple of 1024, `times` times over; asks for what comes `ahead` bytes later unless that is 0.
void probe_read(const void* data, std::size_t bytes, int times, int ahead) {
    const Vec* const from = static_cast<const Vec*>(data);
    const std::size_t count = bytes / sizeof(Vec);
    Vec s[8] = {};
    for (int t = 0; t < times; ++t) {
        if (ahead == 0)
            for (std::size_t i = 0; i + 8 <= count; i += 8)
                for (int k = 0; k < 8; ++k) s[k] += from[i + k];
        else
            for (std::size_t i = 0; i + 8 <= count; i += 8)
                for (int k = 0; k < 8; ++k) {
                    const char* const next = reinterpret_cast<const char*>(from + i + k) + ahead;
                    if (k * sizeof(Vec) % 64 == 0) __builtin_prefetch(next, 0, 2);
                    s[k] += from[i + k];
                }
    }
    for (const Vec& x : s) sink = sink + x[0];
}

// Flops of float32 multiply-adds that were done.
double probe_fma(int steps) {
    Vec s[kChains];  // all different, or the compiler would keep one
    for (int k = 0; k < kChains; ++k) s[k] = Vec{} + static_cast<float>(k);
    const Vec a = Vec{} + 0.999f, b = Vec{} + 1.0001f;
    for (int i = 0; i < steps; ++i)
        for (int k = 0; k < kChains; ++k) s[k] = s[k] * a + b;
    for (const Vec& x : s) sink = sink + x[0];
    return 2.0 * steps * kChains * kLanes;
}

// The same of pairs of 16-bit integers; 0 where there is no instruction for them.
double probe_pairs([[maybe_unused]] int steps) {
#if defined(__AVX512VNNI__)
    __m512i s[kChains];
    for (int k = 0; k < kChains; ++k) s[k] = _mm512_set1_epi32(k);
    const __m512i u = _mm512_set1_epi16(3), v = _mm512_set1_epi16(2);
    for (int i = 0; i < steps; ++i)
        for (int k = 0; k < kChains; ++k) s[k] = _mm512_dpwssd_epi32(s[k], u, v);
    for (const __m512i& x : s) sink = sink + static_cast<float>(_mm512_cvtsi512_si32(x));
    return 2.0 * steps * kChains * 32;
#else
    return 0;
#endif
}

}  // extern "C"
