// Bounds position, velocity and acceleration of the commanded pose, one fixed step at a time.
//
// The rule that makes the bounds hold for ever: after every step each joint can still brake to a stand inside its
// range without exceeding its acceleration. The set of next velocities that keep this true is an interval, it is
// never empty when the previous step kept it true, and its ends have a closed form in discrete time.
#pragma once

#include "core/types.hpp"

namespace bridge {

struct JointLimits {
  double lower_rad = 0.0;
  double upper_rad = 0.0;
  double max_speed_rad_s = 0.0;
  double max_accel_rad_s2 = 0.0;
};

class Limiter {
 public:
  Limiter() = default;
  Limiter(int joints, const std::array<JointLimits, kMaxJoints>& limits, double dt_s);

  // Starts at rest at `q_rad`; values outside the range start at its border.
  void seed(const Joints& q_rad);

  // One step towards a moving target. `previous` and `next` are the target at the last step and at this one.
  // A target within the limits is met exactly and without lag; any other is approached along a straight line in
  // joint space. A joint never delays its braking for the sake of that line. Beyond the range counts as its border.
  void step(const Joints& previous_target, const Joints& next_target);

  const Joints& q_rad() const { return q_; }
  const Joints& v_rad_s() const { return v_; }
  const std::array<JointLimits, kMaxJoints>& limits() const { return limits_; }
  int joints() const { return joints_; }

  // Largest velocity whose step, followed by full braking, covers at most `distance_rad`.
  static double stoppable_speed(double distance_rad, double accel_rad_s2, double dt_s);

 private:
  int joints_ = 0;
  double dt_s_ = 0.0;
  std::array<JointLimits, kMaxJoints> limits_{};
  Joints q_{};
  Joints v_{};
};

}  // namespace bridge
