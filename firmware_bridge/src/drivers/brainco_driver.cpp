#include "drivers/brainco_driver.hpp"

#include <algorithm>
#include <cerrno>
#include <cmath>

#include "codecs/brainco_can.hpp"

namespace bridge {
namespace {

// Holding registers; 1022 takes pairs of position and speed.
constexpr std::uint16_t kSku = 901, kUnitMode = 937, kPositionsWithSpeeds = 1022;
// Input registers, six each.
constexpr std::uint16_t kPosition = 2000, kState = 2018;
constexpr double kFull = 1000.0;
constexpr int kStall = 2, kUnknownState = 255;
constexpr int kConnectTries = 3;
constexpr std::uint8_t kUnitModeItem = 0x0D;
constexpr int kPerMillePerPercent = 10;

bool all_states(const Revo2Values& states) {
  return std::all_of(states.begin(), states.end(), [](int state) { return state <= 3 || state == kUnknownState; });
}
bool all_positions(const Revo2Values& positions) {
  return std::all_of(positions.begin(), positions.end(), [](int position) { return position <= kFull; });
}

}  // namespace

// -- registers

Outcome Revo2RegisterWire::identify(bool left, std::string& problem) {
  // Revo1 has other meanings at the same numbers, among them "calibrate now". It has neither a SKU nor a unit mode.
  std::uint16_t sku = 0, mode = 0;
  Outcome outcome = line_->read(modbus::Function::read_holding, kSku, 1, &sku);
  if (outcome == Outcome::done) outcome = line_->read(modbus::Function::read_holding, kUnitMode, 1, &mode);
  Revo2Values positions{}, states{};
  if (outcome == Outcome::done) outcome = read(positions);
  if (outcome == Outcome::done) outcome = read_states(states);
  if (outcome == Outcome::refused) problem = "it has no registers of a Revo2";
  if (outcome != Outcome::done) return outcome;
  if (sku < 1 || sku > 4 || mode > 1 || !all_states(states) || (mode == 0 && !all_positions(positions)))
    problem = "the registers do not look like a Revo2";
  else if ((sku % 2 == 0) != left)
    problem = left ? "it is a right hand" : "it is a left hand";
  return outcome;
}

Outcome Revo2RegisterWire::prepare() {
  std::uint16_t mode = 0;
  Outcome outcome = line_->read(modbus::Function::read_holding, kUnitMode, 1, &mode);
  if (outcome != Outcome::done || mode == 0) return outcome;
  outcome = line_->write_one(kUnitMode, 0);
  if (outcome == Outcome::done) outcome = line_->read(modbus::Function::read_holding, kUnitMode, 1, &mode);
  return outcome == Outcome::done && mode != 0 ? Outcome::refused : outcome;
}

Outcome Revo2RegisterWire::read(Revo2Values& positions) {
  return line_->read(modbus::Function::read_input, kPosition, positions.size(), positions.data());
}

Outcome Revo2RegisterWire::read_states(Revo2Values& states) {
  return line_->read(modbus::Function::read_input, kState, states.size(), states.data());
}

Outcome Revo2RegisterWire::write(const Revo2Values& positions) {
  std::uint16_t words[2 * kRevo2Fingers];
  for (std::size_t i = 0; i < positions.size(); ++i) {
    words[2 * i] = positions[i];
    words[2 * i + 1] = static_cast<std::uint16_t>(speed_);
  }
  return line_->write(kPositionsWithSpeeds, std::size(words), words);
}

// -- CAN 2.0

CanFrame Revo2CanWire::frame(std::uint8_t command, const std::uint8_t* data, std::size_t size) const {
  const brainco::Frame made =
      brainco::message(slave_, static_cast<brainco::Command>(command), brainco::kAllFingers, data, size);
  CanFrame out;
  out.id = made.id;
  out.size = made.size;
  std::copy(made.data.begin(), made.data.end(), out.data.begin());
  return out;
}

Outcome Revo2CanWire::ask(std::uint8_t command, Revo2Values& values) {
  const std::uint8_t zero = 0;
  const CanFrame request = frame(command, &zero, 1);
  return line_.transact(request, [&](const CanFrame& reply) {
    if (reply.id != request.id || reply.extended || reply.remote || reply.fd) {
      ++line_.counts().foreign;
      return Outcome::nothing;
    }
    if (reply.size != 8) {
      ++line_.counts().length;
      return Outcome::nothing;
    }
    const int scale = command == kPositions ? kPerMillePerPercent : 1;
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<std::uint16_t>(scale * reply.data[2 + i]);
    return Outcome::done;
  });
}

Outcome Revo2CanWire::unit_mode(int& mode) {
  const std::uint8_t item[8] = {kUnitModeItem};
  const CanFrame request = frame(static_cast<std::uint8_t>(brainco::Command::read_parameter), item, sizeof item);
  return line_.transact(request, [&](const CanFrame& reply) {
    if (reply.id != request.id || reply.extended || reply.remote || reply.size < 2 || reply.data[0] != kUnitModeItem) {
      ++line_.counts().foreign;
      return Outcome::nothing;
    }
    mode = reply.data[1];
    return Outcome::done;
  });
}

Outcome Revo2CanWire::identify(bool, std::string& problem) {
  int mode = 0;
  Revo2Values positions{}, states{};
  Outcome outcome = read(positions);
  if (outcome == Outcome::done) outcome = read_states(states);
  if (outcome == Outcome::done) {
    outcome = unit_mode(mode);
    if (outcome == Outcome::timeout) {
      problem = "it does not know the unit mode of a Revo2";
      return Outcome::done;
    }
  }
  if (outcome == Outcome::done && (mode > 1 || !all_states(states) || (mode == 0 && !all_positions(positions))))
    problem = "its answers do not look like a Revo2";
  return outcome;
}

Outcome Revo2CanWire::prepare() {
  int mode = 0;
  Outcome outcome = unit_mode(mode);
  if (outcome != Outcome::done || mode == 0) return outcome;
  const std::uint8_t set[8] = {kUnitModeItem, 0};
  outcome = line_.send(frame(static_cast<std::uint8_t>(brainco::Command::write_parameter), set, sizeof set));
  if (outcome == Outcome::done) outcome = unit_mode(mode);
  return outcome == Outcome::done && mode != 0 ? Outcome::refused : outcome;
}

Outcome Revo2CanWire::write(const Revo2Values& positions) {
  brainco::Percents percents{};
  for (std::size_t i = 0; i < positions.size(); ++i)
    percents[i] = static_cast<std::int8_t>((positions[i] + kPerMillePerPercent / 2) / kPerMillePerPercent);
  const brainco::Frame made = brainco::all_fingers(slave_, brainco::Command::position, percents);
  CanFrame out;
  out.id = made.id;
  out.size = made.size;
  std::copy(made.data.begin(), made.data.end(), out.data.begin());
  return line_.send(out);
}

// -- the hand

Revo2Driver::Revo2Driver(std::unique_ptr<Revo2Wire> wire, const Revo2Settings& settings,
                         const std::array<JointLimits, kMaxJoints>& limits)
    : wire_(std::move(wire)), settings_(settings), limits_(limits), states_every_(cycles_between(settings.rate_hz, 10)) {}

void Revo2Driver::connect() {
  wire_->open();
  try {
    std::string problem;
    Outcome outcome = Outcome::timeout;
    for (int i = 0; i < kConnectTries && outcome == Outcome::timeout; ++i)
      outcome = wire_->identify(settings_.left, problem);
    if (outcome == Outcome::hung_up) throw PortError(EIO, wire_->name() + ": was lost while connecting");
    if (outcome == Outcome::timeout)
      throw NoReply(wire_->name() + ": no answer from the hand; check power, wiring, its id and the baud or bitrate");
    if (!problem.empty() && !settings_.trust_family)
      throw WrongHand(wire_->name() + ": " + problem + "; if you know it is the Revo2 you asked for, pass "
                      "family=\"revo2\"");
    outcome = Outcome::timeout;
    for (int i = 0; i < kConnectTries && outcome == Outcome::timeout; ++i) outcome = wire_->prepare();
    if (failed(outcome)) throw WrongHand(wire_->name() + ": the hand does not take per mille as the unit of positions");
  } catch (...) {
    wire_->close();
    throw;
  }
  next_states_ = 0;
}

Outcome Revo2Driver::read_pose(std::uint64_t, Joints& q_rad) {
  Revo2Values positions;
  const Nanos begin = monotonic_now();
  const Outcome outcome = wire_->read(positions);
  if (outcome != Outcome::done) return outcome;
  spare_.took(monotonic_now() - begin);
  if (!all_positions(positions)) {
    ++implausible_;
    return Outcome::implausible;
  }
  for (int j = 0; j < kRevo2Fingers; ++j)
    q_rad[j] = limits_[j].lower_rad + positions[j] / kFull * (limits_[j].upper_rad - limits_[j].lower_rad);
  return outcome;
}

Outcome Revo2Driver::write_pose(const Joints& q_rad) {
  Revo2Values positions;
  for (int j = 0; j < kRevo2Fingers; ++j) {
    const double raw =
        std::round(kFull * (q_rad[j] - limits_[j].lower_rad) / (limits_[j].upper_rad - limits_[j].lower_rad));
    if (!(raw >= 0.0 && raw <= kFull)) return Outcome::not_representable;  // also catches NaN
    positions[j] = static_cast<std::uint16_t>(raw);
  }
  return wire_->write(positions);
}

Outcome Revo2Driver::read_news(std::uint64_t cycle, Nanos until, Telemetry& telemetry, News& news) {
  news = News::none;
  const bool room = spare_.enough(monotonic_now(), until);
  if (next_states_ + (room ? 0 : states_every_) > cycle) return Outcome::nothing;
  next_states_ = cycle + states_every_;
  Revo2Values states;
  const Outcome outcome = wire_->read_states(states);
  if (outcome != Outcome::done) return outcome;
  for (int j = 0; j < kRevo2Fingers; ++j) {
    telemetry.status[j] = static_cast<std::uint8_t>(states[j]);
    telemetry.error_bits[j] = states[j] == kStall && settings_.stall_is_fault ? 1u << kStall : 0u;
  }
  news = News::health;
  return outcome;
}

BusCounts Revo2Driver::counts() const {
  BusCounts counts = wire_->counts();
  counts.implausible = implausible_;
  return counts;
}

}  // namespace bridge
