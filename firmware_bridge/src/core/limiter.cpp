#include "core/limiter.hpp"

#include <algorithm>
#include <cmath>

namespace bridge {

Limiter::Limiter(int joints, const std::array<JointLimits, kMaxJoints>& limits, double dt_s)
    : joints_(joints), dt_s_(dt_s), limits_(limits) {}

void Limiter::seed(const Joints& q_rad) {
  for (int j = 0; j < joints_; ++j) {
    q_[j] = std::clamp(q_rad[j], limits_[j].lower_rad, limits_[j].upper_rad);
    v_[j] = 0.0;
  }
}

// A step at v followed by steps at v - d, v - 2d, ... (d = accel * dt) while positive covers
//   dt * ((n + 1) * v - d * n * (n + 1) / 2)   with n = floor(v / d),
// which grows piecewise linearly in v; this is its inverse.
double Limiter::stoppable_speed(double distance_rad, double accel_rad_s2, double dt_s) {
  if (distance_rad <= 0.0) return 0.0;
  const double decrement = accel_rad_s2 * dt_s;
  const double n = std::floor((std::sqrt(1.0 + 8.0 * distance_rad / (decrement * dt_s)) - 1.0) / 2.0);
  return (distance_rad / dt_s + decrement * n * (n + 1.0) / 2.0) / (n + 1.0);
}

void Limiter::step(const Joints& previous, const Joints& next) {
  // Velocity of the target, scaled as a whole so that no joint asks for more than its speed.
  double scale = 1.0;
  for (int j = 0; j < joints_; ++j) {
    const double speed = std::abs(next[j] - previous[j]) / dt_s_;
    if (speed > limits_[j].max_speed_rad_s) scale = std::min(scale, limits_[j].max_speed_rad_s / speed);
  }
  // Speed at which the remaining error is closed: the slowest joint sets it for all.
  double closing = 1.0 / dt_s_;
  for (int j = 0; j < joints_; ++j) {
    const double error = previous[j] - q_[j];
    if (error == 0.0) continue;
    const double target_speed = scale * (next[j] - previous[j]) / dt_s_;
    const double room = limits_[j].max_speed_rad_s - (error > 0 ? target_speed : -target_speed);
    const double speed = std::min(stoppable_speed(std::abs(error), limits_[j].max_accel_rad_s2, dt_s_), room);
    closing = std::min(closing, std::max(0.0, speed) / std::abs(error));
  }

  Joints wanted{};
  Joints low{};
  Joints high{};
  Joints target_v{};
  double share = 1.0;  // of the wanted change that joints gaining speed may take
  for (int j = 0; j < joints_; ++j) {
    const JointLimits& limit = limits_[j];
    const double most_change = limit.max_accel_rad_s2 * dt_s_;
    target_v[j] = scale * (next[j] - previous[j]) / dt_s_;
    wanted[j] = target_v[j] + closing * (previous[j] - q_[j]);
    high[j] = std::min({limit.max_speed_rad_s, v_[j] + most_change,
                        stoppable_speed(limit.upper_rad - q_[j], limit.max_accel_rad_s2, dt_s_)});
    low[j] = std::max({-limit.max_speed_rad_s, v_[j] - most_change,
                       -stoppable_speed(q_[j] - limit.lower_rad, limit.max_accel_rad_s2, dt_s_)});
    if (low[j] > high[j]) low[j] = high[j] = 0.5 * (low[j] + high[j]);  // rounding only
    const double change = wanted[j] - v_[j];
    const bool gaining = std::abs(wanted[j] - target_v[j]) > std::abs(v_[j] - target_v[j]);
    if (!gaining || change == 0.0) continue;
    const double room = change > 0 ? high[j] - v_[j] : v_[j] - low[j];
    share = std::min(share, std::max(0.0, room) / std::abs(change));
  }
  for (int j = 0; j < joints_; ++j) {
    const double change = wanted[j] - v_[j];
    const bool gaining = std::abs(wanted[j] - target_v[j]) > std::abs(v_[j] - target_v[j]);
    v_[j] = std::clamp(v_[j] + (gaining ? share : 1.0) * change, low[j], high[j]);
    q_[j] = std::clamp(q_[j] + v_[j] * dt_s_, limits_[j].lower_rad, limits_[j].upper_rad);
  }
}

}  // namespace bridge
