// Python face of the hand kinematics; hand_model.py documents it.
#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <sstream>
#include <string_view>

#include "bind_check.hpp"
#include "kernels.hpp"

namespace py = pybind11;
using namespace beingh0;

namespace {

constexpr int kVertices = HandModel::kVertices, kJoints = HandModel::kJoints, kKeypoints = HandModel::kKeypoints,
              kBetas = HandModel::kBetas, kAngles = HandModel::kFingerAngles;

HandModel build(const py::array& v_template, const py::array& shapedirs, const py::array& posedirs,
                const py::array& j_regressor, const py::array& weights, const py::array& components,
                const py::array& mean_pose, const py::array& parents, const py::array& tips,
                const std::string& pose_blends) {
    HandModel::Source s;
    s.v_template = checked<float>("v_template", v_template, {kVertices, 3});
    s.shapedirs = checked<float>("shapedirs", shapedirs, {kVertices, 3, kBetas});
    s.posedirs = checked<float>("posedirs", posedirs, {kVertices, 3, HandModel::kPoseDirs});
    s.j_regressor = checked<float>("j_regressor", j_regressor, {kJoints, kVertices});
    s.weights = checked<float>("weights", weights, {kVertices, kJoints});
    s.components = checked<float>("components", components, {kAngles, kAngles});
    s.mean_pose = checked<float>("mean_pose", mean_pose, {kAngles});
    s.parents = checked<std::int32_t>("parents", parents, {kJoints});
    s.tips = checked<std::int32_t>("tips", tips, {HandModel::kTipSets, HandModel::kTips});
    s.pose_blends = storage_of(pose_blends);
    for (int j = 0; j < kJoints; ++j)
        if (s.parents[j] < (j ? 0 : -1) || s.parents[j] >= j)
            throw std::invalid_argument("parents: expected -1, then each in [0, joint), got " +
                                        std::to_string(s.parents[j]) + " for joint " + std::to_string(j));
    for (int t = 0; t < HandModel::kTipSets * HandModel::kTips; ++t)
        if (s.tips[t] < 0 || s.tips[t] >= kVertices)
            throw std::invalid_argument("tips: expected vertices in [0, 778), got " + std::to_string(s.tips[t]));
    return HandModel(s);
}

HandModel::Pose kind_of(std::string_view name) {
    if (name == "axis_angle") return HandModel::Pose::axis_angle;
    if (name == "matrix") return HandModel::Pose::matrix;
    if (name == "rot6d_interleaved") return HandModel::Pose::rot6d_interleaved;
    if (name == "rot6d_columns") return HandModel::Pose::rot6d_columns;
    if (name == "pca") return HandModel::Pose::pca;
    throw std::invalid_argument("kind: expected axis_angle, matrix, rot6d_interleaved, rot6d_columns or pca, got " +
                                std::string(name));
}

float largest(const float* values, std::int64_t count) {
    float most = 0.0f;
    for (std::int64_t i = 0; i < count; ++i) most = std::max(most, std::fabs(values[i]));
    return most;
}

// What is finite may still be so large that the hand is not. Vertices take as long to read again as a twentieth of a
// large batch: not where rotations turned them and no keypoint, which all those reach, is anywhere near infinity.
void check_hands(const HandModel::Batch& b) {
    constexpr float kFar = 1e15f;  // metres
    const std::int64_t points = b.count * kKeypoints * 3;
    const bool near = b.kind != HandModel::Pose::matrix && all_finite(b.keypoints, points, kFar);
    if ((near || all_finite(b.keypoints, points)) &&
        (near || !b.vertices || all_finite(b.vertices, b.count * kVertices * 3)) &&
        (!b.jacobian || all_finite(b.jacobian, b.count * kKeypoints * 3 * b.jacobian_width())))
        return;
    std::ostringstream text;
    text << "pose, betas, trans: expected a hand that is finite, got one that is not, of values up to "
         << largest(b.pose, b.count * b.pose_width()) << ", "
         << largest(b.betas, (b.betas_per_hand ? b.count : 1) * kBetas) << " and "
         << (b.trans ? largest(b.trans, b.count * 3) : 0.0f);
    throw std::invalid_argument(text.str());
}

// Any number of threads may call.
class Hand {
 public:
    explicit Hand(HandModel model) : model_(std::move(model)) { scratch_.take(model_); }

