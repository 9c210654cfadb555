// Python face of the retargeting solver: every check is here, the solver checks nothing.
#include <cmath>
#include <stdexcept>
#include <string>

#include "bind_check.hpp"
#include "retarget.hpp"

namespace py = pybind11;
namespace rt = beingh0::retarget;
using beingh0::checked;
using beingh0::finite;
using beingh0::kAny;

namespace {

void require(bool holds, const std::string& message) {
    if (!holds) throw std::invalid_argument(message);
}

template <std::size_t N>
std::array<double, N> take(const double* from) {
    std::array<double, N> out;
    std::copy(from, from + N, out.begin());
    return out;
}

rt::Vec3 unit(const std::string& name, const double* axis) {
    const rt::Vec3 out = take<3>(axis);
    const double length = std::sqrt(out[0] * out[0] + out[1] * out[1] + out[2] * out[2]);
    require(std::abs(length - 1.0) < 1e-6, name + ": the axis must have length 1, got " + std::to_string(length));
    return out;
}

// Links and points, for `joints` driven joints; not their bounds.
void read_hand(rt::Hand& hand, py::ssize_t joints, const py::array& parents, const py::array& origins,
               const py::array& axes, const py::array& link_joints, const py::array& multipliers,
               const py::array& offsets, const py::array& point_links, const py::array& points) {
    const py::ssize_t links = parents.size(), count = point_links.size();
    require(links >= 1 && links <= rt::kMaxLinks, "links: expected 1 to 64, got " + std::to_string(links));
    require(joints >= 1 && joints <= rt::kMaxJoints, "joints: expected 1 to 32, got " + std::to_string(joints));
    require(count >= 1 && count <= rt::kMaxPoints, "points: expected 1 to 64, got " + std::to_string(count));
    const std::int32_t* parent = checked<std::int32_t>("parents", parents, {links});
    const double* origin = finite<double>("origins", origins, {links, 3});
    const double* axis = finite<double>("axes", axes, {links, 3});
    const std::int32_t* joint = checked<std::int32_t>("link_joints", link_joints, {links});
    const double* multiplier = finite<double>("multipliers", multipliers, {links});
    const double* offset = finite<double>("offsets", offsets, {links});
    for (py::ssize_t i = 0; i < links; ++i) {
        const std::string name = "link " + std::to_string(i);
        require(parent[i] >= -1 && parent[i] < i,
                name + ": its parent must come before it, got " + std::to_string(parent[i]));
        require(joint[i] >= 0 && joint[i] < joints, name + ": unknown joint " + std::to_string(joint[i]));
        hand.links.push_back({parent[i], take<3>(origin + 3 * i), unit(name, axis + 3 * i), joint[i], multiplier[i],
                              offset[i]});
    }
    const std::int32_t* point_link = checked<std::int32_t>("point_links", point_links, {count});
    const double* position = finite<double>("points", points, {count, 3});
    for (py::ssize_t i = 0; i < count; ++i) {
        require(point_link[i] >= -1 && point_link[i] < links, "point " + std::to_string(i) + ": unknown link");
        hand.points.push_back({point_link[i], take<3>(position + 3 * i), {}});
    }
}

py::array_t<double> hand_points(const py::array& q, const py::array& parents, const py::array& origins,
                                const py::array& axes, const py::array& link_joints, const py::array& multipliers,
                                const py::array& offsets, const py::array& point_links, const py::array& points) {
    const double* angles = finite<double>("q_rad", q, {kAny, kAny});
    const py::ssize_t frames = q.shape(0), joints = q.shape(1);
    rt::Hand hand;
    read_hand(hand, joints, parents, origins, axes, link_joints, multipliers, offsets, point_links, points);
    const auto count = static_cast<py::ssize_t>(hand.points.size());
    py::array_t<double> out({frames, count, static_cast<py::ssize_t>(3)});
    double* positions = out.mutable_data();
    py::gil_scoped_release release;
    rt::Pose pose;
    for (py::ssize_t t = 0; t < frames; ++t) {
        hand.place(angles + joints * t, pose);
        hand.positions(pose, static_cast<int>(count), positions + 3 * count * t);
    }
    return out;
}

py::array_t<double> rotation_about(const py::array& axis, double angle) {
    const rt::Vec3 about = unit("rotation_about", finite<double>("axis", axis, {3}));
    require(std::isfinite(angle), "angle_rad: expected a finite number, got " + std::to_string(angle));
    py::array_t<double> out({3, 3});
    const rt::Mat3 turn = rt::rotation_about(about, angle);
    std::copy(turn.begin(), turn.end(), out.mutable_data());
    return out;
}

class Solver {
  public:
    Solver(const py::array& parents, const py::array& origins, const py::array& axes, const py::array& link_joints,
           const py::array& multipliers, const py::array& offsets, const py::array& point_links,
           const py::array& points, int tips, const py::array& lower, const py::array& upper,
           const py::array& human_tips, const py::array& human_bases, const py::array& bases, const py::array& maps,
           int thumb, const py::array& palm_from_wrist, double huber_m, double smoothness_m2, double pinch_weight,
           double pinch_near_m, double pinch_far_m, const py::array& pairs, const py::array& pair_distances,
           double pair_weight) {
        const py::ssize_t joints = lower.size(), count = point_links.size();
        read_hand(hand_, joints, parents, origins, axes, link_joints, multipliers, offsets, point_links, points);
        require(tips >= 1 && tips <= rt::kMaxFingers && tips <= count,
                "tips: expected 1 to 5, got " + std::to_string(tips));
        hand_.tips = tips;
        const int longest = hand_.prepare();
        require(longest <= rt::kMaxChain,
                "links: expected at most 16 hinges between palm and a point, got " + std::to_string(longest));
        const double* low = finite<double>("lower", lower, {joints});
        const double* high = finite<double>("upper", upper, {joints});
        for (py::ssize_t j = 0; j < joints; ++j)
            require(low[j] < high[j], "joint " + std::to_string(j) + ": lower must be below upper");
        hand_.lower.assign(low, low + joints);
        hand_.upper.assign(high, high + joints);

        const std::int32_t* human_tip = checked<std::int32_t>("human_tips", human_tips, {tips});
        const std::int32_t* human_base = checked<std::int32_t>("human_bases", human_bases, {tips});
        const double* base = finite<double>("bases", bases, {tips, 3});
        const double* map = finite<double>("maps", maps, {tips, 3, 3});
        for (int i = 0; i < tips; ++i) {
            require(human_tip[i] >= 0 && human_tip[i] < rt::kHumanKeypoints && human_base[i] >= 0 &&
                        human_base[i] < rt::kHumanKeypoints,
                    "finger " + std::to_string(i) + ": a keypoint is not in 0..20");
            objective_.fingers.push_back({i, human_tip[i], human_base[i], take<3>(base + 3 * i), take<9>(map + 9 * i)});
        }
        require(thumb >= -1 && thumb < tips, "thumb: expected -1 or a finger, got " + std::to_string(thumb));
        objective_.thumb = thumb;
        objective_.palm_from_wrist = take<9>(finite<double>("palm_from_wrist", palm_from_wrist, {3, 3}));
        require(huber_m > 0 && smoothness_m2 >= 0 && pinch_weight >= 0 && pinch_near_m >= 0 &&
                    pinch_far_m > pinch_near_m && std::isfinite(huber_m + smoothness_m2 + pinch_weight + pinch_far_m),
                "objective: huber_m > 0, smoothness_m2 >= 0, pinch_weight >= 0 and 0 <= pinch_near_m < pinch_far_m are "
                "needed");
        objective_.huber_m = huber_m;
        objective_.smoothness_m2 = smoothness_m2;
        objective_.pinch_weight = pinch_weight;
        objective_.pinch_near_m = pinch_near_m;
        objective_.pinch_far_m = pinch_far_m;
        const py::ssize_t pair_count = pairs.ndim() == 2 ? pairs.shape(0) : 0;
        require(pair_count <= rt::kMaxPairs, "pairs: expected at most 128, got " + std::to_string(pair_count));
        const std::int32_t* pair = checked<std::int32_t>("pairs", pairs, {pair_count, 4});
        const double* distance = finite<double>("pair_distances", pair_distances, {pair_count});
        for (py::ssize_t i = 0; i < pair_count; ++i) {
            for (int e = 0; e < 4; ++e)
                require(pair[4 * i + e] >= 0 && pair[4 * i + e] < count,
                        "pair " + std::to_string(i) + ": unknown point " + std::to_string(pair[4 * i + e]));
            require(distance[i] > 0, "pair " + std::to_string(i) + ": the distance must be above 0");
            objective_.pairs.push_back({pair[4 * i], pair[4 * i + 1], pair[4 * i + 2], pair[4 * i + 3], distance[i]});
        }
        require(pair_weight >= 0 && std::isfinite(pair_weight), "pair_weight: expected a number >= 0");
        objective_.pair_weight = pair_weight;
    }

