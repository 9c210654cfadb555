// A trajectory as the loop follows it: shape-preserving cubics between points, a smooth way in from the commanded
// state, and an end at which time runs ever slower, so that it comes to rest on the last point and never beyond it.
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

  // Where the trajectory itself is, `t` seconds after its start; before the first point it waits there. One that ends
  // in motion leaves its own clock brake_s / 2 before its end, slows down evenly along its path, and rests on its last
  // point brake_s / 2 after it.
  void at(double t_s, Joints& q_rad, Joints& v_rad_s) const;

  // Fixes the way in: starts at `start_s` on the trajectory from the commanded position and velocity.
  void begin(double start_s, const Joints& q_rad, const Joints& v_rad_s,
             const std::array<JointLimits, kMaxJoints>& limits, double least_blend_s);

  // The reference including the way in.
  void reference(double t_s, Joints& q_rad) const;

  // The least and the most that the reference will still be, from `t_s` on; `now` is what it is.
  void still_to_come(double t_s, const Joints& now, Joints& least, Joints& most) const;

  double end_s() const { return t_.back(); }
  const std::vector<double>& times() const { return t_; }
  const std::vector<double>& points() const { return q_; }  // row by row
  double brake_s() const { return brake_s_; }
  double settled_s() const;  // after way in and braking

 private:
  Trajectory() = default;
  double path_time(double t_s) const;  // slowed down at the end
  void path(double s, Joints& q_rad, Joints& v_rad_s) const;  // without braking
  int joints_ = 0;
  std::vector<double> t_;
  std::vector<double> q_;
  std::vector<double> slope_;  // dq/dt at each point
  std::vector<double> least_;  // of this point and all later ones; a shape-preserving curve stays between its points
  std::vector<double> most_;
  double brake_s_ = 0.0;
  double blend_start_s_ = 0.0;
  double blend_s_ = 0.0;
  Joints offset_{};        // commanded minus trajectory at the start of the way in
  Joints offset_speed_{};
  Joints blend_least_{};   // of the reference during the way in
  Joints blend_most_{};
};

}  // namespace bridge