    void forward(const py::array& pose, const py::array& betas, const std::optional<py::array>& trans,
                 std::string_view kind, bool mean_pose, bool center, int tips, py::array keypoints,
                 std::optional<py::array> vertices, std::optional<py::array> jacobian) {
        HandModel::Batch b{};
        b.kind = kind_of(kind);
        b.count = pose.ndim() > 0 ? pose.shape(0) : 0;
        switch (b.kind) {
            case HandModel::Pose::axis_angle:
                b.pose = finite<float>("pose", pose, {kAny, kJoints, 3});
                break;
            case HandModel::Pose::matrix:
                b.pose = finite<float>("pose", pose, {kAny, kJoints, 3, 3});
                break;
            case HandModel::Pose::pca:
                b.pose = finite<float>("pose", pose, {kAny, kAny});
                b.components = static_cast<int>(std::min<py::ssize_t>(pose.shape(1) - 3, kAngles + 1));
                if (b.components < 1 || b.components > kAngles)
                    throw std::invalid_argument("pose: expected 3 numbers of the wrist and 1 to 45 coefficients, got " +
                                                describe(pose));
                break;
            default:
                b.pose = finite<float>("pose", pose, {kAny, kJoints, 6});
        }
        b.betas_per_hand = betas.ndim() == 2;
        b.betas = b.betas_per_hand ? finite<float>("betas", betas, {b.count, kBetas})
                                   : finite<float>("betas", betas, {kBetas});
        if (trans) b.trans = finite<float>("trans", *trans, {b.count, 3});
        if (mean_pose && b.kind != HandModel::Pose::axis_angle && b.kind != HandModel::Pose::pca)
            throw std::invalid_argument("mean_pose: expected False with rotations, got True");
        b.mean_pose = mean_pose;
        if (tips < 0 || tips >= HandModel::kTipSets)
            throw std::invalid_argument("tips: expected 0 or 1, got " + std::to_string(tips));
        b.center = center;
        b.tips = tips;
        b.keypoints = writable<float>("keypoints", keypoints, {b.count, kKeypoints, 3});
        if (vertices) b.vertices = writable<float>("vertices", *vertices, {b.count, kVertices, 3});
        if (jacobian)
            b.jacobian = writable<float>("jacobian", *jacobian, {b.count, kKeypoints, 3, b.jacobian_width()});
        py::gil_scoped_release release;
        const Pool<HandModel::Scratch>::Lease scratch = scratch_.take(model_);
        model_.forward(b, *scratch);
        check_hands(b);
    }

 private:
    const HandModel model_;
    Pool<HandModel::Scratch> scratch_;
};

}  // namespace

void bind_mano(py::module_& m) {
    py::class_<Hand>(m, "HandModel")
        .def(py::init([](const py::array& v_template, const py::array& shapedirs, const py::array& posedirs,
                         const py::array& j_regressor, const py::array& weights, const py::array& components,
                         const py::array& mean_pose, const py::array& parents, const py::array& tips,
                         const std::string& pose_blends) {
                 return std::make_unique<Hand>(build(v_template, shapedirs, posedirs, j_regressor, weights, components,
                                                     mean_pose, parents, tips, pose_blends));
             }),
             py::kw_only(), py::arg("v_template"), py::arg("shapedirs"), py::arg("posedirs"), py::arg("j_regressor"),
             py::arg("weights"), py::arg("components"), py::arg("mean_pose"), py::arg("parents"), py::arg("tips"),
             py::arg("pose_blends") = "float32")
        .def("forward", &Hand::forward, py::arg("pose"), py::arg("betas"), py::arg("trans"), py::arg("kind"),
             py::arg("mean_pose"), py::arg("center"), py::arg("tips"), py::arg("keypoints"),
             py::arg("vertices") = py::none(), py::arg("jacobian") = py::none());
}