    py::array_t<double> jacobian(const py::array& q) const {
        const double* angles = finite<double>("q_rad", q, {hand_.joints()});
        const py::ssize_t count = static_cast<py::ssize_t>(hand_.points.size());
        py::array_t<double> out({count, static_cast<py::ssize_t>(3), static_cast<py::ssize_t>(hand_.joints())});
        double* slope = out.mutable_data();
        std::vector<double> positions(3 * hand_.points.size());
        py::gil_scoped_release release;
        rt::Pose pose;
        hand_.place(angles, pose);
        hand_.positions(pose, static_cast<int>(count), positions.data());
        hand_.jacobian(pose, positions.data(), static_cast<int>(count), slope);
        return out;
    }

    py::tuple solve(const py::array& keypoints, const py::array& start) const {
        const float* human = checked<float>("keypoints_wrist_m", keypoints, {kAny, rt::kHumanKeypoints, 3});
        const py::ssize_t frames = keypoints.shape(0);
        for (py::ssize_t i = 0; i < keypoints.size(); ++i)
            if (!std::isfinite(human[i]))
                throw std::invalid_argument("keypoints_wrist_m: not finite in frame " +
                                            std::to_string(i / (3 * rt::kHumanKeypoints)));
        const int joints = hand_.joints();
        const double* first = finite<double>("q_start_rad", start, {joints});
        for (int j = 0; j < joints; ++j)
            require(first[j] >= hand_.lower[j] && first[j] <= hand_.upper[j],
                    "q_start_rad: joint " + std::to_string(j) + " is outside its limits");
        py::array_t<double> out({frames, static_cast<py::ssize_t>(joints)});
        py::array_t<std::int32_t> iterations(frames);
        double* q = out.mutable_data();
        std::int32_t* used = iterations.mutable_data();
        {
            py::gil_scoped_release release;
            std::array<double, 3 * rt::kHumanKeypoints> frame;
            for (py::ssize_t t = 0; t < frames; ++t) {
                std::copy_n(human + t * frame.size(), frame.size(), frame.begin());
                const double* before = t == 0 ? first : q + (t - 1) * joints;
                std::copy_n(before, joints, q + t * joints);
                used[t] = rt::solve_frame(hand_, objective_, frame.data(), q + t * joints);
            }
        }
        return py::make_tuple(out, iterations);
    }

