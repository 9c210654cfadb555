#include "core/limiter.hpp"

#include <algorithm>
#include <cmath>

namespace bridge {
namespace {

// Of the acceleration, used to close up with a moving target; the rest is left to brake along with it.
constexpr double kTrailingShare = 0.1;
constexpr double kStandstill_rad_s = 1e-9;  // rounding
constexpr double kStandstill_rad = 1e-9;

}  // namespace

Limiter::Limiter(int joints, const std::array<JointLimits, kMaxJoints>& limits, double dt_s)
    : joints_(joints), dt_s_(dt_s), limits_(limits),
      averaged_(std::min(averaged_poses(joints, limits, dt_s), kMostAveraged)) {}

int Limiter::averaged_poses(int joints, const std::array<JointLimits, kMaxJoints>& limits, double dt_s) {
  double most = 1.0;
  for (int j = 0; j < joints; ++j)
    most = std::max(most, 2.0 * limits[j].max_accel_rad_s2 / (limits[j].max_jerk_rad_s3 * dt_s));
  return static_cast<int>(std::min(1e6, std::ceil(most - 1e-9)));
}

void Limiter::seed(const Joints& q_rad) {
  for (int j = 0; j < joints_; ++j) {
    q_[j] = std::clamp(q_rad[j], limits_[j].lower_rad, limits_[j].upper_rad);
    v_[j] = 0.0;
  }
  mean_ = q_;
  last_.fill(q_);
}

bool Limiter::stands() const {
  for (int j = 0; j < joints_; ++j)
    if (std::abs(v_[j]) > kStandstill_rad_s || std::abs(q_[j] - mean_[j]) > kStandstill_rad) return false;
  return true;
}

void Limiter::average() {
  newest_ = (newest_ + 1) % averaged_;
  last_[newest_] = q_;
  for (int j = 0; j < joints_; ++j) {
    double sum = 0.0;
    for (int k = 0; k < averaged_; ++k) sum += last_[k][j];  // anew each time: nothing adds up over the hours
    mean_[j] = std::clamp(sum / averaged_, limits_[j].lower_rad, limits_[j].upper_rad);
  }
}

void Limiter::brake() {
  for (int j = 0; j < joints_; ++j) {
    const double slower = std::max(0.0, std::abs(v_[j]) - limits_[j].max_accel_rad_s2 * dt_s_);
    v_[j] = std::copysign(slower, v_[j]);
    q_[j] = std::clamp(q_[j] + v_[j] * dt_s_, limits_[j].lower_rad, limits_[j].upper_rad);
  }
  average();
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

void Limiter::step(const Joints& previous_target, const Joints& next_target) {
  Joints least{};
  Joints most{};
  for (int j = 0; j < joints_; ++j) {
    least[j] = limits_[j].lower_rad;
    most[j] = limits_[j].upper_rad;
  }
  step(previous_target, next_target, least, most);
}

void Limiter::step(const Joints& previous_target, const Joints& next_target, const Joints& least,
                   const Joints& most) {
  Joints previous{};
  Joints next{};
  for (int j = 0; j < joints_; ++j) {
    previous[j] = std::clamp(previous_target[j], limits_[j].lower_rad, limits_[j].upper_rad);
    next[j] = std::clamp(next_target[j], limits_[j].lower_rad, limits_[j].upper_rad);
  }
  // Velocity of the target, scaled as a whole so that no joint asks for more than its speed, nor for one with which it
  // could not stop where the target may go at most.
  double scale = 1.0;
  for (int j = 0; j < joints_; ++j) {
    const double speed = std::abs(next[j] - previous[j]) / dt_s_;
    const double room = next[j] > previous[j] ? std::min(limits_[j].upper_rad, most[j]) - previous[j]
                                              : previous[j] - std::max(limits_[j].lower_rad, least[j]);
    const double possible = std::min(limits_[j].max_speed_rad_s,
                                     stoppable_speed(room, limits_[j].max_accel_rad_s2, dt_s_));
    if (speed > possible) scale = std::min(scale, possible / speed);
  }
  // Speed at which the remaining error is closed: the slowest joint sets it for all.
  double closing = 1.0 / dt_s_;
  for (int j = 0; j < joints_; ++j) {
    const double error = previous[j] - q_[j];
    if (error == 0.0) continue;
    const JointLimits& limit = limits_[j];
    const double along = (error > 0 ? scale : -scale) * (next[j] - previous[j]) / dt_s_;  // the target's own speed
    const double distance = std::abs(error);
    // Behind a target that moves on: as fast as still allows to stop where it is now, since it may stop as well,
    // or a little faster than it moves.
    const double stopping = stoppable_speed(distance, limit.max_accel_rad_s2, dt_s_) - std::max(0.0, along);
    const double trailing = stoppable_speed(distance, kTrailingShare * limit.max_accel_rad_s2, dt_s_);
    const double speed = std::min(std::max(stopping, trailing), limit.max_speed_rad_s - along);
    closing = std::min(closing, std::max(0.0, speed) / distance);
  }

  Joints wanted{};
  Joints low{};
  Joints high{};
  double share = 1.0;  // of the wanted change that joints gaining speed may take
  for (int j = 0; j < joints_; ++j) {
    const JointLimits& limit = limits_[j];
    const double most_change = limit.max_accel_rad_s2 * dt_s_;
    // The fastest each way that can still stop inside the range, and before the farthest the target will go.
    const double up = std::min(limit.upper_rad, most[j]) - q_[j];
    const double down = q_[j] - std::max(limit.lower_rad, least[j]);
    high[j] = std::min(limit.max_speed_rad_s, stoppable_speed(up, limit.max_accel_rad_s2, dt_s_));
    low[j] = -std::min(limit.max_speed_rad_s, stoppable_speed(down, limit.max_accel_rad_s2, dt_s_));
    // Too fast for that: as hard as it may, which the range always leaves room for.
    high[j] = std::max(high[j], v_[j] - most_change);
    low[j] = std::min(low[j], v_[j] + most_change);
    wanted[j] = std::clamp(scale * (next[j] - previous[j]) / dt_s_ + closing * (previous[j] - q_[j]), low[j], high[j]);
    high[j] = std::min(high[j], v_[j] + most_change);
    low[j] = std::max(low[j], v_[j] - most_change);
    if (low[j] > high[j]) low[j] = high[j] = 0.5 * (low[j] + high[j]);  // rounding only
    const double change = std::abs(wanted[j] - v_[j]);
    if (std::abs(wanted[j]) > std::abs(v_[j]) && change > most_change) share = std::min(share, most_change / change);
  }
  for (int j = 0; j < joints_; ++j) {
    const double change = wanted[j] - v_[j];
    const bool gaining = std::abs(wanted[j]) > std::abs(v_[j]);
    v_[j] = std::clamp(v_[j] + (gaining ? share : 1.0) * change, low[j], high[j]);
    q_[j] = std::clamp(q_[j] + v_[j] * dt_s_, limits_[j].lower_rad, limits_[j].upper_rad);
  }
  average();
}

}  // namespace bridge
