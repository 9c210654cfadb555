#include "simd.hpp"

#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

namespace beingh0 {

#if defined(__x86_64__)
namespace sse42 { extern const Simd table; }
namespace avx2 { extern const Simd table; }
namespace avx512 { extern const Simd table; }
#elif defined(__aarch64__)
namespace neon { extern const Simd table; }
#else
namespace generic { extern const Simd table; }
#endif

namespace {

struct Choice {
    const Simd* tables[3];
    const char* names[3];
    int count = 0;

    void add(const Simd& table) {
        tables[count] = &table;
        names[count++] = table.name;
    }

    Choice() {
#if defined(__x86_64__)
        __builtin_cpu_init();
        if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
            add(avx512::table);
        if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) add(avx2::table);
        add(sse42::table);
#elif defined(__aarch64__)
        add(neon::table);
#else
        add(generic::table);
#endif
    }
};

const Choice& choice() {
    static const Choice chosen;
    return chosen;
}

const Simd& pick() {
    const Choice& c = choice();
    const char* wanted = std::getenv("BEINGH0_ISA");
    if (wanted == nullptr || *wanted == '\0') return *c.tables[0];
    std::string known;
    for (int i = 0; i < c.count; ++i) {
        if (std::strcmp(wanted, c.names[i]) == 0) return *c.tables[i];
        known += (i ? ", " : "") + std::string(c.names[i]);
    }
    throw std::invalid_argument("BEINGH0_ISA: this machine runs " + known + "; got " + wanted);
}

}  // namespace

const Simd& simd() {
    static const Simd& table = pick();
    return table;
}

const char* const* available_isas(int& count) noexcept {
    count = choice().count;
    return choice().names;
}

}  // namespace beingh0
