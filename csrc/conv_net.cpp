// Stacks of 1-D convolutions. A convolution is a matrix product whose input rows are pointers into the activations, so
// padding, stride, dilation and upsampling cost nothing, and weights are streamed once for all blocks of a batch.
#include <algorithm>

#include "kernels.hpp"

namespace beingh0 {

ConvNet::ConvNet(int channels, int frames)
    : channels_in_(channels), frames_in_(frames), channels_(channels), frames_(frames), max_channels_(channels),
      max_frames_(frames) {}

ConvNet::Conv ConvNet::make_conv(const float* w, const float* bias, int outputs, int kernel, int stride, int padding,
                                 int dilation, bool upsample, bool relu) const {
    Conv conv;
    conv.stride = stride;
    conv.upsample = upsample;
    conv.relu = relu;
    conv.frames_in = frames_ * (upsample ? 2 : 1);
    conv.frames_out = (conv.frames_in + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1;
    // A tap that falls outside the sequence for every frame (dilation 9 over 4 frames) is dropped with its weights.
    std::vector<int> live;
    for (int tap = 0; tap < kernel; ++tap) {
        const int first = tap * dilation - padding;
        bool reaches = false;
        for (int t = 0; t < conv.frames_out; ++t) {
            const int from = first + t * stride;
            reaches = reaches || (from >= 0 && from < conv.frames_in);
        }
        if (!reaches) continue;
        live.push_back(tap);
        conv.offsets.push_back(first);
    }
    const int inputs = channels_;
    std::vector<float> kept(live.size() * static_cast<std::size_t>(outputs) * inputs);
    std::size_t to = 0;
    for (const int tap : live)
        for (int o = 0; o < outputs; ++o)
            for (int i = 0; i < inputs; ++i) kept[to++] = w[(static_cast<std::size_t>(o) * inputs + i) * kernel + tap];
    conv.weights = PackedWeights(kept.data(), static_cast<int>(live.size()), inputs, outputs,
                                 static_cast<std::ptrdiff_t>(outputs) * inputs, 1, inputs, bias);
    return conv;
}

void ConvNet::add_conv(const float* w, const float* bias, int outputs, int kernel, int stride, int padding,
                       bool upsample, bool relu) {
    Layer layer;
    layer.conv = make_conv(w, bias, outputs, kernel, stride, padding, 1, upsample, relu);
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
    layer.conv = make_conv(w1, bias1, channels_, 3, 1, dilation, dilation, false, false);
    layer.conv2 = make_conv(w2, bias2, channels_, 1, 1, 0, 1, false, false);
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

void ConvNet::allocate() {
    // Whole panels are written; the extra 16 keep rows of 2^n channels from falling into the same cache sets.
    const int panel = simd().panel;
    stride_ = (max_channels_ + panel - 1) / panel * panel + 16;
    const std::size_t rows = static_cast<std::size_t>(kMaxBlocks) * max_frames_;
    for (FloatBuffer& buffer : buffers_) buffer.resize(rows * static_cast<std::size_t>(stride_));
    zeros_.resize(static_cast<std::size_t>(stride_));
    rows_.resize(rows * static_cast<std::size_t>(max_taps_));
}

void ConvNet::convolve(const Conv& conv, const float* x, float* y, int blocks, bool accumulate) noexcept {
    const float** row = rows_.data();
    const int frames = conv.upsample ? conv.frames_in / 2 : conv.frames_in;
    for (const int offset : conv.offsets)
        for (int b = 0; b < blocks; ++b)
            for (int t = 0; t < conv.frames_out; ++t) {
                const int from = offset + t * conv.stride;
                const bool inside = from >= 0 && from < conv.frames_in;
                const int frame = conv.upsample ? from >> 1 : from;
                *row++ = inside ? x + (static_cast<std::ptrdiff_t>(b) * frames + frame) * stride_ : zeros_.data();
            }
    conv.weights.multiply(rows_.data(), blocks * conv.frames_out, y, stride_, accumulate, conv.relu);
}

void ConvNet::norm_activate(const Layer& layer, int which, const float* x, float* y, int blocks) noexcept {
    const Simd& ops = simd();
    const int channels = layer.conv.weights.depth, frames = layer.conv.frames_in, rows = blocks * frames;
    const float* const scale = layer.scale[which].data();
    const float* const shift = layer.shift[which].data();
    constexpr float kLayerEps = 1e-5f, kGroupEps = 1e-6f;
    switch (layer.norm) {
        case Norm::none:
            break;
        case Norm::affine:
            ops.affine(x, y, rows, channels, stride_, scale, shift);
            break;
        case Norm::layer:
            for (int r = 0; r < rows; ++r)
                ops.normalise(x + r * stride_, y + r * stride_, 1, channels, stride_, scale, shift, kLayerEps);
            break;
        case Norm::group: {
            const int width = channels / kGroups;
            for (int b = 0; b < blocks; ++b)
                for (int c = 0; c < channels; c += width) {
                    const std::ptrdiff_t at = static_cast<std::ptrdiff_t>(b) * frames * stride_ + c;
                    ops.normalise(x + at, y + at, frames, width, stride_, scale + c, shift + c, kGroupEps);
                }
            break;
        }
    }
    ops.activate(layer.norm == Norm::none ? x : y, y, rows, channels, stride_, layer.activation);
}

const float* ConvNet::run(int blocks) noexcept {
    float* x = buffers_[0].data();
    float* next = buffers_[1].data();
    float* const inner = buffers_[2].data();
    for (const Layer& layer : layers_) {
        if (layer.residual) {
            norm_activate(layer, 0, x, next, blocks);
            convolve(layer.conv, next, inner, blocks, false);
            norm_activate(layer, 1, inner, inner, blocks);
            convolve(layer.conv2, inner, x, blocks, true);
        } else {
            convolve(layer.conv, x, next, blocks, false);
            std::swap(x, next);
        }
    }
    return x;
}

}  // namespace beingh0