    double objective(const py::array& keypoints, const py::array& previous, const py::array& q) const {
        return value(keypoints, previous, q, nullptr);
    }

    py::array_t<double> gradient(const py::array& keypoints, const py::array& previous, const py::array& q) const {
        py::array_t<double> out(static_cast<py::ssize_t>(hand_.joints()));
        value(keypoints, previous, q, out.mutable_data());
        return out;
    }

    py::array_t<double> distances(const py::array& q) const {
        const double* angles = finite<double>("q_rad", q, {hand_.joints()});
        py::array_t<double> out(static_cast<py::ssize_t>(objective_.pairs.size()));
        double* apart = out.mutable_data();
        py::gil_scoped_release release;
        rt::pair_distances(hand_, objective_, angles, apart);
        return out;
    }

  private:
    double value(const py::array& keypoints, const py::array& previous, const py::array& q, double* gradient) const {
        const double* human = finite<double>("keypoints_wrist_m", keypoints, {rt::kHumanKeypoints, 3});
        const double* before = finite<double>("previous_rad", previous, {hand_.joints()});
        const double* angles = finite<double>("q_rad", q, {hand_.joints()});
        py::gil_scoped_release release;
        return rt::objective_value(hand_, objective_, human, before, angles, gradient);
    }

    rt::Hand hand_;
    rt::Objective objective_;
};

int first_strange_frame(const py::array& keypoints, const py::array& palm, double max_wrist_m, double max_size_ratio,
                        double max_reach_m, double max_palm_error) {
    const float* human = checked<float>("keypoints_wrist_m", keypoints, {kAny, rt::kHumanKeypoints, 3});
    const double* reference = finite<double>("palm_m", palm, {6, 3});
    rt::Shape shape{{}, max_wrist_m, max_size_ratio, max_reach_m, max_palm_error};
    for (int i = 0; i < 6; ++i) shape.palm[i] = take<3>(reference + 3 * i);
    const py::ssize_t frames = keypoints.shape(0);
    py::gil_scoped_release release;
    for (py::ssize_t t = 0; t < frames; ++t)
        if (!rt::is_hand(shape, human + t * 3 * rt::kHumanKeypoints)) return static_cast<int>(t);
    return -1;
}

}  // namespace

