#include "drivers/ability_driver.hpp"

#include <cerrno>
#include <cmath>

namespace bridge {
namespace {

constexpr std::uint8_t kPosition = 0x12, kReadOnly = 0xA2;  // both ask for reply 3: positions, currents, velocities
constexpr std::uint8_t kExitApi = 0x7C;
constexpr double kCountsPerRad = 32767.0 / 150.0 * 180.0 / 3.14159265358979323846;
constexpr double kMostCounts = 32767.0;
constexpr int kRotator = 5;  // the thumb's: the only joint that closes with negative angles
constexpr double kPlausible_rad = 0.35;  // beyond its range a joint may stand, bent by hand
constexpr std::size_t kReplyOnWire = ability::kShortReply + 2;
constexpr int kConnectTries = 3;
constexpr std::uint32_t kLimited = 1u;

}  // namespace

double AbilityDriver::sign(int joint) { return joint == kRotator ? -1.0 : 1.0; }

void AbilityDriver::connect() {
  line_.open();
  replies_.clear();
  try {
    // A request for the state commands nothing. The hand has no name to ask for: its frames, and positions that its
    // joints can have, are all there is to recognise it by.
    Outcome outcome = Outcome::timeout;
    for (int i = 0; i < kConnectTries && failed(outcome); ++i) {
      outcome = ask();
      if (outcome == Outcome::hung_up) throw PortError(EIO, line_.name() + ": was lost while connecting");
    }
    if (failed(outcome))
      throw NoReply(line_.name() + ": no answer from the hand; check power, wiring, the baud, and that byte stuffing "
                    "is on (over Bluetooth: We46 and We47)");
    for (int j = 0; j < ability::kJoints; ++j) {
      const double q_rad = sign(j) * reply_.position[j] / kCountsPerRad;
      if (q_rad < limits_[j].lower_rad - kPlausible_rad || q_rad > limits_[j].upper_rad + kPlausible_rad)
        throw WrongHand(line_.name() + ": joint " + std::to_string(j) + " stands at " +
                        std::to_string(reply_.position[j] * 150.0 / 32767.0) +
                        " degrees, where no Ability Hand can have it; not driven");
    }
  } catch (...) {
    line_.close();
    throw;
  }
  next_status_ = next_current_ = 0;
}

// Out of the API on purpose, from the pose that was held, rather than by its timeout.
void AbilityDriver::disconnect() {
  if (!line_.is_open()) return;
  const Undisturbed farewell;
  ability::Frame frame;
  line_.send(frame.data(), ability::encode(settings_.address, kExitApi, nullptr, 0, true, frame));
  line_.close();
}

Outcome AbilityDriver::exchange(const ability::Frame& frame, std::size_t size, std::uint8_t header) {
  const Outcome outcome =
      line_.transact(frame.data(), size, kReplyOnWire, [&](const std::uint8_t* bytes, std::size_t count) {
        Outcome taken = Outcome::nothing;
        for (std::size_t i = 0; i < count; ++i) {
          ability::Reply reply;
          if (!replies_.push(bytes[i], reply)) continue;
          if (reply.header == header) {
            reply_ = reply;
            taken = Outcome::done;
          } else {
            ++line_.counts().foreign;
          }
        }
        return taken;
      });
  if (failed(outcome)) replies_.clear();
  return outcome;
}

Outcome AbilityDriver::ask() {
  ability::Frame frame;
  const std::size_t size = ability::encode(settings_.address, kReadOnly, nullptr, 0, true, frame);
  return exchange(frame, size, kReadOnly);
}

Outcome AbilityDriver::read_pose(std::uint64_t, Joints& q_rad) {
  const Outcome outcome = ask();
  if (outcome != Outcome::done) return outcome;
  for (int j = 0; j < ability::kJoints; ++j) {
    q_rad[j] = sign(j) * reply_.position[j] / kCountsPerRad;
    if (q_rad[j] < limits_[j].lower_rad - kPlausible_rad || q_rad[j] > limits_[j].upper_rad + kPlausible_rad) {
      ++line_.counts().implausible;
      return Outcome::implausible;
    }
  }
  return outcome;
}

Outcome AbilityDriver::write_pose(const Joints& q_rad) {
  ability::Counts counts{};
  for (int j = 0; j < ability::kJoints; ++j) {
    const double raw = std::round(sign(j) * q_rad[j] * kCountsPerRad);
    if (!(std::abs(raw) <= kMostCounts)) return Outcome::not_representable;  // also catches NaN
    counts[j] = static_cast<std::int16_t>(raw);
  }
  ability::Frame frame;
  const std::size_t size = ability::encode_joints(settings_.address, kPosition, counts, true, frame);
  return exchange(frame, size, kPosition);
}

// All of it came with the last reply.
Outcome AbilityDriver::read_news(std::uint64_t cycle, Nanos, Telemetry& telemetry, News& news) {
  news = News::none;
  if (reply_.variant != 3) return Outcome::nothing;
  if (next_status_ <= cycle) {
    next_status_ = cycle + status_every_;
    for (int j = 0; j < ability::kJoints; ++j) {
      telemetry.status[j] = static_cast<std::uint8_t>(reply_.status >> j & 1);
      telemetry.error_bits[j] = telemetry.status[j] && settings_.stall_is_fault ? kLimited : 0u;
    }
    news = News::health;
  } else if (next_current_ <= cycle) {
    next_current_ = cycle + current_every_;
    for (int j = 0; j < ability::kJoints; ++j)
      telemetry.current_a[j] = static_cast<float>(reply_.current[j] / settings_.counts_per_ampere);
    news = News::current;
  }
  return Outcome::nothing;
}

}  // namespace bridge
