#include "drivers/linkerhand_driver.hpp"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>

#include "drivers/line.hpp"

namespace bridge {

using linkerhand::Model;
using linkerhand::Quantity;

namespace {

constexpr double kFull = 255.0;  // extended; 0 is bent
constexpr int kConnectTries = 3;
constexpr std::size_t kVersionValues = 7;  // degrees of freedom, mechanics, index, 'L' or 'R', software, hardware, flag
constexpr int kL20Fingers = 5;             // its faults are per finger

const char* name_of(Model model) {
  switch (model) {
    case Model::o6: return "O6";
    case Model::l6: return "L6";
    case Model::l7: return "L7";
    case Model::l10: return "L10";
    case Model::l20: return "L20";
  }
  return "";
}

}  // namespace

LinkerhandDriver::LinkerhandDriver(std::unique_ptr<CanBus> bus, const LinkerhandSettings& settings, int joints,
                                   const std::array<JointLimits, kMaxJoints>& limits)
    : line_(std::move(bus), settings.reply_timeout_s, nanos(settings.frame_gap_s)), settings_(settings),
      joints_(joints), limits_(limits), faults_every_(cycles_between(settings.rate_hz, 10)),
      temperature_every_(cycles_between(settings.rate_hz, 2)) {}

void LinkerhandDriver::connect() {
  line_.open();
  try {
    identify();
    set_and_verify(Quantity::speed, settings_.speed, "the speed");
    if (linkerhand::values_of(settings_.model, Quantity::torque_limit) > 0)
      set_and_verify(Quantity::torque_limit, settings_.torque, "the torque limit");
  } catch (...) {
    line_.close();
    throw;
  }
  next_faults_ = next_temperature_ = 0;
}

// Reads only. Every model speaks under the same two ids, so the hand is asked what it is and which side.
void LinkerhandDriver::identify() {
  Outcome outcome = Outcome::timeout;
  for (int i = 0; i < kConnectTries && failed(outcome); ++i) {
    outcome = read(Quantity::position, measured_);
    if (outcome == Outcome::hung_up) throw PortError(EIO, line_.name() + ": was lost while connecting");
  }
  const bool answers = !failed(outcome);
  CanFrame ask;
  std::uint8_t version[kVersionValues] = {};
  linkerhand::encode_query(settings_.model, Quantity::version, settings_.can_id, &ask);
  Outcome said = Outcome::timeout;
  for (int i = 0; i < kConnectTries && failed(said); ++i) said = exchange(ask, kVersionValues, version);
  if (said == Outcome::hung_up) throw PortError(EIO, line_.name() + ": was lost while connecting");
  if (!answers && failed(said))
    throw NoReply(line_.name() + ": no answer from the hand under CAN id " + std::to_string(settings_.can_id) +
                  "; check power, wiring, termination, its side and the bitrate");
  if (answers && settings_.trust_model) return;
  const std::string wanted = std::string("a LinkerHand ") + name_of(settings_.model);
  if (failed(said))
    throw WrongHand(line_.name() + ": the hand does not say which model it is; if you know it is " + wanted +
                    ", pass model_check=False");
  if (version[0] != settings_.degrees || !answers)
    throw WrongHand(line_.name() + ": expected " + wanted + " with " + std::to_string(settings_.degrees) +
                    " degrees of freedom, got a hand with " + std::to_string(version[0]) +
                    "; if you know better, pass model_check=False");
  if ((version[3] == 'L' || version[3] == 'R') && version[3] != settings_.side)
    throw WrongHand(line_.name() + ": this is a " + (version[3] == 'L' ? "left" : "right") + " hand");
}

void LinkerhandDriver::set_and_verify(Quantity quantity, int value, const char* name) {
  const std::size_t count = linkerhand::values_of(settings_.model, quantity);
  Values values{};
  for (int i = 0; i < kConnectTries; ++i) {
    values.fill(static_cast<std::uint8_t>(value));
    if (failed(write(quantity, values)) || failed(read(quantity, values))) continue;
    if (std::all_of(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(count),
                    [value](int got) { return got == value; }))
      return;
  }
  throw WrongHand(line_.name() + ": the hand does not keep " + name + " " + std::to_string(value));
}

Outcome LinkerhandDriver::exchange(const CanFrame& request, std::size_t values, std::uint8_t* out) {
  return line_.transact(request, [&](const CanFrame& frame) {
    // Both directions share the id; what we send ourselves does not come back on a bus.
    if (frame.id != request.id || frame.extended || frame.remote || frame.fd || frame.size == 0 ||
        frame.data[0] != request.data[0]) {
      ++line_.counts().foreign;
      return Outcome::nothing;
    }
    if (frame.size != values + 1) {
      ++line_.counts().length;
      return Outcome::nothing;
    }
    std::memcpy(out, &frame.data[1], values);
    return Outcome::done;
  });
}

Outcome LinkerhandDriver::read(Quantity quantity, Values& out) {
  CanFrame queries[linkerhand::kMostFrames];
  const std::size_t frames = linkerhand::encode_query(settings_.model, quantity, settings_.can_id, queries);
  for (std::size_t i = 0; i < frames; ++i) {
    std::uint8_t first = 0, count = 0;
    if (!linkerhand::span(settings_.model, queries[i].data[0], first, count)) return Outcome::not_representable;
    const Outcome outcome = exchange(queries[i], count, &out[first]);
    if (outcome != Outcome::done) return outcome;
  }
  return frames == 0 ? Outcome::not_representable : Outcome::done;
}

Outcome LinkerhandDriver::write(Quantity quantity, const Values& values) {
  CanFrame frames[linkerhand::kMostFrames];
  const std::size_t count =
      linkerhand::encode_set(settings_.model, quantity, settings_.can_id, values.data(), true, frames);
  for (std::size_t i = 0; i < count; ++i) {
    std::uint8_t present[linkerhand::kMostValues];
    const Outcome outcome = exchange(frames[i], frames[i].size - 1u, present);
    if (outcome != Outcome::done) return outcome;
  }
  return count == 0 ? Outcome::not_representable : Outcome::done;
}

Outcome LinkerhandDriver::read_pose(std::uint64_t, Joints& q_rad) {
  const Nanos begin = monotonic_now();
  const Outcome outcome = read(Quantity::position, measured_);
  if (outcome != Outcome::done) return outcome;
  spare_.took(monotonic_now() - begin);
  for (int j = 0; j < joints_; ++j) {
    const double bent = 1.0 - measured_[static_cast<std::size_t>(settings_.wire[j])] / kFull;
    q_rad[j] = limits_[j].lower_rad + bent * (limits_[j].upper_rad - limits_[j].lower_rad);
  }
  return outcome;
}

Outcome LinkerhandDriver::write_pose(const Joints& q_rad) {
  Values values = measured_;
  for (int j = 0; j < joints_; ++j) {
    const double bent = (q_rad[j] - limits_[j].lower_rad) / (limits_[j].upper_rad - limits_[j].lower_rad);
    const double raw = std::round(kFull * (1.0 - bent));
    if (!(raw >= 0.0 && raw <= kFull)) return Outcome::not_representable;  // also catches NaN
    values[static_cast<std::size_t>(settings_.wire[j])] = static_cast<std::uint8_t>(raw);
  }
  return write(Quantity::position, values);
}

Outcome LinkerhandDriver::read_news(std::uint64_t cycle, Nanos until, Telemetry& telemetry, News& news) {
  news = News::none;
  const bool room = spare_.enough(monotonic_now(), until);
  Values values{};
  if (next_faults_ + (room ? 0 : faults_every_) <= cycle) {
    next_faults_ = cycle + faults_every_;
    const Outcome outcome = read(Quantity::fault, values);
    if (outcome != Outcome::done) return outcome;
    const bool per_finger = settings_.model == Model::l20;
    for (int j = 0; j < joints_; ++j) {
      const int at = per_finger ? settings_.wire[j] % kL20Fingers : settings_.wire[j];
      const int code = values[static_cast<std::size_t>(at)];  // a number, 0 is none
      telemetry.status[j] = static_cast<std::uint8_t>(code);
      telemetry.error_bits[j] = code == 0 ? 0u : 1u << std::min(code, 31);
    }
    news = News::health;
    return outcome;
  }
  if (next_temperature_ + (room ? 0 : temperature_every_) <= cycle) {
    next_temperature_ = cycle + temperature_every_;
    const Outcome outcome = read(Quantity::temperature, values);
    if (outcome != Outcome::done) return outcome;
    for (int j = 0; j < joints_; ++j)
      telemetry.temperature_c[j] = values[static_cast<std::size_t>(settings_.wire[j])];
    news = News::temperature;
    return outcome;
  }
  return Outcome::nothing;
}

// Only the L20 documents a way to clear faults: ones in the frame that reports them.
Outcome LinkerhandDriver::clear_errors() {
  if (settings_.model != Model::l20) return Outcome::nothing;
  CanFrame query, frame;
  linkerhand::encode_query(settings_.model, Quantity::fault, settings_.can_id, &query);
  const std::uint8_t ones[kL20Fingers] = {1, 1, 1, 1, 1};
  if (!linkerhand::encode(settings_.can_id, query.data[0], ones, sizeof ones, frame)) return Outcome::not_representable;
  std::uint8_t present[kL20Fingers];
  return exchange(frame, sizeof present, present);
}

}  // namespace bridge
