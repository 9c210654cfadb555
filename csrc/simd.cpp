#include "simd.hpp"

#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#if defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace beingh0 {

#if defined(__x86_64__)
namespace sse42 { extern const Simd table; }
namespace avx2 { extern const Simd table; }
namespace avx512 { extern const Simd table; }
namespace avx512bf16 { extern const Simd table; }
#elif defined(__aarch64__)
namespace neon { extern const Simd table; }
namespace neondot { extern const Simd table; }
#else
namespace generic { extern const Simd table; }
#endif

namespace {

struct Choice {
    const Simd* tables[4];
    const char* names[4];
    int count = 0;

    void add(const Simd& table) {
        tables[count] = &table;
        names[count++] = table.name;
    }

    Choice() {
#if defined(__x86_64__)
        __builtin_cpu_init();
#if defined(BEINGH0_EMULATE_AVX512)  // tests/native/check_avx512.sh
        add(avx512bf16::table);
        add(avx512::table);
#else
        if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
            if (__builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16")) add(avx512bf16::table);
            add(avx512::table);
        }
#endif
        if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) add(avx2::table);
        add(sse42::table);
#elif defined(__aarch64__)
        if (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) add(neondot::table);
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

const Simd& pick(const char* wanted, const char* who) {
    const Choice& c = choice();
    if (wanted == nullptr || *wanted == '\0') return *c.tables[0];
    std::string known;
    for (int i = 0; i < c.count; ++i) {
        if (std::strcmp(wanted, c.names[i]) == 0) return *c.tables[i];
        known += (i ? ", " : "") + std::string(c.names[i]);
    }
    throw std::invalid_argument(std::string(who) + ": this machine runs " + known + "; got " + wanted);
}

const Simd*& current() {
    static const Simd* table = &pick(std::getenv("BEINGH0_ISA"), "BEINGH0_ISA");
    return table;
}

}  // namespace

const Simd& simd() { return *current(); }

void use_isa(const char* name) { current() = &pick(name, "isa"); }

const char* const* available_isas(int& count) noexcept {
    count = choice().count;
    return choice().names;
}

}  // namespace beingh0
