// Python face of the motion tokenizer: one object per part. motion_tokenizer.py names the layers and builds it.
#include <pybind11/stl.h>

#include <limits>
#include <memory>
#include <optional>

#include "bind_check.hpp"
#include "kernels.hpp"

namespace py = pybind11;
using namespace beingh0;

namespace {

void positive(const char* name, py::ssize_t value) {
    if (value < 1 || value > (1 << 20))
        throw std::invalid_argument(std::string(name) + ": expected 1 to 1048576, got " + std::to_string(value));
}

Activation activation_of(const std::string& name) {
    if (name == "relu") return Activation::relu;
    if (name == "silu") return Activation::silu;
    if (name == "gelu") return Activation::gelu;
    throw std::invalid_argument("activation: expected relu, silu or gelu, got " + name);
}

Norm norm_of(const std::string& name) {
    if (name == "none") return Norm::none;
    if (name == "affine") return Norm::affine;
    if (name == "layer") return Norm::layer;
    if (name == "group") return Norm::group;
    throw std::invalid_argument("norm: expected none, affine, layer or group, got " + name);
}

// Any number of threads may call a finished part.
class Part {
 public:
    Part(const GrqPart::Geometry& geometry, const float* codebooks, const float* mean, const float* std,
         Storage storage)
        : part_(geometry, codebooks, mean, std, storage) {}

    void add_conv(bool encoder, const py::array& weight, const py::array& bias, int stride, int padding, bool upsample,
                  bool relu) {
        ConvNet& net = open(encoder);
        const float* const w = checked<float>("weight", weight, {kAny, net.channels(), kAny});
        const auto outputs = weight.shape(0), kernel = weight.shape(2);
        const float* const b = checked<float>("bias", bias, {outputs});
        positive("outputs", outputs);
        positive("kernel", kernel);
        positive("stride", stride);
        const py::ssize_t frames = net.frames() * (upsample ? 2 : 1);
        if (padding < 0 || padding >= kernel || frames + 2 * padding < kernel)
            throw std::invalid_argument("padding: kernel " + std::to_string(kernel) + " with padding " +
                                        std::to_string(padding) + " does not fit " + std::to_string(frames) +
                                        " frames");
        net.add_conv(w, b, static_cast<int>(outputs), static_cast<int>(kernel), stride, padding, upsample, relu,
                     part_.conv_storage(encoder, static_cast<int>(outputs)));
    }

    void add_residual(bool encoder, const py::array& weight1, const py::array& bias1, const py::array& weight2,
                      const py::array& bias2, int dilation, const std::string& activation, const std::string& norm,
                      const std::optional<py::array>& scale1, const std::optional<py::array>& shift1,
                      const std::optional<py::array>& scale2, const std::optional<py::array>& shift2) {
        ConvNet& net = open(encoder);
        const int c = net.channels();
        positive("dilation", dilation);
        const Norm kind = norm_of(norm);
        ConvNet::Affine affine[2] = {};
        if (kind != Norm::none) {
            if (!scale1 || !shift1 || !scale2 || !shift2)
                throw std::invalid_argument("norm: expected scale and shift of both norms for " + norm);
            affine[0] = {checked<float>("scale1", *scale1, {c}), checked<float>("shift1", *shift1, {c})};
            affine[1] = {checked<float>("scale2", *scale2, {c}), checked<float>("shift2", *shift2, {c})};
        }
        if (kind == Norm::group && c % ConvNet::kGroups != 0)
            throw std::invalid_argument("norm: group norm expects a multiple of 32 channels, got " + std::to_string(c));
        net.add_residual(checked<float>("weight1", weight1, {c, c, 3}), checked<float>("bias1", bias1, {c}),
                         checked<float>("weight2", weight2, {c, c, 1}), checked<float>("bias2", bias2, {c}), dilation,
                         activation_of(activation), kind, affine[0], affine[1]);
    }

    void finish() {
        if (finished_) throw std::invalid_argument("the part is already finished");
        if (!part_.complete())
            throw std::invalid_argument("layers: encoder gives [" + std::to_string(part_.encoder().frames()) + ", " +
                                        std::to_string(part_.encoder().channels()) + "], decoder [" +
                                        std::to_string(part_.decoder().frames()) + ", " +
                                        std::to_string(part_.decoder().channels()) + "]; expected [" +
                                        std::to_string(part_.geometry().positions) + ", " +
                                        std::to_string(part_.geometry().code_dim) + "] and [" +
                                        std::to_string(part_.geometry().frames) + ", " +
                                        std::to_string(part_.geometry().dims) + "]");
        part_.encoder().gather();
        part_.decoder().gather();
        scratch_.take(part_);  // so that the first call allocates nothing
        finished_ = true;
    }

