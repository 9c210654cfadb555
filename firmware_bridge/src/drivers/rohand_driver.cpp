#include "drivers/rohand_driver.hpp"

#include <algorithm>
#include <cerrno>
#include <cmath>

namespace bridge {
namespace {

// Registers are base + finger: thumb bend, index, middle, ring, little, thumb rotation.
constexpr std::uint16_t kVersion = 1000, kNode = 1005, kSubError = 1006, kStatus = 1085, kCurrentLimit = 1095,
                        kCurrent = 1105, kForce = 1120, kSpeed = 1125, kTarget = 1135, kPosition = 1145;
constexpr std::size_t kForces = 5;  // generation 1; the thumb's rotation has none
constexpr double kFull = 65535.0;   // closed; 0 is open
constexpr double kMillinewtonsPerGram = 9.80665;
constexpr int kOverCurrent = 3, kStuck = 5;
constexpr std::uint8_t kDeviceFailure = 4;
constexpr int kConnectTries = 3;
// The maker asks not to flood a hand with a target it already has (heat, shaking): it is refreshed ten times a second.
constexpr Nanos kRefresh = kNanosPerSecond / 10;

}  // namespace

RohandDriver::RohandDriver(std::unique_ptr<ModbusLine> line, const RohandSettings& settings,
                           const std::array<JointLimits, kMaxJoints>& limits)
    : line_(std::move(line)), settings_(settings), limits_(limits),
      status_every_(cycles_between(settings.rate_hz, 10)), current_every_(cycles_between(settings.rate_hz, 5)),
      force_every_(cycles_between(settings.rate_hz, 10)) {}

void RohandDriver::connect() {
  line_->open();
  try {
    identify();
    set_and_verify(kSpeed, settings_.speed, "the speed");
    set_and_verify(kCurrentLimit, settings_.current_ma, "the current limit");
  } catch (...) {
    line_->close();
    throw;
  }
  sent_at_ = 0;
  next_status_ = next_current_ = next_force_ = 0;
}

// Reads only. Other hands speak Modbus as well: this one has its protocol's version and its own id where we expect them.
void RohandDriver::identify() {
  std::uint16_t words[kNode - kVersion + 1] = {};
  Outcome outcome = Outcome::timeout;
  for (int i = 0; i < kConnectTries && outcome == Outcome::timeout; ++i)
    outcome = read(kVersion, std::size(words), words);
  if (outcome == Outcome::hung_up) throw PortError(EIO, line_->name() + ": was lost while connecting");
  if (outcome == Outcome::timeout)
    throw NoReply(line_->name() + ": no answer from the hand; check power, wiring, its id and the baud");
  // 0x0102 is version 1.2; some firmware is said to put the generation alone.
  generation_ = words[0] > 0xFF ? words[0] >> 8 : words[0];
  if (outcome != Outcome::done || (generation_ != 1 && generation_ != 2) || words[kNode - kVersion] != line_->id())
    throw WrongHand(line_->name() + ": the registers do not look like a ROHand of generation 1 or 2" + why_refused());
}

std::string RohandDriver::why_refused() {
  if (line_->exception() != kDeviceFailure) return "";
  std::uint16_t code = 0;
  if (read(kSubError, 1, &code) != Outcome::done) return "";
  constexpr const char* names[] = {"nothing", "initialising", "needs calibration", "invalid value",
                                   "stuck",   "failed",       "save failed"};
  return std::string("; it reports: ") + (code < std::size(names) ? names[code] : "an unknown error");
}

// Speed and limits are volatile: nothing here wears the flash.
void RohandDriver::set_and_verify(std::uint16_t address, int value, const char* name) {
  Words words;
  for (int i = 0; i < kConnectTries; ++i) {
    words.fill(static_cast<std::uint16_t>(value));
    if (failed(line_->write(address, kFingers, words.data())) || failed(read(address, kFingers, words.data()))) continue;
    if (std::all_of(words.begin(), words.end(), [value](int word) { return word == value; })) return;
  }
  throw WrongHand(line_->name() + ": the hand does not keep " + name + " " + std::to_string(value) + why_refused());
}

Outcome RohandDriver::read_pose(std::uint64_t, Joints& q_rad) {
  Words words;
  const Nanos begin = monotonic_now();
  const Outcome outcome = read(kPosition, kFingers, words.data());
  if (outcome != Outcome::done) return outcome;
  spare_.took(monotonic_now() - begin);
  for (int j = 0; j < kFingers; ++j)
    q_rad[j] = limits_[j].lower_rad + words[j] / kFull * (limits_[j].upper_rad - limits_[j].lower_rad);
  return outcome;
}

Outcome RohandDriver::write_pose(const Joints& q_rad) {
  Words words;
  for (int j = 0; j < kFingers; ++j) {
    const double raw = std::round(kFull * (q_rad[j] - limits_[j].lower_rad) / (limits_[j].upper_rad - limits_[j].lower_rad));
    if (!(raw >= 0.0 && raw <= kFull)) return Outcome::not_representable;  // also catches NaN
    words[j] = static_cast<std::uint16_t>(raw);
  }
  if (sent_at_ != 0 && words == sent_ && monotonic_now() - sent_at_ < kRefresh) return Outcome::nothing;
  sent_at_ = 0;
  const Outcome outcome = line_->write(kTarget, kFingers, words.data());
  if (outcome == Outcome::done) {
    sent_ = words;
    sent_at_ = monotonic_now();
  }
  return outcome;
}

Outcome RohandDriver::read_news(std::uint64_t cycle, Nanos until, Telemetry& telemetry, News& news) {
  news = News::none;
  const bool room = spare_.enough(monotonic_now(), until);
  const auto due = [&](std::uint64_t& next, std::uint64_t every) {
    if (next + (room ? 0 : every) > cycle) return false;
    next = cycle + every;
    return true;
  };
  Words words{};
  if (due(next_status_, status_every_)) {
    const Outcome outcome = read(kStatus, kFingers, words.data());
    if (outcome != Outcome::done) return outcome;
    for (int j = 0; j < kFingers; ++j) {
      telemetry.status[j] = static_cast<std::uint8_t>(words[j]);
      const bool stopped = words[j] == kStuck || words[j] == kOverCurrent;
      telemetry.error_bits[j] = stopped && settings_.stall_is_fault ? 1u << words[j] : 0u;
    }
    news = News::health;
    return outcome;
  }
  if (due(next_current_, current_every_)) {
    const Outcome outcome = read(kCurrent, kFingers, words.data());
    if (outcome != Outcome::done) return outcome;
    for (int j = 0; j < kFingers; ++j) telemetry.current_a[j] = static_cast<float>(words[j]) * 1e-3f;
    news = News::current;
    return outcome;
  }
  if (generation_ == 1 && due(next_force_, force_every_)) {
    const Outcome outcome = read(kForce, kForces, words.data());
    if (outcome != Outcome::done) return outcome;
    for (std::size_t j = 0; j < kForces; ++j)
      telemetry.force_g[j] = static_cast<float>(static_cast<std::int16_t>(words[j]) / kMillinewtonsPerGram);
    news = News::force;
    return outcome;
  }
  return Outcome::nothing;
}

}  // namespace bridge
