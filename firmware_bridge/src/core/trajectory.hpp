// A trajectory as the loop follows it: shape-preserving cubics between points, a smooth way in from the commanded
// state, and a tail that brakes and comes to rest on the last point.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/limiter.hpp"

namespace bridge {

class Trajectory {
 public:
  // Checks and prepares; allocates, so it is called outside the loop.
  //   t_s float64[T], q_rad float64[T, J] row-major, already in the hand's joint order
  // Returns null and says why in `problem` if it is not finite, not increasing, empty, or outside the limits.
  static std::unique_ptr<Trajectory> make(const double* t_s, const double* q_rad, std::size_t points, int joints,
                                          const std::array<JointLimits, kMaxJoints>& limits, std::string& problem);

  // Where the trajectory itself is, `t` seconds after its start; before the first point it waits there.
  void at(double t_s, Joints& q_rad, Joints& v_rad_s) const;

  // Fixes the way in: starts at `start_s` on the trajectory from the commanded position and velocity.
  void begin(double start_s, const Joints& q_rad, const Joints& v_rad_s,
             const std::array<JointLimits, kMaxJoints>& limits, double least_blend_s);

  // The reference including way in and tail.
  void reference(double t_s, Joints& q_rad) const;

  double end_s() const { return t_.back(); }
  double settled_s() const;  // after way in and tail

 private:
  Trajectory() = default;
  int joints_ = 0;
  std::vector<double> t_;
  std::vector<double> q_;
  std::vector<double> slope_;  // dq/dt at each point
  double tail_s_ = 0.0;
  double blend_start_s_ = 0.0;
  double blend_s_ = 0.0;
  Joints offset_{};        // commanded minus trajectory at the start of the way in
  Joints offset_speed_{};
};

}  // namespace bridge
