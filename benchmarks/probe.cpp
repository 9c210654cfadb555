// What one core of this machine can do: peak of multiply-adds, and of reading memory. A shared library, so that its
// functions take turns with what they bound.
//   c++ -O3 -march=native -funroll-loops -shared -fPIC probe.cpp -o probe.so
#include <cstddef>
#include <cstdlib>
#include <cstring>
#if defined(__AVX2__)
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
typedef int Int __attribute__((vector_size(kLanes * 4)));
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

// Reads `bytes`, a multiple of 1024, `times` times over, at `streams` places side by side; asks for what comes `ahead`
// bytes later unless that is 0.
void probe_read(const void* data, std::size_t bytes, int times, int ahead, int streams) {
    const std::size_t count = bytes / sizeof(Vec) / streams;
    Vec s[8] = {};
    for (int t = 0; t < times; ++t)
        for (std::size_t i = 0; i + 8 <= count; i += 8)
            for (int stream = 0; stream < streams; ++stream) {
                const Vec* const from = static_cast<const Vec*>(data) + stream * count + i;
                for (int k = 0; k < 8; ++k) {
                    if (ahead != 0 && k * sizeof(Vec) % 64 == 0)
                        __builtin_prefetch(reinterpret_cast<const char*>(from + k) + ahead, 0, 2);
                    s[k] += from[k];
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
#if defined(__AVX512VNNI__) || defined(__AVX2__)
    Int s[kChains];
    for (int k = 0; k < kChains; ++k) s[k] = Int{} + k;
    [[maybe_unused]] const Int u = Int{} + 0x00030003, v = Int{} + 0x00020002;
    for (int i = 0; i < steps; ++i)
        for (int k = 0; k < kChains; ++k)
#if defined(__AVX512VNNI__)
            s[k] = (Int)_mm512_dpwssd_epi32((__m512i)s[k], (__m512i)u, (__m512i)v);
#else
            s[k] += (Int)_mm256_madd_epi16((__m256i)s[k], (__m256i)v);
#endif
    for (const Int& x : s) sink = sink + static_cast<float>(x[0]);
    return 4.0 * steps * kChains * kLanes;
#else
    return 0;
#endif
}

// The same of four 8-bit integers each.
double probe_quads([[maybe_unused]] int steps) {
#if defined(__AVX512VNNI__) || defined(__AVX2__)
    Int s[kChains];
    for (int k = 0; k < kChains; ++k) s[k] = Int{} + k;
    [[maybe_unused]] const Int u = Int{} + 0x03030303, v = Int{} + 0x02020202, one = Int{} + 0x00010001;
    for (int i = 0; i < steps; ++i)
        for (int k = 0; k < kChains; ++k)
#if defined(__AVX512VNNI__)
            s[k] = (Int)_mm512_dpbusd_epi32((__m512i)s[k], (__m512i)u, (__m512i)v);
#else
            s[k] += (Int)_mm256_madd_epi16(_mm256_maddubs_epi16((__m256i)s[k], (__m256i)v), (__m256i)one);
#endif
    for (const Int& x : s) sink = sink + static_cast<float>(x[0]);
    return 8.0 * steps * kChains * kLanes;
#else
    return 0;
#endif
}

}  // extern "C"
