#include "core/controller.hpp"

#include <algorithm>
#include <cmath>

namespace bridge {
namespace {

constexpr Nanos kBucket = kNanosPerSecond / 10;
constexpr int kLeastTriesForARate = 20;
constexpr int kFeedbackCycles = 5;
constexpr Nanos kClearing = kNanosPerSecond / 4;  // after CLEAR_ERROR the old bits may still be read for a while
constexpr Nanos kHealthStale = kNanosPerSecond;    // error bits older than this are as bad as no pose
constexpr double kStartWithin_rad = 0.2;  // of its range: sensors read a little past the ends
constexpr double kArrived_rad = 1e-6;

}  // namespace

Controller::Controller(int joints, const std::array<JointLimits, kMaxJoints>& limits, const Safety& safety,
                       double period_s)
    : joints_(joints), limits_(limits), safety_(safety), period_(nanos(period_s)),
      limiter_(joints, limits, period_s) {}

void Controller::link_up(Nanos now) {
  linked_ = true;
  measured_at_ = kNever;
  healthy_at_ = kNever;
  fresh_since_ = clear_errors_ ? now + kClearing : now;
  errors_in_a_row_ = 0;
  stop_writes_left_ = releases_left_ = 0;
  braking_ = following_ = limp_ = false;
  tried_.fill(0);
  failed_.fill(0);
  if (state_ != State::fault && state_ != State::estop) {
    state_ = State::connected;
    reason_ = Reason::none;
  }
}

void Controller::link_down(Nanos) {
  linked_ = false;
  frozen_ = true;
  braking_ = following_ = false;
  stop_writes_left_ = releases_left_ = 0;
  if (state_ == State::fault || state_ == State::estop) return;
  state_ = State::disconnected;
  reason_ = Reason::link_lost;
}

bool Controller::feedback_is_fresh(Nanos now) const {
  const Nanos oldest = std::max(nanos(safety_.feedback_stale_s), kFeedbackCycles * period_);
  return measured_at_ != kNever && now - measured_at_ <= oldest;
}

void Controller::on_feedback(Nanos now, const Joints& q_rad) {
  for (int j = 0; j < joints_; ++j)
    if (!std::isfinite(q_rad[j])) return;  // no driver lets this through; no pose is better than this one
  measured_ = q_rad;
  measured_at_ = now;
  if (state_ == State::connected && healthy_at_ >= fresh_since_) state_ = State::idle;
}

void Controller::on_health(Nanos now, const std::uint32_t* error_bits) {
  if (now < fresh_since_) return;
  healthy_at_ = now;
  hand_error_ = false;
  for (int j = 0; j < joints_; ++j) hand_error_ |= (error_bits[j] & safety_.fault_mask) != 0;
  if (hand_error_ && state_ != State::fault && state_ != State::estop) freeze(now, State::fault, Reason::hand_error);
}

void Controller::on_temperature(const double* temperature_c, Nanos now) {
  if (state_ == State::fault || state_ == State::estop) return;
  for (int j = 0; j < joints_; ++j)
    if (temperature_c[j] >= safety_.max_temperature_c) freeze(now, State::fault, Reason::over_temperature);
}

void Controller::on_current(const double* current_a, Nanos now) {
  if (state_ == State::fault || state_ == State::estop) return;
  for (int j = 0; j < joints_; ++j)
    if (std::abs(current_a[j]) >= safety_.max_current_a) freeze(now, State::fault, Reason::over_current);
}

void Controller::count(Nanos now, bool failed) {
  const Nanos bucket = now / kBucket;
  if (bucket_ == kNever || bucket - bucket_ >= kRateBuckets) {
    tried_.fill(0);
    failed_.fill(0);
  } else {
    for (Nanos b = bucket_ + 1; b <= bucket; ++b) tried_[b % kRateBuckets] = failed_[b % kRateBuckets] = 0;
  }
  bucket_ = bucket;
  ++tried_[bucket % kRateBuckets];
  if (failed) ++failed_[bucket % kRateBuckets];
}

void Controller::on_transaction(Nanos now, bool succeeded) {
  count(now, !succeeded);
  errors_in_a_row_ = succeeded ? 0 : errors_in_a_row_ + 1;
  if (state_ != State::active && state_ != State::hold) return;
  if (errors_in_a_row_ >= safety_.consecutive_errors) {
    freeze(now, State::fault, Reason::transaction_errors);
    return;
  }
  int tried = 0, failed = 0;
  for (int b = 0; b < kRateBuckets; ++b) {
    tried += tried_[b];
    failed += failed_[b];
  }
  if (tried >= kLeastTriesForARate && failed > safety_.error_rate * tried)
    freeze(now, State::fault, Reason::error_rate);
}

void Controller::on_write_accepted() {
  if (stop_writes_left_ > 0 && !braking_) --stop_writes_left_;
}

void Controller::on_released() { releases_left_ = 0; }

void Controller::on_conversion_error(Nanos now) {
  if (state_ == State::active || state_ == State::hold) freeze(now, State::fault, Reason::conversion_range);
}

// Safe stop of a position hand: the pose it has becomes its target. Without a fresh measurement the command brakes
// where it is, because an old pose could be far behind; an e-stop does not even do that and repeats the last command.
// A hand that is driven by torques must not be left with one it cannot see the effect of: it is let go.
void Controller::freeze(Nanos now, State state, Reason reason) {
  const bool was_driving = state_ == State::active || state_ == State::hold;
  const bool fresh = feedback_is_fresh(now);
  braking_ = was_driving && !fresh && state != State::estop && (braking_ || !frozen_);
  if (!braking_) {
    if (fresh || !was_driving) commanded_ = measured_;
    limiter_.seed(commanded_);
    commanded_ = limiter_.q_rad();
  }
  reference_ = commanded_;
  frozen_ = true;
  following_ = false;
  command_until_ = std::min(command_until_, now);
  state_ = state;
  reason_ = reason;
  if (safety_.release_on_fault && (state == State::fault || state == State::estop || !fresh)) {
    if (state == State::hold) state_ = State::idle;
    if (was_driving || state == State::estop) release();
    return;
  }
  stop_writes_left_ = was_driving || (state == State::estop && fresh && !limp_) ? kStopWrites : 0;
}

void Controller::release() {
  limp_ = true;
  releases_left_ = kReleases;
  stop_writes_left_ = 0;
  braking_ = false;
}

void Controller::retire(Nanos now) {
  stop(now, Reason::stop_requested);
  const bool driving = state_ == State::active || state_ == State::hold;
  if (!safety_.release_on_fault || !driving || !linked_) return;
  state_ = State::idle;
  release();
}

Verdict Controller::arm(Nanos now) {
  if (state_ == State::fault || state_ == State::estop) return Verdict::latched;
  if (!linked_) return Verdict::not_connected;
  if (hand_error_) return Verdict::hand_reports_error;
  if (!feedback_is_fresh(now) || healthy_at_ < fresh_since_) return Verdict::no_fresh_feedback;
  if (state_ == State::active) return Verdict::accepted;
  const bool from_measured = state_ != State::hold || frozen_;
  for (int j = 0; from_measured && j < joints_; ++j)
    if (measured_[j] < limits_[j].lower_rad - kStartWithin_rad || measured_[j] > limits_[j].upper_rad + kStartWithin_rad)
      return Verdict::outside_range;
  if (from_measured) {  // a plain hold goes on from the pose it commands
    limiter_.seed(measured_);
    commanded_ = limiter_.q_rad();
    reference_ = commanded_;
    following_ = false;
  }
  frozen_ = braking_ = limp_ = false;
  command_until_ = now;
  stop_writes_left_ = releases_left_ = 0;
  state_ = State::active;
  reason_ = Reason::none;
  return Verdict::accepted;
}

Verdict Controller::follow(Nanos now, std::unique_ptr<Trajectory>& trajectory, double elapsed_s) {
  if (state_ == State::fault || state_ == State::estop) return Verdict::latched;
  if (!linked_) return Verdict::not_connected;
  if (state_ != State::active && state_ != State::hold) return Verdict::not_armed;
  if (!feedback_is_fresh(now)) return Verdict::no_fresh_feedback;
  if (state_ == State::hold) {
    if (frozen_) return Verdict::needs_rearm;
    Joints q{}, v{};
    trajectory->at(elapsed_s, q, v);
    for (int j = 0; j < joints_; ++j)
      if (std::abs(q[j] - commanded_[j]) > safety_.resume_within_rad) return Verdict::needs_rearm;
  }
  // The limiter's command is late by its lead; its first stage, where the way in begins, is that much ahead.
  trajectory->begin(elapsed_s + limiter_.lead_s(), limiter_.ahead_rad(), limiter_.ahead_rad_s(), limits_,
                    safety_.blend_s);
  trajectory_.swap(trajectory);
  trajectory_zero_ = now - period_ - nanos(elapsed_s);  // the first cycle already moves
  command_until_ = trajectory_zero_ + nanos(trajectory_->settled_s());
  reference_ = limiter_.ahead_rad();
  following_ = true;
  state_ = State::active;
  reason_ = Reason::none;
  return Verdict::accepted;
}

void Controller::stop(Nanos now, Reason reason) {
  if (state_ == State::active || state_ == State::hold) freeze(now, State::hold, reason);
}

void Controller::estop(Nanos now) {
  if (state_ == State::estop) return;
  freeze(now, State::estop, Reason::estop_requested);
}

Verdict Controller::reset(Nanos now) {
  if (state_ != State::fault && state_ != State::estop) return Verdict::nothing_to_reset;
  clear_errors_ = true;
  relink_ = !linked_ || reason_ == Reason::transaction_errors || reason_ == Reason::error_rate;
  hand_error_ = false;
  fresh_since_ = now + kClearing;
  healthy_at_ = kNever;
  errors_in_a_row_ = 0;
  tried_.fill(0);
  failed_.fill(0);
  stop_writes_left_ = 0;  // a release under way goes on
  frozen_ = true;
  braking_ = false;
  state_ = linked_ ? State::connected : State::disconnected;
  reason_ = linked_ ? Reason::none : Reason::link_lost;
  return Verdict::accepted;
}

Verdict Controller::calibrate() {
  if (state_ != State::idle) return linked_ ? Verdict::not_idle : Verdict::not_connected;
  calibrate_ = true;
  return Verdict::accepted;
}

void Controller::watch(Nanos now) {
  if (state_ != State::active && state_ != State::hold) return;
  const bool fresh = feedback_is_fresh(now);
  const bool blind = !fresh || now - healthy_at_ > kHealthStale;
  if (blind && (!frozen_ || (safety_.release_on_fault && !fresh))) freeze(now, State::hold, Reason::feedback_stale);
  if (state_ != State::hold && state_ != State::active) return;
  const Nanos age = now - command_until_;
  if (frozen_ && safety_.release_after_s >= 0.0 && age > nanos(safety_.release_after_s)) {
    state_ = State::idle;
    reason_ = Reason::released;
    release();
    return;
  }
  if (frozen_) return;
  if (age > nanos(safety_.freeze_after_s)) {
    freeze(now, State::hold, Reason::command_frozen);
  } else if (age > nanos(safety_.hold_after_s) && state_ == State::active && settled(now)) {
    state_ = State::hold;
    reason_ = Reason::command_stale;
  }
}

bool Controller::settled(Nanos now) const {
  if (now < command_until_ || !limiter_.stands()) return false;
  for (int j = 0; j < joints_; ++j)
    if (std::abs(limiter_.q_rad()[j] - std::clamp(reference_[j], limits_[j].lower_rad, limits_[j].upper_rad)) >
        kArrived_rad)
      return false;
  return true;
}

Command Controller::tick(Nanos now) {
  watch(now);
  Command command;
  command.relink = relink_;
  relink_ = false;
  if (!linked_) return command;
  command.clear_errors = clear_errors_;
  clear_errors_ = false;
  command.calibrate = calibrate_ && state_ == State::idle;
  calibrate_ = false;
  if (releases_left_ > 0) {
    --releases_left_;
    command.release = true;
    return command;
  }
  const bool driving = state_ == State::active || state_ == State::hold;
  if (driving && !frozen_) {
    Joints previous = reference_;
    if (following_) {
      // One period back by time, not by cycle: after skipped cycles the target has not become faster.
      const double ahead_s = seconds(now - trajectory_zero_) + limiter_.lead_s();
      trajectory_->reference(ahead_s - seconds(period_), previous);
      trajectory_->reference(ahead_s, reference_);
    }
    Joints least = reference_;
    Joints most = reference_;
    if (following_)
      trajectory_->still_to_come(seconds(now - trajectory_zero_) + limiter_.lead_s(), reference_, least, most);
    limiter_.step(previous, reference_, least, most);
    commanded_ = limiter_.q_rad();
  } else if (braking_) {
    limiter_.brake();
    commanded_ = reference_ = limiter_.q_rad();
    braking_ = !limiter_.stands();
  }
  command.write = driving || braking_ || stop_writes_left_ > 0;
  command.q_rad = commanded_;
  return command;
}

}  // namespace bridge
