// Shared words of the bridge: joints, time, states. Plain data, no allocation, no Python.
#pragma once

#include <array>
#include <cstdint>

namespace bridge {

constexpr int kMaxJoints = 20;
using Joints = std::array<double, kMaxJoints>;

using Nanos = std::int64_t;  // CLOCK_MONOTONIC, or a virtual clock in tests
constexpr Nanos kNanosPerSecond = 1'000'000'000;

inline Nanos nanos(double seconds) { return static_cast<Nanos>(seconds * 1e9 + (seconds < 0 ? -0.5 : 0.5)); }
inline double seconds(Nanos value) { return static_cast<double>(value) * 1e-9; }

enum class State : std::uint8_t { disconnected, connected, idle, active, hold, fault, estop };

// Why the bridge is in hold, fault, estop or disconnected.
enum class Reason : std::uint8_t {
  none,
  stop_requested,     // stop()
  command_refused,    // a trajectory was not fit to be followed
  command_stale,      // no newer trajectory; still holding the last commanded pose
  command_frozen,     // no newer trajectory for long; holding the measured pose
  released,           // and later still: no torque
  feedback_stale,     // the hand stopped reporting its pose
  transaction_errors, // too many failed transactions in a row
  error_rate,         // too many failed transactions within a second
  hand_error,         // the hand reports an error bit
  over_temperature,
  over_current,
  conversion_range,   // a limited target does not fit the hand's units: a bug, never sent
  link_lost,          // unplugged, or the port hung up
  estop_requested,
};

// The answer to a request.
enum class Verdict : std::uint8_t {
  accepted,
  not_armed,        // follow() outside active or a resumable hold
  needs_rearm,      // the gap or the distance is too large to resume without arm()
  latched,          // fault or estop: reset() first
  not_connected,
  no_fresh_feedback,
  hand_reports_error,
  nothing_to_reset,
  not_idle,         // calibration is for a hand that is not driven
  outside_range,    // a joint stands too far outside its range to start from there
};

}  // namespace bridge
