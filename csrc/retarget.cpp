#include "retarget.hpp"

#include <algorithm>
#include <cmath>

namespace beingh0::retarget {
namespace {

constexpr int kMaxIterations = 40;
constexpr double kSmallestStepRad = 1e-6;
constexpr double kSmallestGain = 1e-10;  // of the objective, per iteration
constexpr double kFirstDamping = 1e-7;   // m^2 / rad^2; a fingertip moves about 0.08 m / rad

Vec3 transform(const Mat3& m, const Vec3& v) noexcept {
    return {m[0] * v[0] + m[1] * v[1] + m[2] * v[2], m[3] * v[0] + m[4] * v[1] + m[5] * v[2],
            m[6] * v[0] + m[7] * v[1] + m[8] * v[2]};
}

Vec3 cross(const Vec3& a, const Vec3& b) noexcept {
    return {a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]};
}

// parent * Rodrigues(axis, angle)
Mat3 turned(const Mat3& parent, const Vec3& axis, double angle) noexcept {
    const double s = std::sin(angle), c = std::cos(angle), k = 1.0 - c;
    const double x = axis[0], y = axis[1], z = axis[2];
    const Mat3 r = {c + x * x * k,     x * y * k - z * s, x * z * k + y * s, y * x * k + z * s, c + y * y * k,
                    y * z * k - x * s, z * x * k - y * s, z * y * k + x * s, c + z * z * k};
    Mat3 out;
    for (int i = 0; i < 3; ++i)
        for (int j = 0; j < 3; ++j)
            out[3 * i + j] = parent[3 * i] * r[j] + parent[3 * i + 1] * r[3 + j] + parent[3 * i + 2] * r[6 + j];
    return out;
}

constexpr Mat3 kIdentity = {1, 0, 0, 0, 1, 0, 0, 0, 1};

// One wanted vector: position of `to`, minus position of `from` unless that is -1.
struct Task {
    int to, from;
    Vec3 target;
    double weight;
    double huber_m;  // 0: plain square
};

struct Tasks {
    std::array<Task, 2 * kMaxFingers> list;
    int count = 0;
};

double pinch_share(const Objective& objective, double gap_m) noexcept {
    const double x =
        std::clamp((objective.pinch_far_m - gap_m) / (objective.pinch_far_m - objective.pinch_near_m), 0.0, 1.0);
    return x * x * x * (x * (6.0 * x - 15.0) + 10.0);
}

Vec3 keypoint(const double* keypoints, int index) noexcept {
    return {keypoints[3 * index], keypoints[3 * index + 1], keypoints[3 * index + 2]};
}

Vec3 minus(const Vec3& a, const Vec3& b) noexcept { return {a[0] - b[0], a[1] - b[1], a[2] - b[2]}; }

Tasks make_tasks(const Objective& objective, const double* keypoints) noexcept {
    Tasks tasks;
    for (const Finger& finger : objective.fingers) {
        Vec3 target =
            transform(finger.map, minus(keypoint(keypoints, finger.human_tip), keypoint(keypoints, finger.human_base)));
        for (int k = 0; k < 3; ++k) target[k] += finger.base[k];
        tasks.list[tasks.count++] = {finger.tip, -1, target, 1.0, objective.huber_m};
    }
    if (objective.thumb < 0) return tasks;
    const Finger& thumb = objective.fingers[objective.thumb];
    for (int i = 0; i < static_cast<int>(objective.fingers.size()); ++i) {
        if (i == objective.thumb) continue;
        const Finger& finger = objective.fingers[i];
        const Vec3 gap = minus(keypoint(keypoints, finger.human_tip), keypoint(keypoints, thumb.human_tip));
        const double share = pinch_share(objective, std::sqrt(gap[0] * gap[0] + gap[1] * gap[1] + gap[2] * gap[2]));
        if (share <= 0.0) continue;
        tasks.list[tasks.count++] = {finger.tip, thumb.tip, transform(objective.palm_from_wrist, gap),
                                     objective.pinch_weight * share, 0.0};
    }
    return tasks;
}

Vec3 residual(const Task& task, const double* positions) noexcept {
    Vec3 r;
    for (int k = 0; k < 3; ++k) {
        r[k] = positions[3 * task.to + k] - task.target[k];
        if (task.from >= 0) r[k] -= positions[3 * task.from + k];
    }
    return r;
}

double cost(const Hand& hand, const Objective& objective, const Tasks& tasks, const double* positions,
            const double* previous, const double* q) noexcept {
    double total = 0.0;
    for (int t = 0; t < tasks.count; ++t) {
        const Task& task = tasks.list[t];
        const Vec3 r = residual(task, positions);
        const double square = r[0] * r[0] + r[1] * r[1] + r[2] * r[2];
        if (task.huber_m > 0.0 && square > task.huber_m * task.huber_m)
            total += task.weight * task.huber_m * (std::sqrt(square) - 0.5 * task.huber_m);
        else
            total += 0.5 * task.weight * square;
    }
    for (int j = 0; j < hand.joints(); ++j)
        total += 0.5 * objective.smoothness_m2 * (q[j] - previous[j]) * (q[j] - previous[j]);
    return total;
}

// Solve A x = b for symmetric positive definite A[n][n] (row stride kMaxJoints), in place. False if A is not.
bool cholesky_solve(double* a, double* b, int n) noexcept {
    for (int i = 0; i < n; ++i) {
        double* row = a + i * kMaxJoints;
        for (int j = 0; j <= i; ++j) {
            double sum = row[j];
            for (int k = 0; k < j; ++k) sum -= row[k] * a[j * kMaxJoints + k];
            if (i != j) {
                row[j] = sum / a[j * kMaxJoints + j];
            } else {
                if (!(sum > 0.0)) return false;
                row[i] = std::sqrt(sum);
            }
        }
    }
    for (int i = 0; i < n; ++i) {
        for (int k = 0; k < i; ++k) b[i] -= a[i * kMaxJoints + k] * b[k];
        b[i] /= a[i * kMaxJoints + i];
    }
    for (int i = n - 1; i >= 0; --i) {
        for (int k = i + 1; k < n; ++k) b[i] -= a[k * kMaxJoints + i] * b[k];
        b[i] /= a[i * kMaxJoints + i];
    }
    return true;
}

}  // namespace

