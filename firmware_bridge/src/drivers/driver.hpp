// What the loop needs from a hand: a pose in, a pose out, and news in between. One subclass per protocol.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#include "core/types.hpp"

namespace bridge {

enum class Outcome : std::uint8_t {
  done,
  nothing,            // no transaction was due
  timeout,
  refused,            // the hand answered, but not with its acknowledgement
  implausible,        // a sound frame with values no such hand can have
  not_representable,  // a target outside the hand's units; nothing was sent
  hung_up,
  interrupted,        // an e-stop was asked for; not the hand's fault
};
inline bool failed(Outcome outcome) { return outcome != Outcome::done && outcome != Outcome::nothing; }

// What a hand and its adapter take before an answer begins. An e-stop leaves a transaction this long after its bytes
// could have passed: it would otherwise talk into the answer, and has to wait for silence then.
constexpr Nanos kTurnaround = 1'000'000;

// What the hand says about itself besides its pose; the last known values.
struct Telemetry {
  float force_g[kMaxJoints] = {};
  float current_a[kMaxJoints] = {};
  float temperature_c[kMaxJoints] = {};
  std::uint32_t error_bits[kMaxJoints] = {};
  std::uint8_t status[kMaxJoints] = {};
};

// Whether there is time for one more exchange: by its bytes on the wire, where they are what takes the time, else by how
// long the last ones took.
class SpareTime {
 public:
  explicit SpareTime(Nanos on_the_wire = 0) : fixed_(on_the_wire != 0), expected_(on_the_wire) {}
  void took(Nanos duration) {
    if (!fixed_) expected_ += (duration - expected_) / 8;
  }
  bool enough(Nanos now, Nanos until) const { return now + expected_ + kMargin <= until; }

 private:
  static constexpr Nanos kMargin = 300'000;
  bool fixed_;
  Nanos expected_;
};

enum class News : std::uint8_t { none, force, current, temperature, health };

struct BusCounts {
  std::uint64_t transactions = 0;
  std::uint64_t timeouts = 0;
  std::uint64_t refused = 0;
  std::uint64_t implausible = 0;
  std::uint64_t checksum = 0;
  std::uint64_t length = 0;
  std::uint64_t garbage = 0;
  std::uint64_t echo = 0;
  std::uint64_t foreign = 0;
  std::uint64_t truncated = 0;
  std::uint64_t late = 0;  // bytes that came after their transaction had been given up
};

// The hand does not answer at all.
struct NoReply : std::runtime_error {
  using std::runtime_error::runtime_error;
};
// It answers, but is not the hand that was asked for, or does not take its settings.
struct WrongHand : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class Driver {
 public:
  virtual ~Driver() = default;

  // Opens the port, identifies the hand, sets it up. Raises PortError, NoReply, WrongHand. Moves nothing.
  virtual void connect() = 0;
  virtual void disconnect() = 0;

  // The calls of one cycle. No allocation, no exception, back by their own deadline.
  virtual Outcome read_pose(std::uint64_t cycle, Joints& q_rad) = 0;
  virtual Outcome write_pose(const Joints& q_rad) = 0;
  // `until`: when the next cycle begins; what is not urgent waits for a cycle with room.
  virtual Outcome read_news(std::uint64_t cycle, Nanos until, Telemetry& telemetry, News& news) = 0;
  virtual Outcome clear_errors() = 0;
  // Zeroes sensors, where a hand can do that; never called while it is driven.
  virtual Outcome calibrate() { return Outcome::nothing; }
  // Takes the force out of the joints, where a hand can do that.
  virtual Outcome release() { return Outcome::nothing; }

  virtual int joints() const = 0;
  virtual BusCounts counts() const = 0;
  virtual bool low_latency() const = 0;
};

}  // namespace bridge
