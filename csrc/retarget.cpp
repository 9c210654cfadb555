#include "retarget.hpp"

#include <algorithm>
#include <cmath>

namespace beingh0::retarget {
namespace {

constexpr int kMaxIterations = 24;  // enough for all but a frame in thousands, which then goes on in the next one
constexpr double kSmallestStepRad = 1e-6;
constexpr double kSmallestGain = 1e-9;        // of the objective, per Gauss-Newton step
constexpr double kSmallestNewtonGain = 1e-6;  // what is left after such a step is about its square
constexpr double kFirstDamping = 1e-7;  // m^2 / rad^2; a fingertip moves about 0.08 m / rad

Vec3 transform(const Mat3& m, const Vec3& v) noexcept {
    return {m[0] * v[0] + m[1] * v[1] + m[2] * v[2], m[3] * v[0] + m[4] * v[1] + m[5] * v[2],
            m[6] * v[0] + m[7] * v[1] + m[8] * v[2]};
}

Vec3 cross(const Vec3& a, const Vec3& b) noexcept {
    return {a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]};
}

double dot(const Vec3& a, const Vec3& b) noexcept { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }
Vec3 minus(const Vec3& a, const Vec3& b) noexcept { return {a[0] - b[0], a[1] - b[1], a[2] - b[2]}; }
Vec3 at(const double* list, int index) noexcept { return {list[3 * index], list[3 * index + 1], list[3 * index + 2]}; }

Mat3 product(const Mat3& a, const Mat3& b) noexcept {
    Mat3 out;
    for (int i = 0; i < 3; ++i)
        for (int j = 0; j < 3; ++j) out[3 * i + j] = a[3 * i] * b[j] + a[3 * i + 1] * b[3 + j] + a[3 * i + 2] * b[6 + j];
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

// 0 when the gap is far, 1 when near, twice continuously differentiable between: no switch, so no jerk.
double pinch_share(const Objective& objective, double gap_m) noexcept {
    const double x =
        std::clamp((objective.pinch_far_m - gap_m) / (objective.pinch_far_m - objective.pinch_near_m), 0.0, 1.0);
    return x * x * x * (x * (6.0 * x - 15.0) + 10.0);
}

Tasks make_tasks(const Objective& objective, const double* keypoints) noexcept {
    Tasks tasks;
    for (const Finger& finger : objective.fingers) {
        Vec3 target = transform(finger.map, minus(at(keypoints, finger.human_tip), at(keypoints, finger.human_base)));
        for (int k = 0; k < 3; ++k) target[k] += finger.base[k];
        tasks.list[tasks.count++] = {finger.tip, -1, target, 1.0, objective.huber_m};
    }
    if (objective.thumb < 0 || objective.pinch_weight <= 0.0) return tasks;
    const Finger& thumb = objective.fingers[objective.thumb];
    for (int i = 0; i < static_cast<int>(objective.fingers.size()); ++i) {
        if (i == objective.thumb) continue;
        const Finger& finger = objective.fingers[i];
        const Vec3 gap = minus(at(keypoints, finger.human_tip), at(keypoints, thumb.human_tip));
        const double share = pinch_share(objective, std::sqrt(dot(gap, gap)));
        if (share <= 0.0) continue;
        tasks.list[tasks.count++] = {finger.tip, thumb.tip, transform(objective.palm_from_wrist, gap),
                                     objective.pinch_weight * share, 0.0};
    }
    return tasks;
}

Vec3 residual(const Task& task, const double* positions) noexcept {
    Vec3 r = minus(at(positions, task.to), task.target);
    return task.from < 0 ? r : minus(r, at(positions, task.from));
}

// Closest points of two segments: shares s and t along them, and the vector from b's to a's.
struct Closest {
    double s, t, distance;
    Vec3 between;
};

Closest closest(const Pair& pair, const double* positions) noexcept {
    const Vec3 a0 = at(positions, pair.a0), b0 = at(positions, pair.b0);
    const Vec3 u = minus(at(positions, pair.a1), a0), v = minus(at(positions, pair.b1), b0), w = minus(a0, b0);
    const double uu = dot(u, u), uv = dot(u, v), vv = dot(v, v), uw = dot(u, w), vw = dot(v, w);
    const double area = uu * vv - uv * uv;  // 0 when parallel: any s does, so the one below
    double s = area > 1e-12 * uu * vv ? std::clamp((uv * vw - vv * uw) / area, 0.0, 1.0) : 0.5;
    double t = vv > 0.0 ? (uv * s + vw) / vv : 0.0;
    if (t < 0.0 || t > 1.0 || vv <= 0.0) {
        t = std::clamp(t, 0.0, 1.0);
        s = uu > 0.0 ? std::clamp((uv * t - uw) / uu, 0.0, 1.0) : 0.0;
    }
    Vec3 between;
    for (int k = 0; k < 3; ++k) between[k] = w[k] + s * u[k] - t * v[k];
    return {s, t, std::sqrt(dot(between, between)), between};
}

// Whether the pair can be closer than it may at all: spheres around the two segments.
bool may_touch(const Pair& pair, const double* positions) noexcept {
    const Vec3 a0 = at(positions, pair.a0), a1 = at(positions, pair.a1);
    const Vec3 b0 = at(positions, pair.b0), b1 = at(positions, pair.b1);
    Vec3 middle;
    for (int k = 0; k < 3; ++k) middle[k] = 0.5 * (a0[k] + a1[k] - b0[k] - b1[k]);
    const Vec3 u = minus(a1, a0), v = minus(b1, b0);
    const double reach = pair.distance + 0.5 * (std::sqrt(dot(u, u)) + std::sqrt(dot(v, v)));
    return dot(middle, middle) < reach * reach;
}

double cost(const Hand& hand, const Objective& objective, const Tasks& tasks, const double* positions,
            const double* previous, const double* q) noexcept {
    double total = 0.0;
    for (int t = 0; t < tasks.count; ++t) {
        const Task& task = tasks.list[t];
        const Vec3 r = residual(task, positions);
        const double square = dot(r, r);
        if (task.huber_m > 0.0 && square > task.huber_m * task.huber_m)
            total += task.weight * task.huber_m * (std::sqrt(square) - 0.5 * task.huber_m);
        else
            total += 0.5 * task.weight * square;
    }
    for (const Pair& pair : objective.pairs) {
        if (!may_touch(pair, positions)) continue;
        const double missing = pair.distance - closest(pair, positions).distance;
        if (missing > 0.0) total += 0.5 * objective.pair_weight * missing * missing;
    }
    for (int j = 0; j < hand.joints(); ++j)
        total += 0.5 * objective.smoothness_m2 * (q[j] - previous[j]) * (q[j] - previous[j]);
    return total;
}

// Gradient and Hessian of the objective at one pose, exact but for the turning of a pair's shortest distance.
class Model {
  public:
    std::array<double, kMaxJoints> gradient;
    std::array<double, kMaxJoints * kMaxJoints> hessian;  // lower triangle
    std::array<double, kMaxJoints * kMaxJoints> convex;   // the part that is never negative: Gauss-Newton

    void build(const Hand& hand, const Objective& objective, const Tasks& tasks, const Pose& pose,
               const double* positions, const double* previous, const double* q) noexcept {
        hand_ = &hand;
        n_ = hand.joints();
        for (int j = 0; j < n_; ++j) {
            gradient[j] = objective.smoothness_m2 * (q[j] - previous[j]);
            std::fill_n(convex.begin() + j * kMaxJoints, j, 0.0);
            convex[j * kMaxJoints + j] = objective.smoothness_m2;
            std::fill_n(hessian.begin() + j * kMaxJoints, j + 1, 0.0);
        }
        const int count = objective.pairs.empty() ? hand.tips : static_cast<int>(hand.points.size());
        for (int p = 0; p < count; ++p) columns(pose, positions, p);
        for (int p = 0; p < hand.tips; ++p) force_[p] = {0, 0, 0};

        for (int t = 0; t < tasks.count; ++t) {
            const Task& task = tasks.list[t];
            const Vec3 r = residual(task, positions);
            const double length = std::sqrt(dot(r, r));
            double weight = task.weight, flat = 0.0;
            if (task.huber_m > 0.0 && length > task.huber_m) {
                weight *= task.huber_m / length;
                flat = -weight / (length * length);  // a linear tail does not curve along r
            }
            for (int k = 0; k < 3; ++k) {
                force_[task.to][k] += weight * r[k];
                if (task.from >= 0) force_[task.from][k] -= weight * r[k];
            }
            row_.clear();
            row_.add(column_[task.to], hand.points[task.to].chain, hand.links, 1.0);
            if (task.from >= 0) row_.add(column_[task.from], hand.points[task.from].chain, hand.links, -1.0);
            for (int i = 0; i < row_.count; ++i) {
                const double along = dot(row_.value[i], r);
                gradient[row_.joint[i]] += weight * along;
                for (int j = 0; j <= i; ++j) {
                    add(convex, row_.joint[i], row_.joint[j], weight * dot(row_.value[i], row_.value[j]));
                    if (flat != 0.0) add(hessian, row_.joint[i], row_.joint[j], flat * along * dot(row_.value[j], r));
                }
            }
        }
        for (int p = 0; p < hand.tips; ++p) bend(pose, p);
        for (const Pair& pair : objective.pairs) push(objective, pair, positions);
        for (int i = 0; i < n_; ++i)
            for (int j = 0; j <= i; ++j) hessian[i * kMaxJoints + j] += convex[i * kMaxJoints + j];
    }

  private:
    using Columns = std::array<Vec3, kMaxChain>;

    // Derivative of one vector with respect to the joints that move it.
    struct Row {
        std::array<int, kMaxJoints> joint, place;
        std::array<Vec3, kMaxJoints> value;
        int count = 0;

        Row() noexcept { place.fill(-1); }
        void clear() noexcept {
            for (int i = 0; i < count; ++i) place[joint[i]] = -1;
            count = 0;
        }
        void add(const Columns& columns, const std::vector<int>& chain, const std::vector<Link>& links,
                 double factor) noexcept {
            for (std::size_t c = 0; c < chain.size(); ++c) {
                const Link& link = links[chain[c]];
                int& slot = place[link.joint];
                if (slot < 0) {
                    slot = count;
                    joint[count] = link.joint;
                    value[count++] = {0, 0, 0};
                }
                for (int k = 0; k < 3; ++k) value[slot][k] += factor * link.multiplier * columns[c][k];
            }
        }
    };

    static void add(std::array<double, kMaxJoints * kMaxJoints>& matrix, int i, int j, double value) noexcept {
        matrix[i >= j ? i * kMaxJoints + j : j * kMaxJoints + i] += value;
    }

    void columns(const Pose& pose, const double* positions, int p) noexcept {
        const std::vector<int>& chain = hand_->points[p].chain;
        for (std::size_t c = 0; c < chain.size(); ++c)
            column_[p][c] = cross(pose.axis[chain[c]], minus(at(positions, p), pose.origin[chain[c]]));
    }

    // Second derivative of a point against the force on it: d2p / da db = axis_a x (axis_b x (p - o_b)), a before b.
    void bend(const Pose& pose, int p) noexcept {
        const std::vector<int>& chain = hand_->points[p].chain;
        for (std::size_t a = 0; a < chain.size(); ++a) {
            const Link& first = hand_->links[chain[a]];
            const Vec3 lever = cross(force_[p], pose.axis[chain[a]]);
            for (std::size_t b = a; b < chain.size(); ++b) {
                const Link& second = hand_->links[chain[b]];
                const double value = first.multiplier * second.multiplier * dot(lever, column_[p][b]);
                add(hessian, first.joint, second.joint, value);
                if (a != b && first.joint == second.joint) add(hessian, first.joint, first.joint, value);
            }
        }
    }

    void push(const Objective& objective, const Pair& pair, const double* positions) noexcept {
        if (!may_touch(pair, positions)) return;
        const Closest c = closest(pair, positions);
        const double missing = pair.distance - c.distance;
        if (missing <= 0.0 || c.distance < 1e-9) return;  // crossing axes have no direction to part in
        row_.clear();
        const std::array<int, 4> ends = {pair.a0, pair.a1, pair.b0, pair.b1};
        const std::array<double, 4> shares = {1.0 - c.s, c.s, c.t - 1.0, -c.t};
        for (int e = 0; e < 4; ++e)
            row_.add(column_[ends[e]], hand_->points[ends[e]].chain, hand_->links, shares[e] / c.distance);
        std::array<double, kMaxJoints> slope;
        for (int i = 0; i < row_.count; ++i) {
            slope[i] = dot(row_.value[i], c.between);
            gradient[row_.joint[i]] -= objective.pair_weight * missing * slope[i];
            for (int j = 0; j <= i; ++j)
                add(convex, row_.joint[i], row_.joint[j], objective.pair_weight * slope[i] * slope[j]);
        }
    }

    const Hand* hand_ = nullptr;
    int n_ = 0;
    std::array<Columns, kMaxPoints> column_;
    std::array<Vec3, kMaxFingers> force_;
    Row row_;
};

// Solve A x = b for symmetric positive definite A[n][n] (row stride kMaxJoints, lower triangle), in place. False if A
// is not. Zeros before the first entry of a row stay zeros and are skipped: fingers hardly couple.
bool cholesky_solve(double* a, double* b, int n) noexcept {
    std::array<int, kMaxJoints> first;
    for (int i = 0; i < n; ++i) {
        double* row = a + i * kMaxJoints;
        first[i] = 0;
        while (first[i] < i && row[first[i]] == 0.0) ++first[i];
        for (int j = first[i]; j < i; ++j) {
            const double* other = a + j * kMaxJoints;
            double sum = row[j];
            for (int k = std::max(first[i], first[j]); k < j; ++k) sum -= row[k] * other[k];
            row[j] = sum * other[j];  // the diagonal holds its inverse
        }
        double sum = row[i];
        for (int k = first[i]; k < i; ++k) sum -= row[k] * row[k];
        if (!(sum > 0.0)) return false;
        row[i] = 1.0 / std::sqrt(sum);
    }
    for (int i = 0; i < n; ++i) {
        const double* row = a + i * kMaxJoints;
        for (int k = first[i]; k < i; ++k) b[i] -= row[k] * b[k];
        b[i] *= row[i];
    }
    for (int i = n - 1; i >= 0; --i) {
        const double* row = a + i * kMaxJoints;
        b[i] *= row[i];
        for (int k = first[i]; k < i; ++k) b[k] -= row[k] * b[i];
    }
    return true;
}

// The smallest of gradient * d + d * (matrix + damping) * d / 2 within the bounds, nearly: a joint that would pass its
// bound is put onto it and the others are solved again. Joints not in `open` stay. False if the matrix is not positive.
bool bounded_step(const Hand& hand, const double* matrix, const double* gradient, double damping, const double* q,
                  std::array<int, kMaxJoints> open, int count, double* step) noexcept {
    std::array<double, kMaxJoints * kMaxJoints> system;
    std::array<double, kMaxJoints> x;
    const int n = hand.joints();
    std::fill(step, step + n, 0.0);
    while (count > 0) {
        for (int i = 0; i < count; ++i) {
            const double* row = matrix + open[i] * kMaxJoints;
            for (int j = 0; j <= i; ++j) system[i * kMaxJoints + j] = row[open[j]];
            system[i * kMaxJoints + i] += damping;
            x[i] = -gradient[open[i]];
            for (int j = 0; j < n; ++j)  // what the joints already on their bounds change
                if (step[j] != 0.0) x[i] -= (open[i] >= j ? row[j] : matrix[j * kMaxJoints + open[i]]) * step[j];
        }
        if (!cholesky_solve(system.data(), x.data(), count)) return false;
        int left = 0;
        for (int i = 0; i < count; ++i) {
            const int j = open[i];
            if (q[j] + x[i] < hand.lower[j])
                step[j] = hand.lower[j] - q[j];
            else if (q[j] + x[i] > hand.upper[j])
                step[j] = hand.upper[j] - q[j];
            else {
                x[left] = x[i];
                open[left++] = j;
            }
        }
        if (left == count) {
            for (int i = 0; i < count; ++i) step[open[i]] = x[i];
            return true;
        }
        count = left;
    }
    return true;
}

}  // namespace

Mat3 rotation_about(const Vec3& axis, double angle) noexcept {
    const double s = std::sin(angle), c = std::cos(angle), k = 1.0 - c;
    const double x = axis[0], y = axis[1], z = axis[2];
    return {c + x * x * k,     x * y * k - z * s, x * z * k + y * s, y * x * k + z * s, c + y * y * k,
            y * z * k - x * s, z * x * k - y * s, z * y * k + x * s, c + z * z * k};
}

int Hand::prepare() {
    std::size_t longest = 0;
    for (Point& point : points) {
        point.chain.clear();
        for (int i = point.link; i >= 0; i = links[i].parent) point.chain.push_back(i);
        std::reverse(point.chain.begin(), point.chain.end());
        longest = std::max(longest, point.chain.size());
    }
    return static_cast<int>(longest);
}

void Hand::place(const double* q, Pose& pose) const noexcept {
    for (std::size_t i = 0; i < links.size(); ++i) {
        const Link& link = links[i];
        const Mat3& parent = link.parent < 0 ? kIdentity : pose.rotation[link.parent];
        pose.origin[i] = transform(parent, link.origin);
        if (link.parent >= 0)
            for (int k = 0; k < 3; ++k) pose.origin[i][k] += pose.origin[link.parent][k];
        pose.axis[i] = transform(parent, link.axis);
        pose.rotation[i] = product(parent, rotation_about(link.axis, link.multiplier * q[link.joint] + link.offset));
    }
}

void Hand::positions(const Pose& pose, int count, double* out) const noexcept {
    for (int p = 0; p < count; ++p) {
        const Point& point = points[p];
        Vec3 where = point.position;
        if (point.link >= 0) {
            where = transform(pose.rotation[point.link], point.position);
            for (int k = 0; k < 3; ++k) where[k] += pose.origin[point.link][k];
        }
        std::copy(where.begin(), where.end(), out + 3 * p);
    }
}

void Hand::jacobian(const Pose& pose, const double* where, int count, double* out) const noexcept {
    const int n = joints();
    std::fill(out, out + 3 * n * count, 0.0);
    for (int p = 0; p < count; ++p)
        for (const int i : points[p].chain) {
            const Vec3 column = cross(pose.axis[i], minus(at(where, p), pose.origin[i]));
            for (int k = 0; k < 3; ++k) out[(3 * p + k) * n + links[i].joint] += links[i].multiplier * column[k];
        }
}

double objective_value(const Hand& hand, const Objective& objective, const double* keypoints, const double* previous,
                       const double* q, double* gradient) noexcept {
    Pose pose;
    std::array<double, 3 * kMaxPoints> positions;
    hand.place(q, pose);
    hand.positions(pose, static_cast<int>(hand.points.size()), positions.data());
    const Tasks tasks = make_tasks(objective, keypoints);
    if (gradient != nullptr) {
        Model model;
        model.build(hand, objective, tasks, pose, positions.data(), previous, q);
        std::copy_n(model.gradient.begin(), hand.joints(), gradient);
    }
    return cost(hand, objective, tasks, positions.data(), previous, q);
}

void pair_distances(const Hand& hand, const Objective& objective, const double* q, double* out) noexcept {
    Pose pose;
    std::array<double, 3 * kMaxPoints> positions;
    hand.place(q, pose);
    hand.positions(pose, static_cast<int>(hand.points.size()), positions.data());
    for (std::size_t i = 0; i < objective.pairs.size(); ++i)
        out[i] = closest(objective.pairs[i], positions.data()).distance;
}

int solve_frame(const Hand& hand, const Objective& objective, const double* keypoints, double* q) noexcept {
    const int n = hand.joints();
    const int count = objective.pairs.empty() ? hand.tips : static_cast<int>(hand.points.size());
    Pose pose;
    Model model;
    std::array<double, 3 * kMaxPoints> positions;
    std::array<double, kMaxJoints> previous, step, candidate;
    std::array<int, kMaxJoints> open;  // joints that may move in this step
    std::copy(q, q + n, previous.begin());
    const Tasks tasks = make_tasks(objective, keypoints);
    hand.place(q, pose);
    hand.positions(pose, count, positions.data());
    double value = cost(hand, objective, tasks, positions.data(), previous.data(), q);
    double damping = kFirstDamping;

    for (int iteration = 1; iteration <= kMaxIterations; ++iteration) {
        model.build(hand, objective, tasks, pose, positions.data(), previous.data(), q);
        int open_count = 0;
        for (int j = 0; j < n; ++j) {
            const double slope = model.gradient[j];
            const bool blocked = (q[j] <= hand.lower[j] && slope > 0.0) || (q[j] >= hand.upper[j] && slope < 0.0);
            if (!blocked) open[open_count++] = j;
        }
        if (open_count == 0) return iteration;

        bool newton = true;  // the full second derivative; where that does not help, Gauss-Newton, which always can
        double gain = 0.0, largest = 0.0;
        while (gain <= 0.0) {
            const double* matrix = newton ? model.hessian.data() : model.convex.data();
            if (!bounded_step(hand, matrix, model.gradient.data(), damping, q, open, open_count, step.data())) {
                if (newton) {
                    newton = false;
                } else {
                    damping *= 10.0;
                    if (damping > 1e6) return iteration;
                }
                continue;
            }
            largest = 0.0;
            for (int j = 0; j < n; ++j) {
                candidate[j] = std::clamp(q[j] + step[j], hand.lower[j], hand.upper[j]);
                largest = std::max(largest, std::abs(candidate[j] - q[j]));
            }
            if (largest < kSmallestStepRad) return iteration;
            hand.place(candidate.data(), pose);
            hand.positions(pose, count, positions.data());
            const double tried = cost(hand, objective, tasks, positions.data(), previous.data(), candidate.data());
            gain = value - tried;
            if (gain <= 0.0) {
                if (newton)
                    newton = false;
                else
                    damping = std::max(damping, 1e-6) * 8.0;
            }
        }
        const bool settled = gain < (newton ? kSmallestNewtonGain : kSmallestGain) * value;
        value -= gain;
        std::copy_n(candidate.begin(), n, q);
        if (settled) return iteration;
        damping = newton ? 1e-12 : std::max(damping * 0.2, 1e-12);
    }
    return kMaxIterations;
}

bool is_hand(const Shape& shape, const float* keypoints) noexcept {
    constexpr std::array<int, 6> kPalm = {0, 1, 5, 9, 13, 17};
    constexpr int kMiddle = 3;  // its place in kPalm
    for (int i = 0; i < kHumanKeypoints; ++i) {
        double square = 0.0;
        for (int k = 0; k < 3; ++k) {
            const double x = keypoints[3 * i + k];
            square += x * x;
        }
        const double reach = i == 0 ? shape.max_wrist_m : shape.max_reach_m;
        if (!(square <= reach * reach)) return false;  // also when not finite
    }
    const auto length = [](const Vec3& v) { return std::sqrt(dot(v, v)); };
    std::array<Vec3, 6> palm;
    for (int i = 0; i < 6; ++i)
        for (int k = 0; k < 3; ++k) palm[i][k] = keypoints[3 * kPalm[i] + k];
    const double size = length(shape.palm[kMiddle]), ratio = length(palm[kMiddle]) / size;
    if (!(ratio <= shape.max_size_ratio && ratio >= 1.0 / shape.max_size_ratio)) return false;
    for (int i = 0; i < 6; ++i) {
        Vec3 error;
        for (int k = 0; k < 3; ++k) error[k] = palm[i][k] / ratio - shape.palm[i][k];
        if (!(length(error) <= shape.max_palm_error * size)) return false;
    }
    return true;
}

}  // namespace beingh0::retarget
