// Replays the goldens that record.py wrote on the kernels, without Python: for other machines (check_aarch64.sh) and,
// with many threads on one model, for the thread sanitizer.
//   check_kernels FILE [THREADS]
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "kernels.hpp"
#include "pool.hpp"

using namespace beingh0;

namespace {

constexpr float kRelative = 1e-5f, kMetres = 2e-6f;  // as the Python goldens
constexpr float kSmall[kStorages] = {kRelative, 2e-2f, 2e-2f};

struct Record {
    std::string name;
    std::vector<std::int64_t> shape;
    std::vector<float> f;
    std::vector<std::int32_t> i;
};

class Reader {
 public:
    explicit Reader(const char* path) : in_(path, std::ios::binary) {}
    Record next(const char* name) {
        Record r;
        std::uint32_t length = take<std::uint32_t>();
        r.name.resize(length);
        in_.read(&r.name[0], length);
        std::int64_t size = 1;
        const auto axes = take<std::uint32_t>();
        for (std::uint32_t k = 0; k < axes; ++k) {
            r.shape.push_back(take<std::int64_t>());
            size *= r.shape.back();
        }
        if (r.name == std::string("f:") + name) {
            r.f.resize(static_cast<std::size_t>(size));
            in_.read(reinterpret_cast<char*>(r.f.data()), size * 4);
        } else if (r.name == std::string("i:") + name) {
            r.i.resize(static_cast<std::size_t>(size));
            in_.read(reinterpret_cast<char*>(r.i.data()), size * 4);
        } else {
            throw std::runtime_error("expected " + std::string(name) + ", got " + r.name);
        }
        if (!in_) throw std::runtime_error("the file ends within " + r.name);
        return r;
    }

