#include "drivers/can_line.hpp"

#include <time.h>

namespace bridge {

Outcome CanLine::send(const CanFrame& frame, Nanos deadline) {
  if (monotonic_now() < free_at_) {
    const timespec at{free_at_ / kNanosPerSecond, free_at_ % kNanosPerSecond};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, nullptr) != 0) {
    }
  }
  if (interruption.asked()) return Outcome::interrupted;
  ++counts_.transactions;
  const IoStatus status = bus_->send(frame, deadline);
  free_at_ = monotonic_now() + gap_;
  if (status == IoStatus::hung_up) return Outcome::hung_up;
  if (status == IoStatus::interrupted) return Outcome::interrupted;
  if (status == IoStatus::ok) return Outcome::done;
  ++counts_.timeouts;
  return Outcome::timeout;
}

}  // namespace bridge
