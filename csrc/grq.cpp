// Grouped residual quantisation. Within a part ids run group slowest, then position, quantizer fastest.
#include <algorithm>

#include "kernels.hpp"

namespace beingh0 {
namespace {

constexpr float kStdFloor = 1e-6f;  // upstream adds it when normalising and not when it de-normalises

}  // namespace

GrqPart::GrqPart(const Geometry& geometry, const float* codebooks, const float* mean, const float* std,
                 Storage storage)
    : g_(geometry),
      mean_(static_cast<std::size_t>(g_.dims)),
      std_(static_cast<std::size_t>(g_.dims)),
      storage_(storage),
      encoder_(g_.dims, g_.frames, storage),
      decoder_(g_.code_dim, g_.positions, storage),
      simd_(&simd()) {
    const int dim = g_.code_dim / g_.groups, books = g_.groups * g_.codebooks;
    const std::size_t book_size = static_cast<std::size_t>(g_.codes) * dim;
    codebooks_.resize(book_size * books);
    std::memcpy(codebooks_.data(), codebooks, sizeof(float) * codebooks_.size());
    std::memcpy(mean_.data(), mean, sizeof(float) * mean_.size());
    std::memcpy(std_.data(), std, sizeof(float) * std_.size());

    // The nearest row minimises |row|^2 / 2 - x . row, a matrix product with the negated codebook.
    std::vector<float> negated(book_size), bias(static_cast<std::size_t>(g_.codes));
    for (int b = 0; b < books; ++b) {
        const float* const book = codebooks_.data() + b * book_size;
        for (int k = 0; k < g_.codes; ++k) {
            double square = 0.0;
            for (int d = 0; d < dim; ++d) {
                const float value = book[static_cast<std::size_t>(k) * dim + d];
                square += static_cast<double>(value) * value;
                negated[static_cast<std::size_t>(k) * dim + d] = -value;
            }
            bias[k] = static_cast<float>(0.5 * square);
        }
        search_.emplace_back(negated.data(), 1, dim, g_.codes, 0, 1, dim, bias.data());
    }
}

GrqPart::Scratch::Scratch(const GrqPart& part)
    : encoder(part.encoder_.scratch()),
      decoder(part.decoder_.scratch()),
      rows(static_cast<std::size_t>(ConvNet::kMaxBlocks) * part.g_.positions) {
    residual.resize(rows.size() * (part.g_.code_dim / part.g_.groups));
    scores.resize(rows.size() * part.search_[0].columns());
}

bool GrqPart::complete() const noexcept {
    return encoder_.channels() == g_.code_dim && encoder_.frames() == g_.positions &&
           decoder_.channels() == g_.dims && decoder_.frames() == g_.frames;
}

Storage GrqPart::conv_storage(bool encoder, int outputs) const noexcept {
    const bool first = (encoder ? encoder_ : decoder_).empty();
    if (encoder ? first : outputs == g_.dims) return Storage::f32;
    return first && storage_ == Storage::int8 ? Storage::bf16 : storage_;
}

void GrqPart::dequantise(const std::int32_t* ids, std::ptrdiff_t id_stride, std::int64_t blocks, float* latent,
                         std::ptrdiff_t latent_stride) const noexcept {
    constexpr int kBatch = 16;  // rows summed in one go
    const int dim = g_.code_dim / g_.groups;
    const Simd& ops = *simd_;
    for (std::int64_t b = 0; b < blocks; ++b)
        for (int group = 0; group < g_.groups; ++group)
            for (int t = 0; t < g_.positions; ++t) {
                const std::int32_t* const id = ids + b * id_stride + (group * g_.positions + t) * g_.quantizers;
                float* const out = latent + (b * g_.positions + t) * latent_stride + group * dim;
                const float* rows[kBatch + 1];
                int count = 0;
                for (int q = 0; q < g_.quantizers; ++q) {
                    // Upstream ignores which quantizer's range an id lies in: the position decides.
                    const int code = (id[q] - g_.id_offset) % g_.codes;
                    const std::ptrdiff_t book = group * g_.codebooks + (g_.codebooks > 1 ? q : 0);
                    rows[count++] = codebooks_.data() + (book * g_.codes + code) * dim;
                    if (count > kBatch || q + 1 == g_.quantizers) {
                        ops.sum_rows(rows, count, dim, out);
                        rows[0] = out;
                        count = 1;
                    }
                }
            }
}

void GrqPart::decode(const std::int32_t* ids, std::ptrdiff_t id_stride, std::int64_t blocks, float* features,
                     std::ptrdiff_t feature_stride, Scratch& scratch) const noexcept {
    const std::ptrdiff_t stride = decoder_.stride();
    for (std::int64_t first = 0; first < blocks; first += ConvNet::kMaxBlocks) {
        const int count = static_cast<int>(std::min<std::int64_t>(blocks - first, ConvNet::kMaxBlocks));
        float* const input = scratch.decoder.input();
        dequantise(ids + first * id_stride, id_stride, count, input, stride);
        for (int r = 0; r < count * g_.positions; ++r) input[r * stride + g_.code_dim] = 0.0f;  // the half of a pair
        const float* const y = decoder_.run(count, scratch.decoder);
        for (int b = 0; b < count; ++b)
            for (int t = 0; t < g_.window; ++t) {  // the padding frames at the end are dropped
                const float* const from = y + (static_cast<std::ptrdiff_t>(b) * g_.frames + t) * stride;
                float* const to = features + ((first + b) * g_.window + t) * feature_stride;
                for (int d = 0; d < g_.dims; ++d) to[d] = from[d] * std_[d] + mean_[d];
            }
    }
}

const float* GrqPart::encode_block(const float* features, int blocks, Scratch& scratch) const noexcept {
    const std::ptrdiff_t stride = encoder_.stride();
    for (int b = 0; b < blocks; ++b)
        for (int t = 0; t < g_.frames; ++t) {
            float* const to = scratch.encoder.input() + (static_cast<std::ptrdiff_t>(b) * g_.frames + t) * stride;
            const float* const from = features + (static_cast<std::ptrdiff_t>(b) * g_.window + t) * g_.dims;
            for (int d = 0; d < g_.dims; ++d)  // padding frames are zeros after normalisation
                to[d] = t < g_.window ? (from[d] - mean_[d]) / (std_[d] + kStdFloor) : 0.0f;
            to[g_.dims] = 0.0f;  // the half of a pair
        }
    return encoder_.run(blocks, scratch.encoder);
}

void GrqPart::latent(const float* features, std::int64_t blocks, float* latent, Scratch& scratch) const noexcept {
    const std::ptrdiff_t rows = g_.positions, width = g_.code_dim;
    for (std::int64_t first = 0; first < blocks; first += ConvNet::kMaxBlocks) {
        const int count = static_cast<int>(std::min<std::int64_t>(blocks - first, ConvNet::kMaxBlocks));
        const float* const z = encode_block(features + first * g_.window * g_.dims, count, scratch);
        for (std::ptrdiff_t r = 0; r < count * rows; ++r)
            std::memcpy(latent + (first * rows + r) * width, z + r * encoder_.stride(),
                        sizeof(float) * static_cast<std::size_t>(width));
    }
}

void GrqPart::encode(const float* features, std::int64_t blocks, std::int32_t* ids, std::ptrdiff_t id_stride,
                     Scratch& scratch) const noexcept {
    for (std::int64_t first = 0; first < blocks; first += ConvNet::kMaxBlocks) {
        const int count = static_cast<int>(std::min<std::int64_t>(blocks - first, ConvNet::kMaxBlocks));
        const float* const z = encode_block(features + first * g_.window * g_.dims, count, scratch);
        quantise(z, encoder_.stride(), count, ids + first * id_stride, id_stride, scratch);
    }
}

void GrqPart::quantise(const float* latent, std::ptrdiff_t stride, int blocks, std::int32_t* ids,
                       std::ptrdiff_t id_stride, Scratch& scratch) const noexcept {
    const int dim = g_.code_dim / g_.groups, rows = blocks * g_.positions, tap_start[2] = {0, rows};
    for (int group = 0; group < g_.groups; ++group) {
        for (int r = 0; r < rows; ++r) {
            float* const residual = scratch.residual.data() + static_cast<std::ptrdiff_t>(r) * dim;
            std::memcpy(residual, latent + r * stride + group * dim, sizeof(float) * static_cast<std::size_t>(dim));
            scratch.rows[r].x = residual;
        }
        for (int q = 0; q < g_.quantizers; ++q) {
            const int book = group * g_.codebooks + (g_.codebooks > 1 ? q : 0);
            const PackedWeights& search = search_[book];
            for (int r = 0; r < rows; ++r)
                scratch.rows[r].y = scratch.scores.data() + static_cast<std::ptrdiff_t>(r) * search.columns();
            search.multiply(scratch.rows.data(), tap_start);
            for (int r = 0; r < rows; ++r) {
                const float* const score = scratch.scores.data() + static_cast<std::ptrdiff_t>(r) * search.columns();
                int best = 0;  // the first of equals
                for (int k = 1; k < g_.codes; ++k)
                    if (score[k] < score[best]) best = k;
                const std::ptrdiff_t at = static_cast<std::ptrdiff_t>(book) * g_.codes + best;
                const float* const row = codebooks_.data() + at * dim;
                float* const residual = scratch.residual.data() + static_cast<std::ptrdiff_t>(r) * dim;
                for (int d = 0; d < dim; ++d) residual[d] -= row[d];
                const int b = r / g_.positions, t = r % g_.positions;
                ids[b * id_stride + (group * g_.positions + t) * g_.quantizers + q] =
                    g_.id_offset + (g_.codebooks > 1 ? q * g_.codes : 0) + best;
            }
        }
    }
}

}  // namespace beingh0