void bind_retarget(py::module_& m) {
    py::class_<Solver>(
        m, "RetargetSolver",
        "Kinematics of a robot hand and the bounded least-squares solver that follows a human hand with it.")
        .def(py::init<const py::array&, const py::array&, const py::array&, const py::array&, const py::array&,
                      const py::array&, const py::array&, const py::array&, int, const py::array&, const py::array&,
                      const py::array&, const py::array&, const py::array&, const py::array&, int, const py::array&,
                      double, double, double, double, double, const py::array&, const py::array&, double>(),
             py::kw_only(), py::arg("parents"), py::arg("origins"), py::arg("axes"), py::arg("link_joints"),
             py::arg("multipliers"), py::arg("offsets"), py::arg("point_links"), py::arg("points"), py::arg("tips"),
             py::arg("lower"), py::arg("upper"), py::arg("human_tips"), py::arg("human_bases"), py::arg("bases"),
             py::arg("maps"), py::arg("thumb"), py::arg("palm_from_wrist"), py::arg("huber_m"),
             py::arg("smoothness_m2"), py::arg("pinch_weight"), py::arg("pinch_near_m"), py::arg("pinch_far_m"),
             py::arg("pairs"), py::arg("pair_distances"), py::arg("pair_weight"))
        .def("jacobian", &Solver::jacobian, py::arg("q_rad"), "float64[J] -> float64[P, 3, J], metres per radian.")
        .def("solve", &Solver::solve, py::arg("keypoints_wrist_m"), py::arg("q_start_rad"),
             "float32[T, 21, 3], float64[J] -> float64[T, J] within limits, int32[T] iterations. Each frame starts at "
             "the one before.")
        .def("objective", &Solver::objective, py::arg("keypoints_wrist_m"), py::arg("previous_rad"), py::arg("q_rad"),
             "The value solve() makes small for one frame: float64[21, 3], float64[J], float64[J] -> m^2.")
        .def("gradient", &Solver::gradient, py::arg("keypoints_wrist_m"), py::arg("previous_rad"), py::arg("q_rad"),
             "Its derivative by q: float64[J], m^2 / rad.")
        .def("pair_distances", &Solver::distances, py::arg("q_rad"),
             "float64[J] -> float64[pairs], shortest distance between the axes of each pair, metres.");
    m.def("hand_points", &hand_points, py::arg("q_rad"), py::kw_only(), py::arg("parents"), py::arg("origins"),
          py::arg("axes"), py::arg("link_joints"), py::arg("multipliers"), py::arg("offsets"), py::arg("point_links"),
          py::arg("points"),
          "float64[N, J] and a hand as RetargetSolver takes it -> float64[N, P, 3], palm frame, metres; no limits.");
    m.def("rotation_about", &rotation_about, py::arg("axis"), py::arg("angle_rad"),
          "float64[3] of length 1 -> float64[3, 3].");
    m.def("first_strange_frame", &first_strange_frame, py::arg("keypoints_wrist_m"), py::arg("palm_m"), py::kw_only(),
          py::arg("max_wrist_m"), py::arg("max_size_ratio"), py::arg("max_reach_m"), py::arg("max_palm_error"),
          "float32[T, 21, 3], float64[6, 3] (wrist, thumb root, knuckles of the open hand) -> the first frame that is "
          "not finite or not such a hand in the wrist frame, -1 when all are.");
}
