// One hand's conversation: what happens in a cycle, in which order, and what is done when the line is lost. All I/O is
// the driver's; time comes from monotonic_now(), which tests replace by a virtual clock.
#pragma once

#include <memory>

#include "core/controller.hpp"
#include "drivers/driver.hpp"

namespace bridge {

// Where a cycle finds what was asked of the hand since the last one.
class Requests {
 public:
  virtual ~Requests() = default;
  virtual bool take_estop() = 0;
  virtual void estop_taken() {}  // before the stop is sent, which a silent hand may keep waiting
  virtual void take(Nanos now, Controller& controller) = 0;
};

class Session {
 public:
  Session(std::unique_ptr<Driver> driver, const std::array<JointLimits, kMaxJoints>& limits, const Safety& safety,
          double rate_hz);

  void connect();  // raises what Driver::connect raises
  void disconnect();
  // `reconnect`: whether a lost line may be opened again in this cycle.
  void cycle(Nanos deadline, Requests& requests, bool reconnect);
  // Between two cycles, or two transactions of one: an e-stop that was asked for goes out now.
  void interrupt(Requests& requests);

  Controller& controller() { return controller_; }
  const Controller& controller() const { return controller_; }
  const Driver& driver() const { return *driver_; }
  const Telemetry& telemetry() const { return telemetry_; }
  bool linked() const { return linked_; }
  std::uint64_t cycles() const { return cycle_; }
  Outcome read() const { return read_; }        // of the last cycle
  Outcome written() const { return written_; }

 private:
  void account(Outcome outcome, Nanos now);
  bool take_estop(Requests& requests);
  void carry_out(const Command& command);
  void try_reconnect();
  void lose(Nanos now);
  void read_news(Nanos until);

  std::unique_ptr<Driver> driver_;
  Controller controller_;
  const int joints_;
  const Nanos period_;
  bool linked_ = false;
  std::uint64_t cycle_ = 0;
  Nanos retry_at_ = 0;
  Nanos retry_wait_ = 0;
  Nanos last_success_ = 0;
  int failures_ = 0;  // since then
  bool in_step_ = true;  // no answer is owed to an earlier request, so the next one is to the next request
  Telemetry telemetry_{};
  Outcome read_ = Outcome::nothing;
  Outcome written_ = Outcome::nothing;
};

}  // namespace bridge
