#include "session.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

#include "io/stream.hpp"

namespace bridge {
namespace {

constexpr Nanos kFirstRetry = kNanosPerSecond / 10;
constexpr Nanos kLongestRetry = 2 * kNanosPerSecond;
// A hand that has been silent for this long may have lost its power, and with it the limits it was given: it is
// recognised and set up anew.
constexpr Nanos kSilent = kNanosPerSecond / 2;
constexpr int kSilentFailures = 10;

}  // namespace

Session::Session(std::unique_ptr<Driver> driver, const std::array<JointLimits, kMaxJoints>& limits,
                 const Safety& safety, double rate_hz)
    : driver_(std::move(driver)), controller_(driver_->joints(), limits, safety, 1.0 / rate_hz),
      joints_(driver_->joints()), period_(nanos(1.0 / rate_hz)) {
  const int averaged = Limiter::averaged_poses(joints_, limits, 1.0 / rate_hz);
  if (averaged > kMostAveraged)
    throw std::invalid_argument("rate_hz: at this rate the jerk bounds need the mean of " + std::to_string(averaged) +
                                " poses; expected at most " + std::to_string(kMostAveraged));
}

void Session::connect() {
  driver_->connect();
  linked_ = true;
  in_step_ = true;
  failures_ = 0;
  last_success_ = monotonic_now();
  controller_.link_up(last_success_);
}

void Session::disconnect() {
  driver_->disconnect();
  linked_ = false;
  controller_.link_down(monotonic_now());
}

// The stop that follows is not cut short by the next e-stop.
bool Session::take_estop(Requests& requests) {
  if (!requests.take_estop()) return false;
  controller_.estop(monotonic_now());
  interruption.on = false;
  requests.estop_taken();
  return true;
}

void Session::cycle(Nanos deadline, Requests& requests, bool reconnect) {
  ++cycle_;
  interruption.on = controller_.state() != State::estop;
  read_ = written_ = Outcome::nothing;
  if (!linked_ && reconnect && deadline >= retry_at_) try_reconnect();
  interrupt(requests);
  if (!linked_) {
    requests.take(deadline, controller_);
    if (controller_.tick(deadline).relink) retry_at_ = deadline;
    return;
  }

  Joints pose{};
  read_ = driver_->read_pose(cycle_, pose);
  account(read_, monotonic_now());
  if (read_ == Outcome::done) controller_.on_feedback(monotonic_now(), pose);

  // As late as possible, so that a command asked for during the reading is sent in this very cycle.
  requests.take(deadline, controller_);
  take_estop(requests);
  const Command command = controller_.tick(deadline);
  carry_out(command);
  interrupt(requests);
  if (linked_) read_news(deadline + period_);
  if (linked_ && (command.relink || (failures_ >= kSilentFailures && monotonic_now() - last_success_ > kSilent))) {
    lose(monotonic_now());
    if (command.relink) retry_at_ = deadline;
  }
}

void Session::interrupt(Requests& requests) {
  if (take_estop(requests) && linked_) carry_out(controller_.tick(monotonic_now()));
}

void Session::carry_out(const Command& command) {
  if (linked_ && command.write) {
    const bool sure = in_step_;
    written_ = driver_->write_pose(command.q_rad);
    if (written_ == Outcome::not_representable) controller_.on_conversion_error(monotonic_now());
    else account(written_, monotonic_now());
    if (written_ == Outcome::done && sure) controller_.on_write_accepted();
  }
  if (linked_ && command.release) {
    const Outcome outcome = driver_->release();
    account(outcome, monotonic_now());
    if (!failed(outcome)) controller_.on_released();
  }
  if (linked_ && command.clear_errors) account(driver_->clear_errors(), monotonic_now());
  if (linked_ && command.calibrate) account(driver_->calibrate(), monotonic_now());
}

void Session::read_news(Nanos until) {
  News news = News::none;
  account(driver_->read_news(cycle_, until, telemetry_, news), monotonic_now());
  const Nanos now = monotonic_now();
  if (news == News::health) controller_.on_health(now, telemetry_.error_bits);
  double values[kMaxJoints];
  if (news == News::temperature) {
    std::copy(telemetry_.temperature_c, telemetry_.temperature_c + joints_, values);
    controller_.on_temperature(values, now);
  }
  if (news == News::current) {
    std::copy(telemetry_.current_a, telemetry_.current_a + joints_, values);
    controller_.on_current(values, now);
  }
}

void Session::account(Outcome outcome, Nanos now) {
  if (outcome == Outcome::nothing) return;
  in_step_ = outcome != Outcome::timeout && outcome != Outcome::interrupted;
  if (outcome == Outcome::interrupted) return;
  failures_ = outcome == Outcome::done ? 0 : failures_ + 1;
  if (outcome == Outcome::done) last_success_ = now;
  controller_.on_transaction(now, outcome == Outcome::done);
  if (outcome == Outcome::hung_up) lose(now);
}

void Session::lose(Nanos now) {
  driver_->disconnect();  // at once, so that the port can come back under its own name
  linked_ = false;
  retry_wait_ = kFirstRetry;
  retry_at_ = now + retry_wait_;
  controller_.link_down(now);
}

void Session::try_reconnect() {
  try {
    connect();
  } catch (const std::runtime_error&) {  // no port yet, no answer yet, or another hand: try again later
    retry_at_ = monotonic_now() + retry_wait_;
    retry_wait_ = std::min(2 * retry_wait_, kLongestRetry);
  }
}

}  // namespace bridge
