// Python face of the hand kinematics.
#include <pybind11/stl.h>

#include <memory>
#include <mutex>
#include <optional>

#include "bind_check.hpp"
#include "kernels.hpp"

namespace py = pybind11;
using namespace beingh0;

namespace {

HandModel build(const py::array& v_template, const py::array& shapedirs, const py::array& posedirs,
                const py::array& j_regressor, const py::array& weights, const py::array& parents,
                const py::array& tips) {
    HandModel::Source s;
    s.v_template = checked<float>("v_template", v_template, {HandModel::kVertices, 3});
    s.shapedirs = checked<float>("shapedirs", shapedirs, {HandModel::kVertices, 3, HandModel::kBetas});
    s.posedirs = checked<float>("posedirs", posedirs, {HandModel::kVertices, 3, HandModel::kPoseDirs});
    s.j_regressor = checked<float>("j_regressor", j_regressor, {HandModel::kJoints, HandModel::kVertices});
    s.weights = checked<float>("weights", weights, {HandModel::kVertices, HandModel::kJoints});
    s.parents = checked<std::int32_t>("parents", parents, {HandModel::kJoints});
    s.tips = checked<std::int32_t>("tips", tips, {HandModel::kTipSets, HandModel::kTips});
    for (int j = 0; j < HandModel::kJoints; ++j)
        if (s.parents[j] < (j ? 0 : -1) || s.parents[j] >= j)
            throw std::invalid_argument("parents: expected -1, then each in [0, joint), got " +
                                        std::to_string(s.parents[j]) + " for joint " + std::to_string(j));
    for (int t = 0; t < HandModel::kTipSets * HandModel::kTips; ++t)
        if (s.tips[t] < 0 || s.tips[t] >= HandModel::kVertices)
            throw std::invalid_argument("tips: expected vertices in [0, 778), got " + std::to_string(s.tips[t]));
    return HandModel(s);
}

// The kernel keeps scratch and the shaped template inside: one thread at a time.
class LockedHandModel {
 public:
    explicit LockedHandModel(HandModel model) : model_(std::move(model)) {}

    py::tuple forward(const py::array& pose, const py::array& betas, const std::optional<py::array>& trans,
                      const std::optional<py::array>& mean_pose, bool center, int tips, bool vertices) {
        HandModel::Batch b{};
        b.matrices = pose.ndim() == 4;
        b.pose = b.matrices ? checked<float>("pose", pose, {kAny, HandModel::kJoints, 3, 3})
                            : checked<float>("pose", pose, {kAny, HandModel::kJoints, 3});
        b.count = pose.shape(0);
        b.betas_per_hand = betas.ndim() == 2;
        b.betas = b.betas_per_hand ? checked<float>("betas", betas, {b.count, HandModel::kBetas})
                                   : checked<float>("betas", betas, {HandModel::kBetas});
        if (trans) b.trans = checked<float>("trans", *trans, {b.count, 3});
        if (mean_pose) {
            if (b.matrices) throw std::invalid_argument("mean_pose: expected None with rotation matrices");
            b.mean_pose = checked<float>("mean_pose", *mean_pose, {HandModel::kJoints - 1, 3});
        }
        if (tips < 0 || tips >= HandModel::kTipSets)
            throw std::invalid_argument("tips: expected 0 or 1, got " + std::to_string(tips));
        b.center = center;
        b.tips = tips;
        py::array_t<float> keypoints({b.count, std::int64_t{HandModel::kKeypoints}, std::int64_t{3}});
        b.keypoints = keypoints.mutable_data();
        py::object mesh = py::none();
        if (vertices) {
            py::array_t<float> array({b.count, std::int64_t{HandModel::kVertices}, std::int64_t{3}});
            b.vertices = array.mutable_data();
            mesh = std::move(array);
        }
        {
            py::gil_scoped_release release;
            const std::lock_guard<std::mutex> lock(mutex_);
            model_.forward(b);
        }
        return py::make_tuple(std::move(keypoints), std::move(mesh));
    }

 private:
    HandModel model_;
    std::mutex mutex_;
};

}  // namespace

void bind_mano(py::module_& m) {
    py::class_<LockedHandModel>(m, "HandModel")
        .def(py::init([](const py::array& v_template, const py::array& shapedirs, const py::array& posedirs,
                         const py::array& j_regressor, const py::array& weights, const py::array& parents,
                         const py::array& tips) {
                 return std::make_unique<LockedHandModel>(
                     build(v_template, shapedirs, posedirs, j_regressor, weights, parents, tips));
             }),
             py::kw_only(), py::arg("v_template"), py::arg("shapedirs"), py::arg("posedirs"), py::arg("j_regressor"),
             py::arg("weights"), py::arg("parents"), py::arg("tips"))
        .def("forward", &LockedHandModel::forward, py::arg("pose"), py::arg("betas"), py::arg("trans"),
             py::arg("mean_pose"), py::arg("center"), py::arg("tips"), py::arg("vertices"));
}