    std::size_t weight_bytes(bool encoder) const {
        return encoder ? part_.encoder().weight_bytes() : part_.decoder().weight_bytes();
    }

    // Flat index of the first id of this part outside its range, or -1.
    std::int64_t first_foreign_id(const py::array& ids, int start) const {
        const std::int32_t* const data = checked_ids(ids, start);
        const std::int64_t blocks = ids.shape(0), stride = ids.shape(1);
        const std::int64_t low = part_.geometry().id_offset, high = low + part_.num_ids();
        for (std::int64_t b = 0; b < blocks; ++b)
            for (std::int64_t i = 0; i < part_.ids_per_block(); ++i) {
                const std::int64_t at = b * stride + start + i;
                if (data[at] < low || data[at] >= high) return at;
            }
        return -1;
    }

    void decode(const py::array& ids, int start, py::array& out, int column) {
        require_finished();
        const auto& g = part_.geometry();
        const std::int32_t* const from = in_range(ids, start);
        const std::int64_t blocks = ids.shape(0), width = out.ndim() == 3 ? out.shape(2) : 0;
        float* const rows = writable<float>("out", out, {blocks, g.window, kAny});
        const std::int64_t end = std::int64_t{column} + g.dims;
        if (column < 0 || end > width)
            throw std::invalid_argument("out: expected at least " + std::to_string(end) +
                                        " columns, got " + std::to_string(width));
        float* const to = rows + column;
        const std::int64_t id_stride = ids.shape(1);
        run([&](GrqPart::Scratch& s) { part_.decode(from + start, id_stride, blocks, to, width, s); });
    }

    void encode(const py::array& features, py::array& ids, int start) {
        require_finished();
        const auto& g = part_.geometry();
        const float* const from = finite<float>("features", features, {kAny, g.window, g.dims});
        const std::int64_t blocks = features.shape(0), stride = ids.ndim() == 2 ? ids.shape(1) : 0;
        checked_ids(ids, start);
        if (ids.shape(0) != blocks)
            throw std::invalid_argument("ids: expected " + std::to_string(blocks) + " rows, got " + describe(ids));
        std::int32_t* const to = writable<std::int32_t>("ids", ids, {kAny, kAny}) + start;
        run([&](GrqPart::Scratch& s) { part_.encode(from, blocks, to, stride, s); });
    }

    py::array dequantize(const py::array& ids, int start, std::optional<py::array> out) {
        const std::int32_t* const from = in_range(ids, start);
        const std::int64_t blocks = ids.shape(0), id_stride = ids.shape(1);
        float* const to = latents(out, blocks);
        py::gil_scoped_release release;
        part_.dequantise(from + start, id_stride, blocks, to, part_.geometry().code_dim);
        return *std::move(out);
    }

    py::array latent(const py::array& features, std::optional<py::array> out) {
        require_finished();
        const auto& g = part_.geometry();
        const float* const from = finite<float>("features", features, {kAny, g.window, g.dims});
        const std::int64_t blocks = features.shape(0);
        float* const to = latents(out, blocks);
        run([&](GrqPart::Scratch& s) { part_.latent(from, blocks, to, s); });
        return *std::move(out);
    }

 private:
    ConvNet& open(bool encoder) {
        if (finished_) throw std::invalid_argument("layers cannot be added to a finished part");
        return encoder ? part_.encoder() : part_.decoder();
    }

    void require_finished() const {
        if (!finished_) throw std::invalid_argument("the part is not finished: call finish() after the last layer");
    }

    // Where latents of so many blocks go: `out`, which is made if there is none.
    float* latents(std::optional<py::array>& out, py::ssize_t blocks) const {
        const py::ssize_t positions = part_.geometry().positions, code_dim = part_.geometry().code_dim;
        if (!out) out = py::array_t<float>({blocks, positions, code_dim});
        return writable<float>("out", *out, {blocks, positions, code_dim});
    }

    const std::int32_t* checked_ids(const py::array& ids, int start) const {
        const std::int32_t* const data = checked<std::int32_t>("ids", ids, {kAny, kAny});
        const std::int64_t end = std::int64_t{start} + part_.ids_per_block();
        if (start < 0 || end > ids.shape(1))
            throw std::invalid_argument("ids: expected at least " + std::to_string(end) +
                                        " per block, got " + describe(ids));
        return data;
    }

