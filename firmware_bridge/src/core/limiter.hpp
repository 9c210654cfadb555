// Bounds position, velocity, acceleration and jerk of the commanded pose, one fixed step at a time.
//
// Two stages. The first bounds position, velocity and acceleration: after every step each joint can still brake to a
// stand inside its range without exceeding its acceleration. The set of next velocities that keep this true is an
// interval, it is never empty when the previous step kept it true, and its ends have a closed form in discrete time.
//
// The second makes the command the mean of the first stage's last N poses. A mean of poses lies between them, so the
// range and a straight line stay; its velocity and acceleration are means too, so their bounds stay; and its jerk is
// (newest - oldest acceleration) / (N dt), at most 2 A / (N dt): N is the smallest that makes this the joint's jerk
// bound. (Biagiotti and Melchiorri, FIR filters for online trajectory planning, 2012.) The price is a delay of
// (N - 1) / 2 steps, which whoever knows the target's future makes up for by asking that much ahead.
#pragma once

#include "core/types.hpp"

namespace bridge {

struct JointLimits {
  double lower_rad = 0.0;
  double upper_rad = 0.0;
  double max_speed_rad_s = 0.0;
  double max_accel_rad_s2 = 0.0;
  double max_jerk_rad_s3 = 0.0;
};

constexpr int kMostAveraged = 128;

class Limiter {
 public:
  Limiter() = default;
  Limiter(int joints, const std::array<JointLimits, kMaxJoints>& limits, double dt_s);

  // How many poses are averaged: what the jerk bounds need at this step. May exceed kMostAveraged, which no limiter
  // can be made for.
  static int averaged_poses(int joints, const std::array<JointLimits, kMaxJoints>& limits, double dt_s);

  // Starts at rest at `q_rad`; values outside the range start at its border.
  void seed(const Joints& q_rad);

  // One step towards a moving target. `previous` and `next` are the target at the last step and at this one.
  // A target within the limits is met exactly and without lag; any other is approached along a straight line in
  // joint space. A joint never delays its braking for the sake of that line. Beyond the range counts as its border.
  // `least` and `most` are how far the target will still go: the command does not pass them either, beyond what braking
  // takes if it comes too fast.
  void step(const Joints& previous_target, const Joints& next_target, const Joints& least, const Joints& most);
  void step(const Joints& previous_target, const Joints& next_target);  // a target that may go anywhere

  // One step of braking as hard as each joint may, until it stands.
  void brake();

  const Joints& q_rad() const { return mean_; }  // the command
  // The first stage, which is ahead of the command by about lead_s: where a new target takes over.
  const Joints& ahead_rad() const { return q_; }
  const Joints& ahead_rad_s() const { return v_; }
  double lead_s() const { return 0.5 * (averaged_ - 1) * dt_s_; }
  bool stands() const;  // neither stage moves any more
  const std::array<JointLimits, kMaxJoints>& limits() const { return limits_; }
  int joints() const { return joints_; }

  // Largest velocity whose step, followed by full braking, covers at most `distance_rad`.
  static double stoppable_speed(double distance_rad, double accel_rad_s2, double dt_s);

 private:
  int joints_ = 0;
  double dt_s_ = 0.0;
  std::array<JointLimits, kMaxJoints> limits_{};
  void average();

  Joints q_{};
  Joints v_{};
  Joints mean_{};
  int averaged_ = 1;
  int newest_ = 0;
  std::array<Joints, kMostAveraged> last_{};
};

}  // namespace bridge
