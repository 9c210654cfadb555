#include "drivers/leap_driver.hpp"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>

namespace bridge {
namespace {

// Control table of the XC330 and XL330.
constexpr std::uint16_t kModel = 0, kReturnDelay = 9, kMode = 11, kTorque = 64, kHardwareError = 70, kGainD = 80,
                        kGainI = 82, kGainP = 84, kWatchdog = 98, kGoalCurrent = 102, kGoalPosition = 116,
                        kPresent = 126, kTemperature = 146;
constexpr std::uint16_t kPresentBytes = 10;  // current, velocity, position
constexpr int kCurrentBasedPosition = 5;
constexpr int kWatchdogTicks = 10;  // of 20 ms: a servo that hears nothing for 0.2 s stops by itself
constexpr std::uint8_t kWatchdogTripped = 0xFF;
constexpr std::uint32_t kWatchdogBit = 1u << 8;  // beside the eight bits of the hardware error register

constexpr int kTurn = 4096, kCentre = 2048;  // ticks; the flat open hand is the centre of every joint
constexpr double kPi = 3.14159265358979323846;
constexpr std::uint32_t kAll = (1u << LeapDriver::kServos) - 1;
constexpr Nanos kReboot = 6 * kNanosPerSecond / 10;
constexpr Nanos kSilence = 2'000'000;
constexpr int kConnectTries = 3;

std::int32_t word32(const std::uint8_t* p) {
  return static_cast<std::int32_t>(p[0] | p[1] << 8 | p[2] << 16 | static_cast<std::uint32_t>(p[3]) << 24);
}
std::int16_t word16(const std::uint8_t* p) { return static_cast<std::int16_t>(p[0] | p[1] << 8); }

const std::uint8_t* ids() {
  static constexpr std::uint8_t all[LeapDriver::kServos] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return all;
}

std::string list(std::uint32_t servos) {
  std::string text;
  for (int i = 0; i < LeapDriver::kServos; ++i)
    if (servos >> i & 1) text += (text.empty() ? "" : ", ") + std::to_string(i);
  return text;
}

}  // namespace

LeapDriver::LeapDriver(std::unique_ptr<ByteStream> stream, const LeapSettings& settings,
                       const std::array<JointLimits, kMaxJoints>& limits)
    : line_(std::move(stream), settings.reply_timeout_s, kSilence), settings_(settings), limits_(limits), health_every_(cycles_between(settings.rate_hz, 10)),
      current_every_(cycles_between(settings.rate_hz, 20)), temperature_every_(cycles_between(settings.rate_hz, 2)) {}

void LeapDriver::connect() {
  line_.open();
  statuses_.clear();
  fast_ = false;
  torque_on_ = alert_ = false;
  faulty_ = 0;
  rebooted_until_ = 0;
  try {
    identify();
    configure();
  } catch (...) {
    line_.close();
    throw;
  }
  if (settings_.fast_read) {
    fast_ = true;
    bool answers = false;
    for (int i = 0; i < kConnectTries && !answers; ++i)
      answers = read_all(kPresent, kPresentBytes, answers_) == Outcome::done;
    fast_ = answers;
  }
  next_health_ = next_current_ = next_temperature_ = 0;
}

void LeapDriver::identify() {
  std::uint32_t answered = 0, once = 0;
  Outcome outcome = Outcome::timeout;
  for (int i = 0; i < kConnectTries && failed(outcome); ++i) {
    outcome = read_all(kModel, 2, answers_, &once);
    answered |= once;
    if (outcome == Outcome::hung_up) throw PortError(EIO, line_.name() + ": was lost while connecting");
  }
  if (answered == 0)
    throw NoReply(line_.name() + ": no servo answers; check power, wiring, and that they are set to this baud");
  if (failed(outcome)) throw NoReply(line_.name() + ": no answer from servos " + list(kAll & ~answered));
  for (int i = 0; i < kServos; ++i) {
    const int model = word16(answers_[i].data());
    if (model != 1240 && model != 1200)
      throw WrongHand(line_.name() + ": servo " + std::to_string(i) + " is model " + std::to_string(model) +
                      "; a LEAP hand has XC330-M288 (1240) or XL330-M288 (1200)");
  }
}

// Mode and return delay live in EEPROM: written only when they differ, which needs torque off.
void LeapDriver::configure() {
  auto must = [this](Outcome outcome, const char* what) {
    if (outcome == Outcome::hung_up) throw PortError(EIO, line_.name() + ": was lost while connecting");
    if (failed(outcome)) throw NoReply(line_.name() + ": servos do not answer while " + what);
  };
  auto again = [this](std::uint16_t address, std::uint16_t count) {
    Outcome outcome = Outcome::timeout;
    for (int i = 0; i < kConnectTries && failed(outcome); ++i) outcome = read_all(address, count, answers_);
    return outcome;
  };
  must(again(kReturnDelay, 3), "reading the return delay and mode");
  bool differs = false;
  for (int i = 0; i < kServos; ++i)
    differs |= answers_[i][0] != 0 || answers_[i][kMode - kReturnDelay] != kCurrentBasedPosition;
  if (differs) {
    must(write_same(kTorque, 1, 0), "turning torque off");
    must(write_same(kMode, 1, kCurrentBasedPosition), "setting the mode");
    must(write_same(kReturnDelay, 1, 0), "setting the return delay");
    must(again(kReturnDelay, 3), "reading the mode back");
    for (int i = 0; i < kServos; ++i)
      if (answers_[i][0] != 0 || answers_[i][kMode - kReturnDelay] != kCurrentBasedPosition)
        throw WrongHand(line_.name() + ": servo " + std::to_string(i) +
                        " does not keep mode 5 and return delay 0; power-cycle the hand");
  }
  must(configure_ram(), "setting gains and current");
  must(again(kGoalCurrent, 2), "reading the goal current back");
  for (int i = 0; i < kServos; ++i)
    if (word16(answers_[i].data()) != settings_.current_ma)
      throw WrongHand(line_.name() + ": servo " + std::to_string(i) + " does not keep the goal current");
  must(again(kTorque, 1), "reading torque");
  torque_on_ = std::all_of(answers_.begin(), answers_.end(), [](const auto& answer) { return answer[0] == 1; });
}

Outcome LeapDriver::configure_ram() {
  // Side joints are stiffer mechanically: three quarters of the gain, as in the maker's own code.
  std::uint8_t gains[kServos][6];
  for (int i = 0; i < kServos; ++i) {
    const bool side = i % 4 == 0 && i < 12;
    const int d = side ? settings_.d_gain * 3 / 4 : settings_.d_gain;
    const int p = side ? settings_.p_gain * 3 / 4 : settings_.p_gain;
    const int values[3] = {d, 0, p};
    for (int k = 0; k < 3; ++k) {
      gains[i][2 * k] = static_cast<std::uint8_t>(values[k] & 0xFF);
      gains[i][2 * k + 1] = static_cast<std::uint8_t>(values[k] >> 8);
    }
  }
  static_assert(kGainI == kGainD + 2 && kGainP == kGainD + 4);
  Outcome outcome = write_same(kWatchdog, 1, 0);  // also ends a trip
  if (!failed(outcome)) outcome = write_all(kGainD, 6, &gains[0][0]);
  if (!failed(outcome)) outcome = write_same(kGoalCurrent, 2, static_cast<std::uint32_t>(settings_.current_ma));
  if (!failed(outcome)) outcome = write_same(kWatchdog, 1, kWatchdogTicks);
  return outcome;
}

bool LeapDriver::take_part(std::uint8_t id, std::uint8_t error, const std::uint8_t* data, std::uint16_t count,
                           Answers& out, std::uint32_t& answered) {
  if (id >= kServos) return false;
  if (error & dynamixel::kAlert) alert_ = true;
  if (error & ~dynamixel::kAlert) {
    ++line_.counts().refused;
    return false;
  }
  std::memcpy(out[id].data(), data, count);
  answered |= 1u << id;
  return true;
}

Outcome LeapDriver::read_all(std::uint16_t address, std::uint16_t count, Answers& out, std::uint32_t* who) {
  dynamixel::Frame frame;
  const std::size_t size = dynamixel::encode_sync_read(address, count, ids(), kServos, fast_, frame);
  const std::size_t answer = fast_ ? 8u + kServos * (count + 4u) : kServos * (11u + count);
  std::uint32_t answered = 0;
  const auto take = [&](const std::uint8_t* bytes, std::size_t got) {
    statuses_.feed(bytes, got);
    while (statuses_.take(status_)) {
      dynamixel::Part part{};
      if (status_.joint() && status_.size + 2 == kServos * (count + 4u)) {  // else a late one of another reading
        for (std::size_t i = 0; status_.part(i, count, part); ++i)
          take_part(part.id, part.error, part.data, count, out, answered);
      } else if (!status_.joint() && (status_.size == count || (status_.error & ~dynamixel::kAlert))) {
        take_part(status_.id, status_.error, status_.data.data(), count, out, answered);
      } else {
        ++line_.counts().foreign;
      }
    }
    return answered == kAll ? Outcome::done : Outcome::nothing;
  };
  const Outcome outcome = line_.transact(frame.data(), size, answer, take);
  if (who) *who = answered;
  if (failed(outcome)) statuses_.clear();
  return outcome;
}

// Sync writes are not acknowledged; what matters is read back or seen in the next pose.
Outcome LeapDriver::write_all(std::uint16_t address, std::uint16_t count, const std::uint8_t* data) {
  dynamixel::Frame frame;
  return line_.send(frame.data(), dynamixel::encode_sync_write(address, count, ids(), data, kServos, frame));
}

Outcome LeapDriver::write_same(std::uint16_t address, std::uint16_t count, std::uint32_t value) {
  std::uint8_t data[kServos][4];
  for (int i = 0; i < kServos; ++i)
    for (int k = 0; k < count; ++k) (&data[0][0])[i * count + k] = static_cast<std::uint8_t>(value >> (8 * k));
  return write_all(address, count, &data[0][0]);
}

Outcome LeapDriver::read_pose(std::uint64_t, Joints& q_rad) {
  if (rebooted_until_ != 0) {
    if (monotonic_now() < rebooted_until_) return Outcome::nothing;
    rebooted_until_ = 0;
    const Outcome outcome = configure_ram();
    if (failed(outcome)) return outcome;
  }
  const Nanos begin = monotonic_now();
  const Outcome outcome = read_all(kPresent, kPresentBytes, answers_);
  if (outcome != Outcome::done) return outcome;
  spare_.took(monotonic_now() - begin);
  for (int i = 0; i < kServos; ++i) {
    const std::int32_t ticks = word32(&answers_[i][6]);
    // Current-based position mode counts turns; a joint of a hand cannot be more than one away.
    if (ticks < -kTurn || ticks > 2 * kTurn) {
      ++line_.counts().implausible;
      return Outcome::implausible;
    }
    q_rad[i] = (ticks - kCentre) * 2.0 * kPi / kTurn;
    current_a_[i] = static_cast<float>(word16(answers_[i].data())) * 1e-3f;
  }
  return outcome;
}

Outcome LeapDriver::write_pose(const Joints& q_rad) {
  std::uint8_t data[kServos][4];
  for (int i = 0; i < kServos; ++i) {
    const double ticks = std::round(kCentre + q_rad[i] * kTurn / (2.0 * kPi));
    if (!(ticks >= 0.0 && ticks < kTurn)) return Outcome::not_representable;  // also catches NaN
    const auto goal = static_cast<std::uint32_t>(ticks);
    for (int k = 0; k < 4; ++k) data[i][k] = static_cast<std::uint8_t>(goal >> (8 * k));
  }
  const Outcome outcome = write_all(kGoalPosition, 4, &data[0][0]);
  if (failed(outcome) || torque_on_) return outcome;
  // The goal stands before the torque does, so that switching on moves nothing.
  const Outcome switched = write_same(kTorque, 1, 1);
  torque_on_ = !failed(switched);
  return switched;
}

Outcome LeapDriver::read_news(std::uint64_t cycle, Nanos until, Telemetry& telemetry, News& news) {
  news = News::none;
  if (rebooted_until_ != 0) return Outcome::nothing;
  const bool room = spare_.enough(monotonic_now(), until);
  if (alert_ || next_health_ + (room ? 0 : health_every_) <= cycle) {
    next_health_ = cycle + health_every_;
    alert_ = false;
    Outcome outcome = read_all(kHardwareError, 1, answers_);
    if (outcome != Outcome::done) return outcome;
    faulty_ = 0;
    for (int i = 0; i < kServos; ++i) {
      hardware_error_[i] = answers_[i][0];
      if (hardware_error_[i] != 0) faulty_ |= 1u << i;
    }
    outcome = read_all(kWatchdog, 1, answers_);
    if (outcome != Outcome::done) return outcome;
    for (int i = 0; i < kServos; ++i)
      telemetry.error_bits[i] = hardware_error_[i] | (answers_[i][0] == kWatchdogTripped ? kWatchdogBit : 0u);
    news = News::health;
    return outcome;
  }
  if (next_temperature_ + (room ? 0 : temperature_every_) <= cycle) {
    next_temperature_ = cycle + temperature_every_;
    const Outcome outcome = read_all(kTemperature, 1, answers_);
    if (outcome != Outcome::done) return outcome;
    for (int i = 0; i < kServos; ++i) telemetry.temperature_c[i] = answers_[i][0];
    news = News::temperature;
    return outcome;
  }
  if (next_current_ <= cycle) {  // came with the pose
    next_current_ = cycle + current_every_;
    std::copy(current_a_.begin(), current_a_.end(), telemetry.current_a);
    news = News::current;
  }
  return Outcome::nothing;
}

// A servo that shut down (overload, overheating) comes back only by a reboot, and then has lost its RAM settings.
Outcome LeapDriver::clear_errors() {
  for (int i = 0; i < kServos; ++i) {
    if (!(faulty_ >> i & 1)) continue;
    dynamixel::Frame frame;
    const Outcome outcome = line_.send(
        frame.data(), dynamixel::encode_plain(static_cast<std::uint8_t>(i), dynamixel::Instruction::reboot, frame));
    if (failed(outcome)) return outcome;
    line_.want_silence();  // its answer is of no use
  }
  if (faulty_ != 0) {
    faulty_ = 0;
    torque_on_ = false;
    rebooted_until_ = monotonic_now() + kReboot;
    return Outcome::done;
  }
  return configure_ram();
}

Outcome LeapDriver::release() {
  torque_on_ = false;
  return write_same(kTorque, 1, 0);
}

}  // namespace bridge
