// What the hand may do now: states, watchdogs and the commanded pose. Pure: no I/O, no clock of its own, no
// allocation after construction. The loop feeds it time, feedback and the outcome of transactions; property tests
// drive it with a virtual clock.
#pragma once

#include <memory>

#include "core/limiter.hpp"
#include "core/trajectory.hpp"
#include "core/types.hpp"

namespace bridge {

// Defaults suit position hands; docs/safety.md explains each.
struct Safety {
  double hold_after_s = 0.15;          // no newer trajectory: state hold, last commanded pose
  double freeze_after_s = 2.0;         // still none: hold the measured pose, arm() needed
  double release_after_s = -1.0;       // frozen for this long: torque off where the hand can; negative: never
  bool release_on_fault = false;       // a hand that is driven by torques: fault, e-stop and a stale pose release it
  double feedback_stale_s = 0.1;       // no valid pose for this long (or 5 periods): hold the measured pose
  int consecutive_errors = 5;          // failed transactions in a row: fault
  double error_rate = 0.2;             // share of transactions failed within the last second: fault
  double resume_within_rad = 0.5;      // how far the pose may be from a trajectory that ends a hold
  double max_temperature_c = 70.0;     // of any joint: fault
  double max_current_a = 2.0;          // of any joint: fault
  std::uint32_t fault_mask = 0xffffffffu;  // error bits of the hand that are faults
  double blend_s = 0.1;                // least time from the commanded state into a new trajectory
};

struct Command {
  bool write = false;
  bool clear_errors = false;  // maintenance, asked for by reset()
  bool calibrate = false;
  bool relink = false;        // the line failed: reset() has the hand recognised and set up anew
  bool release = false;       // take the force out of the joints; asked again until it was done
  Joints q_rad{};
};

class Controller {
 public:
  Controller(int joints, const std::array<JointLimits, kMaxJoints>& limits, const Safety& safety, double period_s);

  // -- from the bus
  void link_up(Nanos now);
  void link_down(Nanos now);
  void on_feedback(Nanos now, const Joints& q_rad);
  void on_health(Nanos now, const std::uint32_t* error_bits);
  void on_temperature(const double* temperature_c, Nanos now);
  void on_current(const double* current_a, Nanos now);
  void on_transaction(Nanos now, bool succeeded);
  void on_write_accepted();
  void on_released();
  void on_conversion_error(Nanos now);

  // -- from the user
  Verdict arm(Nanos now);
  // Takes over `trajectory` only when accepted; the one it replaces comes back in its place.
  Verdict follow(Nanos now, std::unique_ptr<Trajectory>& trajectory, double elapsed_s);
  void stop(Nanos now, Reason reason);
  void estop(Nanos now);
  Verdict reset(Nanos now);
  Verdict calibrate();
  // The bridge goes: stop, and let go of a hand that must not be left under torque.
  void retire(Nanos now);

  // -- once per cycle, after feedback
  Command tick(Nanos now);

  State state() const { return state_; }
  Reason reason() const { return reason_; }
  const Joints& commanded_rad() const { return commanded_; }
  const Joints& measured_rad() const { return measured_; }
  bool measured_once() const { return measured_at_ != kNever; }
  Nanos measured_at() const { return measured_at_; }
  bool settled(Nanos now) const;  // the followed trajectory has been played and the command stands still
  bool stop_delivered() const { return stop_writes_left_ == 0 && releases_left_ == 0 && !braking_; }

 private:
  static constexpr Nanos kNever = INT64_MIN / 2;
  static constexpr int kStopWrites = 3;  // acknowledged writes of a stop before falling silent
  static constexpr int kReleases = 50;  // tries to take the torque off before it is left to the hand's own watchdog
  static constexpr int kRateBuckets = 10;

  bool feedback_is_fresh(Nanos now) const;
  void freeze(Nanos now, State state, Reason reason);
  void release();
  void watch(Nanos now);
  void count(Nanos now, bool failed);

  int joints_;
  std::array<JointLimits, kMaxJoints> limits_;
  Safety safety_;
  Nanos period_;
  Limiter limiter_;

  State state_ = State::disconnected;
  Reason reason_ = Reason::none;
  bool linked_ = false;
  bool frozen_ = false;         // moving again needs arm()
  bool braking_ = false;        // frozen without a fresh pose: the command slows down as fast as it may
  bool limp_ = false;           // let go: no stop may put the force back
  bool clear_errors_ = false;
  bool relink_ = false;
  bool calibrate_ = false;
  int stop_writes_left_ = 0;
  int releases_left_ = 0;

  Joints measured_{};
  Joints commanded_{};
  Joints reference_{};
  Nanos measured_at_ = kNever;
  Nanos healthy_at_ = kNever;   // last time the hand's error bits were read
  bool hand_error_ = false;
  Nanos fresh_since_ = kNever;  // health older than this does not count

  std::unique_ptr<Trajectory> trajectory_;  // kept when done: the loop frees nothing
  bool following_ = false;
  Nanos trajectory_zero_ = 0;   // when the trajectory's own t = 0 was or will be
  Nanos command_until_ = kNever;

  int errors_in_a_row_ = 0;
  std::array<std::uint16_t, kRateBuckets> tried_{};
  std::array<std::uint16_t, kRateBuckets> failed_{};
  Nanos bucket_ = kNever;
};

}  // namespace bridge
