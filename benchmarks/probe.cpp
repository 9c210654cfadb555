// What one core of this machine can do: peak of multiply-adds and of reading memory. Prints JSON.
//   c++ -O3 -march=native -funroll-loops probe.cpp -o probe && ./probe 650000 1300000 68000000
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#if defined(__AVX512F__)
#include <immintrin.h>
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

double now() {  // seconds this thread has computed: others may be using the core
    timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

template <typename Work>
double best(int repeats, Work work) {
    double shortest = 1e9;
    for (int i = 0; i < repeats; ++i) {
        const double start = now();
        work();
        const double took = now() - start;
        shortest = took < shortest ? took : shortest;
    }
    return shortest;
}

}  // namespace

int main(int argc, char** argv) {
    volatile float sink = 0;
    constexpr int kSteps = 20000, kChains = 12;
    Vec sums[kChains] = {};
    const Vec a = Vec{} + 0.999f, b = Vec{} + 1.0001f;
    const double fma = best(200, [&] {
        Vec s[kChains];
        for (int k = 0; k < kChains; ++k) s[k] = sums[k];
        for (int i = 0; i < kSteps; ++i)
            for (int k = 0; k < kChains; ++k) s[k] = s[k] * a + b;
        for (int k = 0; k < kChains; ++k) sums[k] = s[k] * 1e-30f;
    });
    for (const Vec& s : sums) sink = sink + s[0];
    std::printf("{\"fma_gflops\": %.1f", 2.0 * kSteps * kChains * kLanes / fma / 1e9);
#if defined(__AVX512VNNI__)
    __m512i dots[kChains] = {};
    const __m512i u = _mm512_set1_epi16(3), v = _mm512_set1_epi16(2);
    const double dot = best(200, [&] {
        __m512i s[kChains];
        for (int k = 0; k < kChains; ++k) s[k] = dots[k];
        for (int i = 0; i < kSteps; ++i) {
            for (int k = 0; k < kChains; ++k) s[k] = _mm512_dpwssd_epi32(s[k], u, v);
            asm volatile("" : "+v"(s[0]));
        }
        for (int k = 0; k < kChains; ++k) dots[k] = s[k];
    });
    for (const __m512i& s : dots) sink = sink + static_cast<float>(_mm512_cvtsi512_si32(s));
    std::printf(", \"pair_gflops\": %.1f", 2.0 * kSteps * kChains * 32 / dot / 1e9);
#endif
    std::printf(", \"read_gb_s\": {");
    for (int arg = 1; arg < argc; ++arg) {
        const std::size_t bytes = std::strtoull(argv[arg], nullptr, 10) / 4096 * 4096, count = bytes / sizeof(Vec);
        Vec* const data = static_cast<Vec*>(std::aligned_alloc(4096, bytes));
        for (std::size_t i = 0; i < count; ++i) data[i] = Vec{} + 1.0f;
        const double took = best(bytes > 10000000 ? 40 : 400, [&] {
            Vec s[8] = {};
            for (std::size_t i = 0; i + 8 <= count; i += 8)
                for (int k = 0; k < 8; ++k) s[k] += data[i + k];
            for (const Vec& x : s) sink = sink + x[0];
        });
        std::printf("%s\"%s\": %.2f", arg > 1 ? ", " : "", argv[arg], static_cast<double>(bytes) / took / 1e9);
        std::free(data);
    }
    std::printf("}}\n");
}