    const std::int32_t* in_range(const py::array& ids, int start) const {
        const std::int64_t at = first_foreign_id(ids, start), width = ids.shape(1);
        const std::int32_t* const data = static_cast<const std::int32_t*>(ids.data());
        const int low = part_.geometry().id_offset, high = low + part_.num_ids();
        if (at >= 0)
            throw std::invalid_argument("ids[" + std::to_string(at / width) + ", " + std::to_string(at % width) +
                                        "]: expected an id in [" + std::to_string(low) + ", " + std::to_string(high) +
                                        "), got " + std::to_string(data[at]));
        return data;
    }

    template <typename Work>
    void run(Work work) {
        py::gil_scoped_release release;
        const Pool<GrqPart::Scratch>::Lease scratch = scratch_.take(part_);
        work(*scratch);
    }

    GrqPart part_;
    Pool<GrqPart::Scratch> scratch_;
    bool finished_ = false;
};

std::unique_ptr<Part> build(const py::array& codebooks, const py::array& mean, const py::array& std,
                                  int quantizers, int window, int frames, int positions, int id_offset,
                                  const std::string& weights) {
    const float* const books = checked<float>("codebooks", codebooks, {kAny, kAny, kAny, kAny});
    const float* const means = checked<float>("mean", mean, {kAny});
    const py::ssize_t dims = mean.shape(0);
    const float* const stds = checked<float>("std", std, {dims});
    for (int axis = 0; axis < 4; ++axis) positive("codebooks", codebooks.shape(axis));
    positive("dims", dims);
    positive("quantizers", quantizers);
    positive("window", window);
    positive("frames", frames);
    positive("positions", positions);
    if (window > frames || positions > frames)
        throw std::invalid_argument("frames: expected at least window and positions, got " + std::to_string(frames));
    if (codebooks.shape(1) != 1 && codebooks.shape(1) != quantizers)
        throw std::invalid_argument("codebooks: expected [G, 1 or " + std::to_string(quantizers) + ", K, D], got " +
                                    describe(codebooks));
    const std::int64_t last = id_offset + static_cast<std::int64_t>(codebooks.shape(1)) * codebooks.shape(2);
    if (id_offset < 0 || last > std::numeric_limits<std::int32_t>::max())
        throw std::invalid_argument("id_offset: expected 0 or more and ids below 2^31, got " +
                                    std::to_string(id_offset));
    GrqPart::Geometry g{};
    g.groups = static_cast<int>(codebooks.shape(0));
    g.codebooks = static_cast<int>(codebooks.shape(1));
    g.codes = static_cast<int>(codebooks.shape(2));
    g.code_dim = static_cast<int>(codebooks.shape(3) * codebooks.shape(0));
    g.quantizers = quantizers;
    g.window = window;
    g.frames = frames;
    g.positions = positions;
    g.dims = static_cast<int>(dims);
    g.id_offset = id_offset;
    return std::make_unique<Part>(g, books, means, stds, storage_of(weights));
}

}  // namespace

void bind_grq(py::module_& m) {
    const py::none none;
    py::class_<Part>(m, "GrqPart")
        .def(py::init(&build), py::kw_only(), py::arg("codebooks"), py::arg("mean"), py::arg("std"),
             py::arg("quantizers"), py::arg("window"), py::arg("frames"), py::arg("positions"), py::arg("id_offset"),
             py::arg("weights") = "float32")
        .def("add_conv", &Part::add_conv, py::kw_only(), py::arg("encoder"), py::arg("weight"), py::arg("bias"),
             py::arg("stride") = 1, py::arg("padding") = 1, py::arg("upsample") = false, py::arg("relu") = false)
        .def("add_residual", &Part::add_residual, py::kw_only(), py::arg("encoder"), py::arg("weight1"),
             py::arg("bias1"), py::arg("weight2"), py::arg("bias2"), py::arg("dilation"), py::arg("activation"),
             py::arg("norm") = "none", py::arg("scale1") = none, py::arg("shift1") = none, py::arg("scale2") = none,
             py::arg("shift2") = none)
        .def("finish", &Part::finish)
        .def("weight_bytes", &Part::weight_bytes, py::kw_only(), py::arg("encoder"))
        .def("first_foreign_id", &Part::first_foreign_id, py::arg("ids"), py::arg("start"))
        .def("decode", &Part::decode, py::arg("ids"), py::arg("start"), py::arg("out"), py::arg("column"))
        .def("encode", &Part::encode, py::arg("features"), py::arg("ids"), py::arg("start"))
        .def("dequantize", &Part::dequantize, py::arg("ids"), py::arg("start"), py::arg("out") = none)
        .def("latent", &Part::latent, py::arg("features"), py::arg("out") = none);
}
