#include "kernels.hpp"

namespace beingh0 {

PackedWeights::PackedWeights(const float* w, int taps_, int inputs, int outputs_, std::ptrdiff_t tap_stride,
                             std::ptrdiff_t in_stride, std::ptrdiff_t out_stride, const float* bias_)
    : taps(taps_), depth(inputs), outputs(outputs_) {
    const int panel = simd().panel;
    panels = (outputs + panel - 1) / panel;
    weights.resize(static_cast<std::size_t>(panels) * taps * depth * panel);
    bias.resize(static_cast<std::size_t>(panels) * panel);
    float* to = weights.data();
    for (int p = 0; p < panels; ++p)
        for (int tap = 0; tap < taps; ++tap)
            for (int i = 0; i < depth; ++i)
                for (int column = 0; column < panel; ++column, ++to) {
                    const int o = p * panel + column;
                    if (o < outputs) *to = w[tap * tap_stride + i * in_stride + o * out_stride];
                }
    if (bias_ != nullptr) std::memcpy(bias.data(), bias_, sizeof(float) * static_cast<std::size_t>(outputs));
}

void PackedWeights::multiply(const float* const* rows, int m, float* y, std::ptrdiff_t y_stride, bool accumulate,
                             bool relu, const float* bias_instead) const noexcept {
    simd().gemm({rows, m, taps, depth, weights.data(), panels, bias_instead ? bias_instead : bias.data(), y, y_stride,
                 accumulate, relu});
}

}  // namespace beingh0