 private:
    template <typename T>
    T take() {
        T value{};
        in_.read(reinterpret_cast<char*>(&value), sizeof value);
        if (!in_) throw std::runtime_error("the file ends too early");
        return value;
    }
    std::ifstream in_;
};

int failures = 0;

void report(const std::string& what, double error, double allowed) {
    const bool good = error <= allowed;  // false for NaN
    failures += !good;
    std::printf("%s %-44s %.3g (allowed %.3g)\n", good ? "ok  " : "FAIL", what.c_str(), error, allowed);
}

double difference(const std::vector<float>& a, const std::vector<float>& b, bool relative) {
    double most = 0, size = 0;
    for (std::size_t k = 0; k < b.size(); ++k) {
        const double d = std::fabs(static_cast<double>(a[k]) - b[k]);
        most = d <= most ? most : d;
        size = std::fmax(size, std::fabs(b[k]));
    }
    return a.size() == b.size() ? (relative ? most / size : most) : NAN;
}

void on_threads(int threads, const std::function<void(int)>& work) {
    std::vector<std::thread> running;
    for (int t = 0; t < threads; ++t) running.emplace_back(work, t);
    for (std::thread& thread : running) thread.join();
}

struct Layer {
    std::vector<std::int32_t> kind;
    std::vector<Record> tensors;
};

void add(GrqPart& part, const Layer& layer) {
    const auto& k = layer.kind;
    const auto& t = layer.tensors;
    ConvNet& net = k[1] ? part.encoder() : part.decoder();
    if (k[0] == 1) {
        const int outputs = static_cast<int>(t[0].shape[0]);
        net.add_conv(t[0].f.data(), t[1].f.data(), outputs, static_cast<int>(t[0].shape[2]), k[2], k[3], k[4] != 0,
                     k[5] != 0, part.conv_storage(k[1] != 0, outputs));
        return;
    }
    ConvNet::Affine norms[2] = {};
    if (k[4] != 0)
        for (int n = 0; n < 2; ++n)
            norms[n] = {t[4 + 2 * static_cast<std::size_t>(n)].f.data(), t[5 + 2 * static_cast<std::size_t>(n)].f.data()};
    net.add_residual(t[0].f.data(), t[1].f.data(), t[2].f.data(), t[3].f.data(), k[2], static_cast<Activation>(k[3]),
                     static_cast<Norm>(k[4]), norms[0], norms[1]);
}

void check_part(Reader& in, int threads, const std::string& isa) {
    const auto g = in.next("geometry").i;
    const GrqPart::Geometry geometry{g[0], g[1], g[2], g[3], g[4], g[5], g[6], g[7], g[8], g[9]};
    const Record books = in.next("codebooks"), mean = in.next("mean"), std = in.next("std");
    std::vector<Layer> layers;
    while (true) {
        Layer layer{in.next("layer").i, {}};
        if (layer.kind[0] == 0) break;
        const char* const conv[] = {"weight", "bias"};
        const char* const residual[] = {"weight1", "bias1", "weight2", "bias2", "scale1", "shift1", "scale2", "shift2"};
        if (layer.kind[0] == 1)
            for (const char* name : conv) layer.tensors.push_back(in.next(name));
        else
            for (int n = 0; n < (layer.kind[4] ? 8 : 4); ++n) layer.tensors.push_back(in.next(residual[n]));
        layers.push_back(std::move(layer));
    }
    const Record ids = in.next("decode ids"), features = in.next("decode features");
    const Record motion = in.next("encode features"), codes = in.next("encode ids");
    for (int s = 0; s < kStorages; ++s) {
        GrqPart part(geometry, books.f.data(), mean.f.data(), std.f.data(), static_cast<Storage>(s));
        for (const Layer& layer : layers) add(part, layer);
        if (!part.complete()) throw std::runtime_error("the layers do not fit the geometry");
        part.encoder().gather();
        part.decoder().gather();
        Pool<GrqPart::Scratch> scratches;
        std::vector<std::vector<float>> decoded(static_cast<std::size_t>(threads));
        std::vector<std::vector<std::int32_t>> encoded(static_cast<std::size_t>(threads));
        on_threads(threads, [&](int t) {
            const auto scratch = scratches.take(part);
            auto& out = decoded[static_cast<std::size_t>(t)];
            auto& found = encoded[static_cast<std::size_t>(t)];
            out.resize(features.f.size());
            found.resize(codes.i.size());
            part.decode(ids.i.data(), part.ids_per_block(), ids.shape[0], out.data(), g[8], *scratch);
            part.encode(motion.f.data(), motion.shape[0], found.data(), part.ids_per_block(), *scratch);
        });
        for (const auto& out : decoded)
            report(isa + " decode, storage " + std::to_string(s), difference(out, features.f, true), kSmall[s]);
        for (const auto& found : encoded) {
            double wrong = 0;
            for (std::size_t k = 0; k < found.size(); ++k) wrong += found[k] != codes.i[k];
            if (s == 0) report(isa + " encode, ids that differ", wrong, 0);
        }
    }
}

void check_hand(Reader& in, int threads, const std::string& isa) {
    const Record v_template = in.next("v_template"), shapedirs = in.next("shapedirs"), posedirs = in.next("posedirs"),
                 regressor = in.next("J_regressor"), weights = in.next("weights"),
                 components = in.next("hands_components"), mean = in.next("hands_mean"), parents = in.next("parents"),
                 tips = in.next("tips"), pose = in.next("pose"), rot6d = in.next("pose 6D"), betas = in.next("betas"),
                 trans = in.next("trans"), vertices = in.next("vertices"), keypoints = in.next("keypoints");
    for (int s = 0; s < kStorages; ++s) {
        const HandModel hand({v_template.f.data(), shapedirs.f.data(), posedirs.f.data(), regressor.f.data(),
                              weights.f.data(), components.f.data(), mean.f.data(), tips.i.data(), parents.i.data(),
                              static_cast<Storage>(s)});
        std::vector<double> errors(static_cast<std::size_t>(threads) * 2);
        Pool<HandModel::Scratch> scratches;
        on_threads(threads, [&](int t) {
            const auto scratch = scratches.take(hand);
            std::vector<float> points(keypoints.f.size()), mesh(vertices.f.size());
            HandModel::Batch batch{};
            batch.count = pose.shape[0];
            batch.kind = t % 2 ? HandModel::Pose::rot6d_interleaved : HandModel::Pose::axis_angle;
            batch.pose = t % 2 ? rot6d.f.data() : pose.f.data();
            batch.betas = betas.f.data();
            batch.betas_per_hand = true;
            batch.keypoints = points.data();
            hand.forward(batch, *scratch);
            errors[static_cast<std::size_t>(2 * t)] = difference(points, keypoints.f, false);
            batch.trans = trans.f.data();
            batch.vertices = mesh.data();
            hand.forward(batch, *scratch);
            errors[static_cast<std::size_t>(2 * t + 1)] = difference(mesh, vertices.f, false);
        });
        for (int t = 0; t < threads; ++t) {
            report(isa + " keypoints", errors[static_cast<std::size_t>(2 * t)], kMetres);
            report(isa + " mesh, storage " + std::to_string(s), errors[static_cast<std::size_t>(2 * t + 1)],
                   s == 0 ? kMetres : 5e-4);
        }
    }
}

}  // namespace

int main(int argc, char** argv) try {
    if (argc < 2) throw std::runtime_error("usage: check_kernels FILE [THREADS]");
    const int threads = argc > 2 ? std::atoi(argv[2]) : 1;
    int count = 0;
    const char* const* isas = available_isas(count);
    for (int i = 0; i < count; ++i) {
        use_isa(isas[i]);
        Reader in(argv[1]);
        for (int section = 1; (section = in.next("section").i[0]) != 0;)
            section == 1 ? check_part(in, threads, isas[i]) : check_hand(in, threads, isas[i]);
    }
    std::printf("%s\n", failures ? "FAILED" : "all good");
    return failures != 0;
} catch (const std::exception& error) {
    std::fprintf(stderr, "check_kernels: %s\n", error.what());
    return 2;
}