void Hand::forward(const double* q, int count, double* positions, double* jacobian) const noexcept {
    const int n = joints();
    std::array<Mat3, kMaxLinks> rotation;
    std::array<Vec3, kMaxLinks> origin, axis;
    for (std::size_t i = 0; i < links.size(); ++i) {
        const Link& link = links[i];
        const Mat3& parent_rotation = link.parent < 0 ? kIdentity : rotation[link.parent];
        origin[i] = transform(parent_rotation, link.origin);
        if (link.parent >= 0)
            for (int k = 0; k < 3; ++k) origin[i][k] += origin[link.parent][k];
        axis[i] = transform(parent_rotation, link.axis);
        rotation[i] = turned(parent_rotation, link.axis, link.multiplier * q[link.joint] + link.offset);
    }
    for (int p = 0; p < count; ++p) {
        const Point& point = points[p];
        Vec3 at = point.position;
        if (point.link >= 0) {
            at = transform(rotation[point.link], point.position);
            for (int k = 0; k < 3; ++k) at[k] += origin[point.link][k];
        }
        std::copy(at.begin(), at.end(), positions + 3 * p);
        if (jacobian == nullptr) continue;
        double* rows = jacobian + 3 * n * p;
        std::fill(rows, rows + 3 * n, 0.0);
        for (int i = point.link; i >= 0; i = links[i].parent) {
            const Vec3 column = cross(axis[i], minus(at, origin[i]));
            for (int k = 0; k < 3; ++k) rows[k * n + links[i].joint] += links[i].multiplier * column[k];
        }
    }
}

double objective_value(const Hand& hand, const Objective& objective, const double* keypoints, const double* previous,
                       const double* q) noexcept {
    std::array<double, 3 * kMaxFingers> positions;
    hand.forward(q, hand.tips, positions.data(), nullptr);
    return cost(hand, objective, make_tasks(objective, keypoints), positions.data(), previous, q);
}

