// Stacks of 1-D convolutions. A convolution is a matrix product whose input rows are pointers into the activations, so
// padding, stride, dilation and upsampling cost nothing, and weights are streamed once for all blocks of a batch.
#include <algorithm>

#include "kernels.hpp"

namespace beingh0 {

ConvNet::ConvNet(int channels, int frames, Storage residual_storage)
    : simd_(&simd()), storage_(residual_storage), channels_in_(channels), frames_in_(frames), channels_(channels),
      frames_(frames), max_channels_(channels), max_frames_(frames) {}

ConvNet::Conv ConvNet::make_conv(const float* w, const float* bias, int outputs, int kernel, int stride, int padding,
                                 int dilation, bool upsample, bool relu, Storage storage,
                                 bool non_negative) const {
    Conv conv;
    conv.stride = stride;
    conv.upsample = upsample;
    conv.relu = relu;
    conv.frames_in = frames_ * (upsample ? 2 : 1);
    conv.frames_out = (conv.frames_in + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1;
    // A tap that falls outside the sequence for every frame (dilation 9 over 4 frames) is dropped with its weights. The
    // one that reaches most frames comes first: it sets all rows, so those it does not reach cost it a row of zeros.
    std::vector<std::pair<int, int>> live;  // frames not reached, tap
    for (int tap = 0; tap < kernel; ++tap) {
        int missed = 0;
        for (int t = 0; t < conv.frames_out; ++t) {
            const int from = tap * dilation - padding + t * stride;
            missed += from < 0 || from >= conv.frames_in;
        }
        if (missed < conv.frames_out) live.emplace_back(missed, tap);
    }
    if (live.empty()) live.emplace_back(0, 0);
    std::swap(live.front(), *std::min_element(live.begin(), live.end()));
    const int inputs = channels_;
    std::vector<float> kept(live.size() * static_cast<std::size_t>(outputs) * inputs);
    std::size_t to = 0;
    for (const auto& [missed, tap] : live) {
        conv.offsets.push_back(tap * dilation - padding);
        for (int o = 0; o < outputs; ++o)
            for (int i = 0; i < inputs; ++i) kept[to++] = w[(static_cast<std::size_t>(o) * inputs + i) * kernel + tap];
    }
    conv.weights = PackedWeights(kept.data(), static_cast<int>(live.size()), inputs, outputs,
                                 static_cast<std::ptrdiff_t>(outputs) * inputs, 1, inputs, bias, storage, 0, non_negative);
    return conv;
}

void ConvNet::add_conv(const float* w, const float* bias, int outputs, int kernel, int stride, int padding,
                       bool upsample, bool relu, Storage storage) {
    Layer layer;
    layer.conv = make_conv(w, bias, outputs, kernel, stride, padding, 1, upsample, relu, storage);
    channels_ = outputs;
    frames_ = layer.conv.frames_out;
    max_channels_ = std::max(max_channels_, channels_);
    max_frames_ = std::max(max_frames_, frames_);
    max_taps_ = std::max(max_taps_, layer.conv.weights.taps);
    layers_.push_back(std::move(layer));
}

void ConvNet::add_residual(const float* w1, const float* bias1, const float* w2, const float* bias2, int dilation,
                           Activation activation, Norm norm, Affine norm1, Affine norm2) {
    Layer layer;
    layer.residual = true;
    const bool non_negative = activation == Activation::relu;
    layer.conv = make_conv(w1, bias1, channels_, 3, 1, dilation, dilation, false, false, storage_, non_negative);
    layer.conv2 = make_conv(w2, bias2, channels_, 1, 1, 0, 1, false, false, storage_, non_negative);
    layer.activation = activation;
    layer.norm = norm;
    if (norm != Norm::none) {
        const Affine affine[2] = {norm1, norm2};
        const std::size_t bytes = sizeof(float) * static_cast<std::size_t>(channels_);
        for (int i = 0; i < 2; ++i) {
            layer.scale[i].resize(static_cast<std::size_t>(channels_));
            layer.shift[i].resize(static_cast<std::size_t>(channels_));
            std::memcpy(layer.scale[i].data(), affine[i].scale, bytes);
            std::memcpy(layer.shift[i].data(), affine[i].shift, bytes);
        }
    }
    max_taps_ = std::max(max_taps_, layer.conv.weights.taps);
    layers_.push_back(std::move(layer));
}

void ConvNet::gather() {
    constexpr std::size_t kAlign = 64;
    const auto each = [&](const auto& act) {
        for (Layer& layer : layers_)
            for (PackedWeights* weights : {&layer.conv.weights, &layer.conv2.weights}) act(*weights);
    };
    std::size_t size = 0;
    each([&](PackedWeights& weights) { size += (weights.packed_size() + kAlign - 1) / kAlign * kAlign; });
    gathered_.resize(size);
    unsigned char* to = gathered_.data();
    each([&](PackedWeights& weights) {
        weights.move_to(to);
        to += (weights.packed_size() + kAlign - 1) / kAlign * kAlign;
    });
    PackedWeights* last = nullptr;
    each([&](PackedWeights& weights) {
        if (weights.packed_size() == 0) return;
        if (last != nullptr) last->before(weights);
        last = &weights;
    });
}

std::ptrdiff_t ConvNet::stride() const noexcept {
    // Whole panels are written; the extra 16 keep rows of 2^n channels from falling into the same cache sets, and leave
    // room for the zeros that fill up the last step of a row of smaller numbers.
    const int panel = simd_->panel;
    return (max_channels_ + panel - 1) / panel * panel + 16;
}

std::size_t ConvNet::weight_bytes() const noexcept {
    std::size_t sum = 0;
    for (const Layer& layer : layers_) sum += layer.conv.weights.bytes() + layer.conv2.weights.bytes();
    return sum;
}

ConvNet::Scratch ConvNet::scratch() const {
    Scratch s;
    const std::size_t rows = static_cast<std::size_t>(kMaxBlocks) * max_frames_;
    const std::size_t width = static_cast<std::size_t>(stride());
    for (FloatBuffer& buffer : s.buffers) buffer.resize(rows * width);
    s.zeros.resize(width);
    s.half.resize(rows * width);
    s.prepared.resize(rows);
    s.rows.resize(rows * static_cast<std::size_t>(max_taps_));
    s.tap_start.resize(static_cast<std::size_t>(max_taps_) + 1);
    return s;
}

void ConvNet::convolve(const Conv& conv, const float* x, float* y, int blocks, bool accumulate,
                       Scratch& scratch) const noexcept {
    const std::ptrdiff_t width = stride();
    const int frames = conv.upsample ? conv.frames_in / 2 : conv.frames_in;
    for (int r = 0; r < blocks * frames; ++r)
        scratch.prepared[r] = conv.weights.prepare(x + r * width, scratch.half.data() + r * width);
    GemmRow* row = scratch.rows.data();
    int* start = scratch.tap_start.data();
    *start = 0;
    for (const int offset : conv.offsets) {
        for (int b = 0; b < blocks; ++b) {
            int last = -1;  // frame of the row before this one, in this block
            for (int t = 0; t < conv.frames_out; ++t) {
                const int from = offset + t * conv.stride;
                const bool inside = from >= 0 && from < conv.frames_in;
                if (!inside && offset != conv.offsets[0]) continue;
                const int frame = !inside ? -1 : conv.upsample ? from >> 1 : from;
                float* const to = y + (static_cast<std::ptrdiff_t>(b) * conv.frames_out + t) * width;
                if (inside && frame == last) {
                    row[-1].y2 = to;
                    last = -1;
                    continue;
                }
                *row = inside ? scratch.prepared[b * frames + frame] : GemmRow{scratch.zeros.data(), 0, 0, 1.0f};
                (row++)->y = to;
                last = frame;
            }
        }
        *++start = static_cast<int>(row - scratch.rows.data());
    }
    conv.weights.multiply(scratch.rows.data(), scratch.tap_start.data(), accumulate, conv.relu);
}

void ConvNet::norm_activate(const Layer& layer, int which, const float* x, float* y, int blocks) const noexcept {
    const Simd& ops = *simd_;
    const std::ptrdiff_t row = stride();
    const int channels = layer.conv.weights.inputs, frames = layer.conv.frames_in, rows = blocks * frames;
    const float* const scale = layer.scale[which].data();
    const float* const shift = layer.shift[which].data();
    constexpr float kLayerEps = 1e-5f, kGroupEps = 1e-6f;
    switch (layer.norm) {
        case Norm::none:
            break;
        case Norm::affine:
            ops.affine(x, y, rows, channels, row, scale, shift);
            break;
        case Norm::layer:
            for (int r = 0; r < rows; ++r)
                ops.normalise(x + r * row, y + r * row, 1, channels, row, scale, shift, kLayerEps);
            break;
        case Norm::group: {
            const int width = channels / kGroups;
            for (int b = 0; b < blocks; ++b)
                for (int c = 0; c < channels; c += width) {
                    const std::ptrdiff_t at = static_cast<std::ptrdiff_t>(b) * frames * row + c;
                    ops.normalise(x + at, y + at, frames, width, row, scale + c, shift + c, kGroupEps);
                }
            break;
        }
    }
    ops.activate(layer.norm == Norm::none ? x : y, y, rows, channels, row, layer.activation);
}

const float* ConvNet::run(int blocks, Scratch& scratch) const noexcept {
    float* x = scratch.buffers[0].data();
    float* next = scratch.buffers[1].data();
    float* const inner = scratch.buffers[2].data();
    for (const Layer& layer : layers_) {
        if (layer.residual) {
            norm_activate(layer, 0, x, next, blocks);
            convolve(layer.conv, next, inner, blocks, false, scratch);
            norm_activate(layer, 1, inner, inner, blocks);
            convolve(layer.conv2, inner, x, blocks, true, scratch);
        } else {
            convolve(layer.conv, x, next, blocks, false, scratch);
            std::swap(x, next);
        }
    }
    return x;
}

}  // namespace beingh0
