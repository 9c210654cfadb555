#include "vec.hpp"

namespace beingh0 {
namespace BEINGH0_ISA {

void skin(const Skin& s) noexcept {
    constexpr int kBlock = 16;
    for (int block = 0; block * kBlock < s.vertices; ++block) {
        float moved[3][kBlock];
        for (int lane = 0; lane < kBlock; lane += kLanes) {
            Vec m[12] = {};
            for (int e = s.block_start[block]; e < s.block_start[block + 1]; ++e) {
                const Vec weight = load(s.block_weight + e * kBlock + lane);
                const float* const a = s.transforms + 12 * s.block_joint[e];
                for (int i = 0; i < 12; ++i) m[i] += weight * a[i];
            }
            const float* const p = s.rest + block * kBlock + lane;
            const Vec x = load(p), y = load(p + s.stride), z = load(p + 2 * s.stride);
            for (int i = 0; i < 3; ++i)
                store(moved[i] + lane, m[4 * i] * x + m[4 * i + 1] * y + m[4 * i + 2] * z + m[4 * i + 3] + s.offset[i]);
        }
        const int first = block * kBlock;
        const int count = s.vertices - first < kBlock ? s.vertices - first : kBlock;
        for (int v = 0; v < count; ++v)
            for (int i = 0; i < 3; ++i) s.out[3 * (first + v) + i] = moved[i][v];
    }
}

}  // namespace BEINGH0_ISA
}  // namespace beingh0