int solve_frame(const Hand& hand, const Objective& objective, const double* keypoints, double* q) noexcept {
    const int n = hand.joints();
    std::array<double, 3 * kMaxFingers> positions;
    std::array<double, 3 * kMaxFingers * kMaxJoints> jacobian;
    std::array<double, kMaxJoints * kMaxJoints> hessian, system;
    std::array<double, kMaxJoints> previous, gradient, step, candidate;
    std::array<int, kMaxJoints> open;  // joints that may move in this step
    std::copy(q, q + n, previous.begin());
    const Tasks tasks = make_tasks(objective, keypoints);
    hand.forward(q, hand.tips, positions.data(), jacobian.data());
    double value = cost(hand, objective, tasks, positions.data(), previous.data(), q);
    double damping = kFirstDamping;

    for (int iteration = 1; iteration <= kMaxIterations; ++iteration) {
        for (int j = 0; j < n; ++j) {
            gradient[j] = objective.smoothness_m2 * (q[j] - previous[j]);
            std::fill_n(hessian.begin() + j * kMaxJoints, n, 0.0);
            hessian[j * kMaxJoints + j] = objective.smoothness_m2;
        }
        for (int t = 0; t < tasks.count; ++t) {
            const Task& task = tasks.list[t];
            const Vec3 r = residual(task, positions.data());
            double weight = task.weight;
            if (task.huber_m > 0.0) {
                const double length = std::sqrt(r[0] * r[0] + r[1] * r[1] + r[2] * r[2]);
                if (length > task.huber_m) weight *= task.huber_m / length;
            }
            for (int k = 0; k < 3; ++k) {
                const double* to = jacobian.data() + (3 * task.to + k) * n;
                const double* from = task.from < 0 ? nullptr : jacobian.data() + (3 * task.from + k) * n;
                std::array<double, kMaxJoints> row;
                for (int j = 0; j < n; ++j) row[j] = from ? to[j] - from[j] : to[j];
                for (int i = 0; i < n; ++i) {
                    if (row[i] == 0.0) continue;
                    gradient[i] += weight * row[i] * r[k];
                    for (int j = 0; j <= i; ++j) hessian[i * kMaxJoints + j] += weight * row[i] * row[j];
                }
            }
        }

        int free_count = 0;
        for (int j = 0; j < n; ++j) {
            const bool blocked =
                (q[j] <= hand.lower[j] && gradient[j] > 0.0) || (q[j] >= hand.upper[j] && gradient[j] < 0.0);
            if (!blocked) open[free_count++] = j;
        }
        if (free_count == 0) return iteration;

        bool moved = false, settled = false;
        double largest = 0.0;
        while (!moved) {
            for (int i = 0; i < free_count; ++i) {
                for (int j = 0; j <= i; ++j) system[i * kMaxJoints + j] = hessian[open[i] * kMaxJoints + open[j]];
                system[i * kMaxJoints + i] += damping;
                step[i] = -gradient[open[i]];
            }
            if (!cholesky_solve(system.data(), step.data(), free_count)) {
                damping *= 10.0;
                if (damping > 1e6) return iteration;
                continue;
            }
            std::copy(q, q + n, candidate.begin());
            largest = 0.0;
            for (int i = 0; i < free_count; ++i) {
                const int j = open[i];
                candidate[j] = std::clamp(q[j] + step[i], hand.lower[j], hand.upper[j]);
                largest = std::max(largest, std::abs(candidate[j] - q[j]));
            }
            if (largest < kSmallestStepRad) return iteration;
            hand.forward(candidate.data(), hand.tips, positions.data(), jacobian.data());
            const double tried = cost(hand, objective, tasks, positions.data(), previous.data(), candidate.data());
            if (tried < value) {
                settled = value - tried < kSmallestGain * value;
                value = tried;
                moved = true;
            } else {
                damping = std::max(damping, 1e-6) * 8.0;
            }
        }
        std::copy_n(candidate.begin(), n, q);
        if (settled) return iteration;
        damping = std::max(damping * 0.2, 1e-12);
    }
    return kMaxIterations;
}

}  // namespace beingh0::retarget
