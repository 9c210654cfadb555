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
constexpr float kSlope = 1e-5f;  // metres per radian: float32 keypoints of 1e-8 m over a step of 8e-3 rad
constexpr float kTurn = 2e-6f;   // some roundings of numbers up to pi
constexpr float kSmall[kStorages] = {kRelative, 2e-2f, 1e-2f};
constexpr float kMesh[kStorages] = {kMetres, 5e-4f, 2e-4f};

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

// A way to give the hands' poses, and where their keypoints are then.
struct Posing {
    const char* name;
    HandModel::Pose kind;
    const Record& pose;
    bool mean, center;
    const Record& keypoints;
};

HandModel::Batch batch_of(const Posing& posing, const Record& betas, float* keypoints) {
    HandModel::Batch batch{};
    batch.kind = posing.kind;
    batch.components = posing.kind == HandModel::Pose::pca ? static_cast<int>(posing.pose.shape[1]) - 3 : 0;
    batch.count = posing.pose.shape[0];
    batch.pose = posing.pose.f.data();
    batch.betas = betas.f.data();
    batch.betas_per_hand = true;
    batch.mean_pose = posing.mean;
    batch.center = posing.center;
    batch.keypoints = keypoints;
    return batch;
}

// The worst difference of keypoints, of hands together and of each with betas that are kept.
double keypoint_error(const HandModel& hand, const Posing& posing, const Record& betas, HandModel::Scratch& scratch) {
    const std::vector<float>& expected = posing.keypoints.f;
    std::vector<float> together(expected.size()), alone(expected.size());
    HandModel::Batch batch = batch_of(posing, betas, together.data());
    hand.forward(batch, scratch);
    const std::int64_t count = batch.count, width = static_cast<std::int64_t>(posing.pose.f.size()) / count;
    batch.count = 1;
    batch.betas_per_hand = false;
    batch.keypoints = alone.data();
    for (std::int64_t h = 0; h < count; ++h) {
        hand.forward(batch, scratch);
        batch.pose += width;
        batch.betas += HandModel::kBetas;
        batch.keypoints += HandModel::kKeypoints * 3;
    }
    return std::fmax(difference(together, expected, false), difference(alone, expected, false));
}

// Of the analytic derivative against differences of the keypoints, metres per radian.
double jacobian_error(const HandModel& hand, const Posing& posing, const Record& betas, HandModel::Scratch& scratch) {
    constexpr int kRows = HandModel::kKeypoints * 3;
    constexpr float kStep = 4e-3f;  // rad
    std::vector<float> slope(posing.keypoints.f.size() * HandModel::kPoseAngles), pose = posing.pose.f;
    std::vector<float> ends[2] = {posing.keypoints.f, posing.keypoints.f};
    HandModel::Batch batch = batch_of(posing, betas, ends[0].data());
    batch.pose = pose.data();
    batch.jacobian = slope.data();
    hand.forward(batch, scratch);
    batch.jacobian = nullptr;
    double worst = 0;
    for (int a = 0; a < HandModel::kPoseAngles; ++a) {
        for (int end = 0; end < 2; ++end) {
            for (std::int64_t h = 0; h < batch.count; ++h) {
                const std::size_t at = static_cast<std::size_t>(h * HandModel::kPoseAngles + a);
                pose[at] = posing.pose.f[at] + (end ? kStep : -kStep);
            }
            batch.keypoints = ends[end].data();
            hand.forward(batch, scratch);
        }
        for (std::int64_t h = 0; h < batch.count; ++h) {
            const std::size_t at = static_cast<std::size_t>(h * HandModel::kPoseAngles + a);
            const float taken = 2 * kStep;
            pose[at] = posing.pose.f[at];
            for (int r = 0; r < kRows; ++r) {
                const std::size_t k = static_cast<std::size_t>(h * kRows + r);
                const double d = std::fabs((ends[1][k] - ends[0][k]) / taken - slope[k * HandModel::kPoseAngles + a]);
                worst = d <= worst ? worst : d;  // NaN stays
            }
        }
    }
    return worst;
}

