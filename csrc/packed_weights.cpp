#include "kernels.hpp"

#include <algorithm>
#include <climits>
#include <cmath>
#include <cstdlib>
#include <new>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace beingh0 {
namespace {

constexpr int kInt8Most = 127;

// value / scale as integers. Their errors are kept from adding up: where the sum of a row's is more than half a step,
// the values nearest to the middle between two integers go to the other one. Inputs behind a ReLU have a mean, which a
// sum of errors would turn into a constant shift of the output.
void round_together(const float* value, int count, float scale, std::int8_t* out,
                    std::vector<std::pair<float, int>>& by_error) {
    by_error.clear();
    double sum = 0.0;
    for (int i = 0; i < count; ++i) {
        const float exact = scale > 0.0f ? std::min(std::max(value[i] / scale, -127.0f), 127.0f) : 0.0f;
        out[i] = static_cast<std::int8_t>(std::lrint(exact));
        sum += out[i] - exact;
        by_error.emplace_back(out[i] - exact, i);
    }
    const int step = sum > 0.0 ? -1 : 1;
    const int moved = std::fabs(sum) < count ? static_cast<int>(std::lrint(std::fabs(sum))) : 0;
    const auto worst = [&](const auto& a, const auto& b) { return step * a.first < step * b.first; };
    std::partial_sort(by_error.begin(), by_error.begin() + moved, by_error.end(), worst);
    for (int i = 0; i < moved; ++i) {
        std::int8_t& rounded = out[by_error[static_cast<std::size_t>(i)].second];
        if (std::abs(rounded + step) <= kInt8Most) rounded = static_cast<std::int8_t>(rounded + step);
    }
}

std::uint16_t bf16_of(float value) noexcept {  // finite; nearest, ties to even
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return static_cast<std::uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

// The second of a pair, where the pair is read as one float: the upper half that comes nearest to `value` above the
// lower half `below`. As near as bf16_of comes, and nothing need be masked away. Not less than the smallest normal
// number: below it some processors are slow.
std::uint16_t bf16_above(float value, std::uint16_t below) noexcept {
    constexpr std::uint32_t kSmallest = 0x0080u, kLargest = 0x7f7fu, kSign = 0x80000000u;
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    const std::uint32_t size = (bits & ~kSign) + 0x8000u;
    const std::uint32_t upper = size > below ? (size - below) >> 16 : 0;
    return static_cast<std::uint16_t>(std::min(std::max(upper, kSmallest), kLargest) | (bits & kSign) >> 16);
}

}  // namespace

void* allocate(std::size_t bytes) {
    constexpr std::size_t kVector = 64, kHugePage = std::size_t{2} << 20;
    const std::size_t align = bytes > kHugePage ? kHugePage : kVector;
    const std::size_t size = (bytes + align - 1) / align * align;
    void* const memory = std::aligned_alloc(align, size);
    if (memory == nullptr) throw std::bad_alloc();
#if defined(__linux__)
    if (align == kHugePage) {  // advice: it may fail
        madvise(memory, size, MADV_HUGEPAGE);
        madvise(memory, size, MADV_DONTNEED);  // small pages that an earlier owner touched would stay small
    }
#endif
    std::memset(memory, 0, bytes);
    return memory;
}

void release(void* memory) noexcept { std::free(memory); }

PackedWeights::PackedWeights(const float* w, int taps_, int inputs_, int outputs_, std::ptrdiff_t tap_stride,
                             std::ptrdiff_t in_stride, std::ptrdiff_t out_stride, const float* bias_,
                             Storage storage_, int panel, bool non_negative)
    : taps(taps_), inputs(inputs_), outputs(outputs_), storage(storage_),
      product_(storage == Storage::int8 && non_negative ? Product::int8_bytes : static_cast<Product>(storage)),
      simd_(&simd()) {
    if (panel == 0) panel = simd_->panel;
    const int step = product_ == Product::f32 ? 1 : product_ == Product::int8_bytes ? 4 : 2;
    panels = (outputs + panel - 1) / panel;
    depth_ = (inputs + step - 1) / step * step;
    const std::size_t width = static_cast<std::size_t>(panels) * panel;
    const std::size_t size = storage == Storage::f32 ? sizeof(float) : storage == Storage::bf16 ? 2 : 1;
    size_ = width * taps * depth_ * size;
    packed_.resize(size_);
    data_ = packed_.data();
    bias.resize(width);
    std::vector<std::int8_t> rounded;  // int8: [taps][outputs][inputs]
    if (storage == Storage::int8) {
        scale_.resize(width * taps);
        rounded.resize(static_cast<std::size_t>(taps) * outputs * inputs);
        std::vector<float> row(static_cast<std::size_t>(inputs));
        std::vector<std::pair<float, int>> by_error;
        for (int tap = 0; tap < taps; ++tap)
            for (int o = 0; o < outputs; ++o) {
                float most = 0.0f;
                for (int i = 0; i < inputs; ++i) {
                    row[i] = w[tap * tap_stride + i * in_stride + o * out_stride];
                    most = std::max(most, std::fabs(row[i]));
                }
                scale_[tap * width + o] = most / kInt8Most;
                round_together(row.data(), inputs, most / kInt8Most,
                               rounded.data() + (static_cast<std::size_t>(tap) * outputs + o) * inputs, by_error);
            }
    }
    std::size_t to = 0;
    for (int p = 0; p < panels; ++p)
        for (int tap = 0; tap < taps; ++tap)
            for (int first = 0; first < depth_; first += step)
                for (int column = 0; column < panel; ++column)
                    for (int i = first; i < first + step; ++i, ++to) {
                        const int o = p * panel + column;
                        if (o >= outputs || i >= inputs) continue;
                        const float value = w[tap * tap_stride + i * in_stride + o * out_stride];
                        if (storage == Storage::f32) {
                            std::memcpy(packed_.data() + to * size, &value, sizeof value);
                        } else if (storage == Storage::bf16) {
                            unsigned char* const at = packed_.data() + to * size;
                            std::uint16_t half = bf16_of(value);
                            if (i > first && !simd_->bf16_rows) {
                                std::uint16_t below;
                                std::memcpy(&below, at - sizeof below, sizeof below);
                                half = bf16_above(value, below);
                            }
                            std::memcpy(at, &half, sizeof half);
                        } else {
                            packed_[to] = static_cast<unsigned char>(
                                rounded[(static_cast<std::size_t>(tap) * outputs + o) * inputs + i]);
                        }
                    }
    if (bias_ != nullptr) std::memcpy(bias.data(), bias_, sizeof(float) * static_cast<std::size_t>(outputs));
}

void PackedWeights::move_to(unsigned char* to) noexcept {
    if (size_ == 0) return;
    std::memcpy(to, data_, size_);
    packed_ = {};
    data_ = to;
}

GemmRow PackedWeights::prepare(const float* x, std::uint16_t* half) const noexcept {
    // The sum of a tap stays within int32.
    const int limit = std::min(SHRT_MAX, INT_MAX / kInt8Most / inputs);
    switch (product_) {
        case Product::f32:
            break;
        case Product::bf16:
            if (!simd_->bf16_rows) break;
            simd_->to_bf16(x, inputs, half);
            return {half, nullptr, nullptr, 1.0f};
        case Product::int8:
            return {half, nullptr, nullptr, simd_->to_int16(x, inputs, limit, reinterpret_cast<std::int16_t*>(half))};
        case Product::int8_bytes:
            return {half, nullptr, nullptr, simd_->to_bytes(x, inputs, reinterpret_cast<std::int8_t*>(half))};
    }
    return {x, nullptr, nullptr, 1.0f};
}

void PackedWeights::multiply(const GemmRow* rows, const int* tap_start, bool accumulate, bool relu,
                             const float* bias_instead) const noexcept {
    simd_->gemm[static_cast<int>(product_)]({rows, tap_start, taps, depth_, data_, scale_.data(), panels,
                                             bias_instead ? bias_instead : bias.data(), accumulate, relu, next_,
                                             next_taps_});
}

}  // namespace beingh0
