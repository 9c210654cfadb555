// Requests and their answers on a CAN bus.
#pragma once

#include <memory>

#include "drivers/driver.hpp"
#include "io/can.hpp"

namespace bridge {

class CanLine {
 public:
  // `gap`: least time between the frames we send.
  CanLine(std::unique_ptr<CanBus> bus, double reply_timeout_s, Nanos gap = 0)
      : bus_(std::move(bus)), timeout_(nanos(reply_timeout_s)), gap_(gap) {}

  void open() {
    bus_->open();
    free_at_ = 0;
  }
  void close() { bus_->close(); }
  std::string name() const { return bus_->name(); }
  bool low_latency() const { return bus_->low_latency(); }

  Outcome send(const CanFrame& frame) { return send(frame, monotonic_now() + gap_ + timeout_); }

  // One frame out, then frames in until `take(frame)` knows one: Outcome::nothing is somebody else's.
  template <class Take>
  Outcome transact(const CanFrame& request, Take&& take) {
    counts_.late += bus_->discard_input();
    const Nanos deadline = monotonic_now() + gap_ + timeout_;
    const Outcome sent = send(request, deadline);
    return sent == Outcome::done ? collect(deadline, monotonic_now() + kTurnaround, take) : sent;
  }

  // Frames in until `take` is content, or the time is over.
  template <class Take>
  Outcome collect(Nanos deadline, Nanos undisturbed_until, Take&& take) {
    for (;;) {
      CanFrame frame;
      const IoStatus status = bus_->receive(frame, deadline, undisturbed_until);
      if (status == IoStatus::hung_up) return Outcome::hung_up;
      if (status == IoStatus::interrupted) return Outcome::interrupted;
      if (status != IoStatus::ok) {
        ++counts_.timeouts;
        return Outcome::timeout;
      }
      const Outcome taken = take(static_cast<const CanFrame&>(frame));
      if (taken == Outcome::refused) ++counts_.refused;
      if (taken != Outcome::nothing) return taken;
    }
  }

  CanBus& bus() { return *bus_; }
  BusCounts& counts() { return counts_; }
  BusCounts with_damage() const {
    BusCounts counts = counts_;
    counts.garbage = bus_->damaged();
    return counts;
  }

 private:
  Outcome send(const CanFrame& frame, Nanos deadline);

  std::unique_ptr<CanBus> bus_;
  const Nanos timeout_, gap_;
  Nanos free_at_ = 0;
  BusCounts counts_;
};

}  // namespace bridge