void check_hand(Reader& in, int threads, const std::string& isa) {
    const Record v_template = in.next("v_template"), shapedirs = in.next("shapedirs"), posedirs = in.next("posedirs"),
                 regressor = in.next("J_regressor"), weights = in.next("weights"),
                 components = in.next("hands_components"), mean = in.next("hands_mean"), parents = in.next("parents"),
                 tips = in.next("tips"), betas = in.next("betas"), trans = in.next("trans"),
                 angles = in.next("axis-angle"), matrices = in.next("matrices"), rows = in.next("6D interleaved"),
                 columns = in.next("6D columns"), pca = in.next("pca"), vertices = in.next("vertices"),
                 keypoints = in.next("keypoints"), on_mean = in.next("keypoints on the mean pose"),
                 of_pca = in.next("keypoints of pca"), centred = in.next("keypoints from the wrist");
    using Pose = HandModel::Pose;
    const Posing posings[] = {{"axis-angle", Pose::axis_angle, angles, false, false, keypoints},
                              {"axis-angle from the mean", Pose::axis_angle, angles, true, false, on_mean},
                              {"axis-angle, centred", Pose::axis_angle, angles, false, true, centred},
                              {"matrices", Pose::matrix, matrices, false, false, keypoints},
                              {"6D interleaved", Pose::rot6d_interleaved, rows, false, false, keypoints},
                              {"6D columns", Pose::rot6d_columns, columns, false, false, keypoints},
                              {"pca", Pose::pca, pca, false, false, of_pca}};
    for (int s = 0; s < kStorages; ++s) {
        const HandModel hand({v_template.f.data(), shapedirs.f.data(), posedirs.f.data(), regressor.f.data(),
                              weights.f.data(), components.f.data(), mean.f.data(), tips.i.data(), parents.i.data(),
                              static_cast<Storage>(s)});
        struct Found {
            std::vector<double> posed;
            double slope, mesh;
        };
        std::vector<Found> found(static_cast<std::size_t>(threads));
        Pool<HandModel::Scratch> scratches;
        on_threads(threads, [&](int t) {
            const auto scratch = scratches.take(hand);
            Found& mine = found[static_cast<std::size_t>(t)];
            for (const Posing& posing : posings) mine.posed.push_back(keypoint_error(hand, posing, betas, *scratch));
            mine.slope = jacobian_error(hand, posings[0], betas, *scratch);
            std::vector<float> points(keypoints.f.size()), mesh(vertices.f.size());
            HandModel::Batch batch = batch_of(posings[t % 2 ? 4 : 0], betas, points.data());
            batch.trans = trans.f.data();
            batch.vertices = mesh.data();
            hand.forward(batch, *scratch);
            mine.mesh = difference(mesh, vertices.f, false);
        });
        for (const Found& one : found) {
            for (std::size_t k = 0; k < one.posed.size(); ++k)
                report(isa + " keypoints, " + posings[k].name, one.posed[k], kMetres);
            report(isa + " Jacobian", one.slope, kSlope);
            report(isa + " mesh, storage " + std::to_string(s), one.mesh, kMesh[s]);
        }
    }
}

void check_rotations(Reader& in, const std::string& isa) {
    const Record angles = in.next("axis-angle"), matrices = in.next("matrices"), quaternions = in.next("quaternions"),
                 rows = in.next("6D interleaved"), columns = in.next("6D columns");
    using Convert = std::function<void(const float*, std::int64_t, float*)>;
    const auto six = [](void (*convert)(const float*, std::int64_t, bool, float*), bool interleaved) -> Convert {
        return [=](const float* from, std::int64_t n, float* to) { convert(from, n, interleaved, to); };
    };
    const struct {
        const char* name;
        Convert convert;
        const Record &from, &to;
    } conversions[] = {{"axis-angle to matrix", axis_angle_to_matrix, angles, matrices},
                       {"axis-angle to quaternion", axis_angle_to_quaternion, angles, quaternions},
                       {"matrix to axis-angle", matrix_to_axis_angle, matrices, angles},
                       {"matrix to quaternion", matrix_to_quaternion, matrices, quaternions},
                       {"quaternion to matrix", quaternion_to_matrix, quaternions, matrices},
                       {"quaternion to axis-angle", quaternion_to_axis_angle, quaternions, angles},
                       {"6D interleaved to matrix", six(rot6d_to_matrix, true), rows, matrices},
                       {"6D columns to matrix", six(rot6d_to_matrix, false), columns, matrices},
                       {"matrix to 6D interleaved", six(matrix_to_rot6d, true), matrices, rows},
                       {"matrix to 6D columns", six(matrix_to_rot6d, false), matrices, columns}};
    for (const auto& c : conversions) {
        std::vector<float> found(c.to.f.size());
        c.convert(c.from.f.data(), c.from.shape[0], found.data());
        report(isa + " " + c.name, difference(found, c.to.f, false), kTurn);
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
            section == 1 ? check_part(in, threads, isas[i])
            : section == 2 ? check_hand(in, threads, isas[i]) : check_rotations(in, isas[i]);
    }
    std::printf("%s\n", failures ? "FAILED" : "all good");
    return failures != 0;
} catch (const std::exception& error) {
    std::fprintf(stderr, "check_kernels: %s\n", error.what());
    return 2;
}
