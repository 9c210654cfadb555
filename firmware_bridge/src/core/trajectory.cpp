#include "core/trajectory.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace bridge {
namespace {

// Points may lie outside the range by less than any hand resolves (rounding of float32 makers); they are then
// followed at the border.
constexpr double kRangeTolerance_rad = 1e-3;
constexpr double kLongest_s = 600.0;
constexpr int kLooks = 16;  // along the braking way

std::string describe(const char* format, double a, double b, double c, double d) {
  char text[200];
  std::snprintf(text, sizeof text, format, a, b, c, d);
  return text;
}

// One-sided slope at an end of a monotone piecewise cubic (Fritsch & Butland 1984, three-point form).
double end_slope(double h0, double h1, double d0, double d1) {
  double slope = ((2.0 * h0 + h1) * d0 - h0 * d1) / (h0 + h1);
  if (slope * d0 <= 0.0) return 0.0;
  if (d0 * d1 <= 0.0 && std::abs(slope) > 3.0 * std::abs(d0)) slope = 3.0 * d0;
  return slope;
}

}  // namespace

std::unique_ptr<Trajectory> Trajectory::make(const double* t_s, const double* q_rad, std::size_t points, int joints,
                                             const std::array<JointLimits, kMaxJoints>& limits,
                                             std::string& problem) {
  if (points == 0) {
    problem = "the trajectory has no points";
    return nullptr;
  }
  for (std::size_t i = 0; i < points; ++i) {
    if (!std::isfinite(t_s[i])) {
      problem = describe("t_s[%.0f] is not finite", double(i), 0, 0, 0);
      return nullptr;
    }
    if (t_s[i] < 0.0 || t_s[i] > kLongest_s) {
      problem = describe("t_s[%.0f] = %.6g s: expected 0 to %.0f s", double(i), t_s[i], kLongest_s, 0);
      return nullptr;
    }
    if (i > 0 && t_s[i] <= t_s[i - 1]) {
      problem = describe("t_s is not strictly increasing at point %.0f: %.6g s after %.6g s", double(i), t_s[i],
                         t_s[i - 1], 0);
      return nullptr;
    }
    for (int j = 0; j < joints; ++j) {
      const double value = q_rad[i * joints + j];
      if (!std::isfinite(value)) {
        problem = describe("q_rad[%.0f] of joint %.0f is not finite", double(i), double(j), 0, 0);
        return nullptr;
      }
      if (value < limits[j].lower_rad - kRangeTolerance_rad || value > limits[j].upper_rad + kRangeTolerance_rad) {
        problem = describe("q_rad[%.0f] = %.6g rad: the joint's range is %.6g to %.6g rad", double(i), value,
                           limits[j].lower_rad, limits[j].upper_rad) +
                  " (joint " + std::to_string(j) + ")";
        return nullptr;
      }
    }
  }

  std::unique_ptr<Trajectory> made(new Trajectory);
  made->joints_ = joints;
  made->t_.assign(t_s, t_s + points);
  made->q_.assign(q_rad, q_rad + points * joints);
  made->slope_.assign(points * joints, 0.0);
  for (int j = 0; j < joints; ++j) {
    auto q = [&](std::size_t i) { return made->q_[i * joints + j]; };
    auto slope = [&](std::size_t i) -> double& { return made->slope_[i * joints + j]; };
    for (std::size_t i = 0; i < points; ++i)
      made->q_[i * joints + j] = std::clamp(q(i), limits[j].lower_rad, limits[j].upper_rad);
    auto h = [&](std::size_t i) { return t_s[i + 1] - t_s[i]; };
    auto d = [&](std::size_t i) { return (q(i + 1) - q(i)) / h(i); };
    if (points == 2) slope(0) = slope(1) = d(0);
    if (points < 3) continue;
    for (std::size_t i = 1; i + 1 < points; ++i) {
      if (d(i - 1) * d(i) <= 0.0) continue;
      const double w0 = 2.0 * h(i) + h(i - 1);
      const double w1 = h(i) + 2.0 * h(i - 1);
      slope(i) = (w0 + w1) / (w0 / d(i - 1) + w1 / d(i));
    }
    slope(0) = end_slope(h(0), h(1), d(0), d(1));
    slope(points - 1) = end_slope(h(points - 2), h(points - 3), d(points - 2), d(points - 3));
  }
  made->least_ = made->most_ = made->q_;
  for (std::size_t k = (points - 1) * joints; k-- > 0;) {
    made->least_[k] = std::min(made->least_[k], made->least_[k + joints]);
    made->most_[k] = std::max(made->most_[k], made->most_[k + joints]);
  }
  // Braking along the path takes (speed on the way) / brake_s from each joint's acceleration: half of what it has.
  const auto braking_for = [&](double from_s) {
    double needed = 0.0;
    Joints q{}, v{};
    for (int i = 0; i <= kLooks; ++i) {
      made->path(made->t_.back() - from_s * i / kLooks, q, v);
      for (int j = 0; j < joints; ++j)
        needed = std::max(needed, 2.0 * std::min(std::abs(v[j]), limits[j].max_speed_rad_s) / limits[j].max_accel_rad_s2);
    }
    return needed;
  };
  // A longer way may meet a faster part of the path: until it does not.
  double needed = braking_for(0.0);
  for (int i = 0; i < kLooks && needed > made->brake_s_; ++i) {
    made->brake_s_ = needed;
    needed = braking_for(0.5 * needed);
  }
  return made;
}

