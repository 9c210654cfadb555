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

// Lanes to which `step` was applied: in kChains chains that wait on nothing of each other.
template <typename T, typename Step>
double chains(int steps, const Step& step) {
    T s[kChains];  // all different, or the compiler would keep one
    for (int k = 0; k < kChains; ++k)
        for (int lane = 0; lane < kLanes; ++lane) s[k][lane] = k;
    for (int i = 0; i < steps; ++i)
        for (int k = 0; k < kChains; ++k) s[k] = step(s[k]);
    for (const T& x : s) sink = sink + static_cast<float>(x[0]);
    return static_cast<double>(steps) * kChains * kLanes;
}

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
    const Vec a = Vec{} + 0.999f, b = Vec{} + 1.0001f;
    return 2 * chains<Vec>(steps, [=](Vec s) { return s * a + b; });
}

// The same of pairs of 16-bit integers; 0 where there is no instruction for them.
double probe_pairs([[maybe_unused]] int steps) {
#if defined(__AVX512VNNI__)
    const Int u = Int{} + 0x00030003, v = Int{} + 0x00020002;
    return 4 * chains<Int>(steps, [=](Int s) { return (Int)_mm512_dpwssd_epi32((__m512i)s, (__m512i)u, (__m512i)v); });
#elif defined(__AVX2__)
    const Int v = Int{} + 0x00020002;
    return 4 * chains<Int>(steps, [=](Int s) { return s + (Int)_mm256_madd_epi16((__m256i)s, (__m256i)v); });
#else
    return 0;
#endif
}

// The same of four 8-bit integers each.
double probe_quads([[maybe_unused]] int steps) {
#if defined(__AVX512VNNI__)
    const Int u = Int{} + 0x03030303, v = Int{} + 0x02020202;
    return 8 * chains<Int>(steps, [=](Int s) { return (Int)_mm512_dpbusd_epi32((__m512i)s, (__m512i)u, (__m512i)v); });
#elif defined(__AVX2__)
    const Int v = Int{} + 0x02020202, one = Int{} + 0x00010001;
    return 8 * chains<Int>(steps, [=](Int s) {
        return s + (Int)_mm256_madd_epi16(_mm256_maddubs_epi16((__m256i)s, (__m256i)v), (__m256i)one);
    });
#else
    return 0;
#endif
}

}  // extern "C"
