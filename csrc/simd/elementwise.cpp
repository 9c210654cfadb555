// Activations and normalisations between convolutions.
#include <math.h>

#include "vec.hpp"

namespace beingh0 {
namespace BEINGH0_ISA {

void activate(const float* x, float* y, int rows, int channels, ptrdiff_t stride, Activation kind) noexcept {
    for (int r = 0; r < rows; ++r, x += stride, y += stride) {
        switch (kind) {
            case Activation::relu:
                for (int c = 0; c < channels; ++c) y[c] = x[c] < 0.0f ? 0.0f : x[c];
                break;
            case Activation::silu:
                for (int c = 0; c < channels; ++c) y[c] = x[c] / (1.0f + expf(-x[c]));
                break;
            case Activation::gelu:
                for (int c = 0; c < channels; ++c) y[c] = 0.5f * x[c] * (1.0f + erff(x[c] * 0.70710678f));
                break;
        }
    }
}

void affine(const float* x, float* y, int rows, int channels, ptrdiff_t stride, const float* scale,
            const float* shift) noexcept {
    for (int r = 0; r < rows; ++r, x += stride, y += stride)
        for (int c = 0; c < channels; ++c) y[c] = x[c] * scale[c] + shift[c];
}

void normalise(const float* x, float* y, int rows, int channels, ptrdiff_t stride, const float* scale,
               const float* shift, float eps) noexcept {
    double sum = 0.0, square = 0.0;
    for (int r = 0; r < rows; ++r)
        for (int c = 0; c < channels; ++c) sum += x[r * stride + c];
    const double mean = sum / (static_cast<double>(rows) * channels);
    for (int r = 0; r < rows; ++r)
        for (int c = 0; c < channels; ++c) {
            const double d = x[r * stride + c] - mean;
            square += d * d;
        }
    const double gain = 1.0 / sqrt(square / (static_cast<double>(rows) * channels) + eps);
    for (int r = 0; r < rows; ++r)
        for (int c = 0; c < channels; ++c)
            y[r * stride + c] = static_cast<float>((x[r * stride + c] - mean) * gain) * scale[c] + shift[c];
}

void sum_rows(const float* const* rows, int count, int channels, float* y) noexcept {
    for (int c = 0; c < channels; ++c) y[c] = rows[0][c];
    for (int i = 1; i < count; ++i)
        for (int c = 0; c < channels; ++c) y[c] += rows[i][c];
}

}  // namespace BEINGH0_ISA
}  // namespace beingh0