void Trajectory::at(double t_s, Joints& q_rad, Joints& v_rad_s) const {
  const double from = t_.back() - 0.5 * brake_s_;
  path(path_time(t_s), q_rad, v_rad_s);
  if (t_s <= from) return;
  const double slower = brake_s_ > 0.0 ? std::max(0.0, 1.0 - (t_s - from) / brake_s_) : 0.0;
  for (int j = 0; j < joints_; ++j) v_rad_s[j] *= slower;
}

double Trajectory::path_time(double t_s) const {
  const double from = t_.back() - 0.5 * brake_s_;
  if (t_s <= from) return t_s;
  if (t_s >= from + brake_s_) return t_.back();
  const double x = (t_s - from) / brake_s_;
  return from + brake_s_ * x * (1.0 - 0.5 * x);
}

void Trajectory::still_to_come(double t_s, const Joints& now, Joints& least, Joints& most) const {
  const double s = path_time(t_s);
  // The curve runs from where it is now to the next point, and on between the later ones.
  const std::size_t next = std::min<std::size_t>(std::upper_bound(t_.begin(), t_.end(), s) - t_.begin(), t_.size() - 1);
  for (int j = 0; j < joints_; ++j) {
    least[j] = std::min(now[j], least_[next * joints_ + j]);
    most[j] = std::max(now[j], most_[next * joints_ + j]);
  }
}

void Trajectory::path(double t_s, Joints& q_rad, Joints& v_rad_s) const {
  const std::size_t last = t_.size() - 1;
  if (t_s < t_.front() || t_s >= t_.back()) {
    const std::size_t end = t_s < t_.front() ? 0 : last;
    for (int j = 0; j < joints_; ++j) {
      q_rad[j] = q_[end * joints_ + j];
      v_rad_s[j] = t_s > t_.back() || end == 0 ? 0.0 : slope_[end * joints_ + j];
    }
    return;
  }
  const std::size_t i = std::upper_bound(t_.begin(), t_.end(), t_s) - t_.begin() - 1;
  const double h = t_[i + 1] - t_[i];
  const double x = (t_s - t_[i]) / h;
  for (int j = 0; j < joints_; ++j) {
    const double q0 = q_[i * joints_ + j], q1 = q_[(i + 1) * joints_ + j];
    const double m0 = slope_[i * joints_ + j] * h, m1 = slope_[(i + 1) * joints_ + j] * h;
    const double c2 = 3.0 * (q1 - q0) - 2.0 * m0 - m1;
    const double c3 = 2.0 * (q0 - q1) + m0 + m1;
    q_rad[j] = q0 + x * (m0 + x * (c2 + x * c3));
    v_rad_s[j] = (m0 + x * (2.0 * c2 + x * 3.0 * c3)) / h;
  }
}

void Trajectory::begin(double start_s, const Joints& q_rad, const Joints& v_rad_s,
                       const std::array<JointLimits, kMaxJoints>& limits, double least_blend_s) {
  Joints q{};
  Joints v{};
  at(start_s, q, v);
  blend_start_s_ = start_s;
  blend_s_ = std::max(least_blend_s, t_.front() - start_s);
  still_to_come(start_s, q, blend_least_, blend_most_);
  for (int j = 0; j < joints_; ++j) {
    const double fastest = limits[j].max_speed_rad_s;
    offset_[j] = q_rad[j] - q[j];
    offset_speed_[j] = v_rad_s[j] - std::clamp(v[j], -fastest, fastest);
    // The way in stays between where it begins and where the path goes, but for what stopping takes.
    const double stopping = std::copysign(0.5 * v_rad_s[j] * v_rad_s[j] / limits[j].max_accel_rad_s2, v_rad_s[j]);
    blend_least_[j] = std::min(blend_least_[j], q_rad[j] + std::min(0.0, stopping));
    blend_most_[j] = std::max(blend_most_[j], q_rad[j] + std::max(0.0, stopping));
    // The cubic way in peaks at 1.5 times its mean speed.
    blend_s_ = std::max(blend_s_, 1.5 * std::abs(offset_[j]) / limits[j].max_speed_rad_s);
  }
}

void Trajectory::reference(double t_s, Joints& q_rad) const {
  Joints v{};
  at(t_s, q_rad, v);
  const double x = (t_s - blend_start_s_) / blend_s_;
  if (x >= 1.0) return;
  // Cubic with the offset and its speed at 0, and neither at 1.
  const double keep = 1.0 + x * x * (2.0 * x - 3.0);
  const double lead = x * (1.0 - x) * (1.0 - x) * blend_s_;
  for (int j = 0; j < joints_; ++j)
    q_rad[j] = std::clamp(q_rad[j] + keep * offset_[j] + lead * offset_speed_[j], blend_least_[j], blend_most_[j]);
}

double Trajectory::settled_s() const {
  return std::max(t_.back() + 0.5 * brake_s_, blend_start_s_ + blend_s_);
}

}  // namespace bridge
