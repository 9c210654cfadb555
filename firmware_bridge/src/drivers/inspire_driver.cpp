#include "drivers/inspire_driver.hpp"

#include <algorithm>
#include <cerrno>
#include <cmath>

namespace bridge {

using inspire::kJoints;
namespace map_a = inspire::map_a;

namespace {

constexpr int kFullScale = 1000;      // open; 0 is closed
constexpr int kFullStroke = 2000;     // POS_ACT
constexpr int kPlausibleOvershoot = 100;  // sensors read a little past their ends
constexpr std::size_t kSixWords = 2 * kJoints;
constexpr int kConnectTries = 3;
constexpr std::uint64_t kMostPeriodsLate = 2;  // of an errand that waits for a cycle with room
constexpr double kRoomForErrands_hz = 60.0;
constexpr double kSpareTime = 1.15;  // a cycle needs more than the bare wire time

bool plausible(const std::int16_t* words, int full) {
  return std::all_of(words, words + kJoints, [full](int word) {
    return word >= -kPlausibleOvershoot && word <= full + kPlausibleOvershoot;
  });
}

bool all_zero(const std::int16_t* words) {
  return std::all_of(words, words + kJoints, [](int word) { return word == 0; });
}

std::int16_t word_at(const std::uint8_t* bytes, int i) {
  return static_cast<std::int16_t>(bytes[2 * i] | bytes[2 * i + 1] << 8);
}

}  // namespace

InspireDriver::InspireDriver(std::unique_ptr<InspireWire> wire, const InspireSettings& settings,
                             const std::array<JointLimits, kMaxJoints>& limits)
    : wire_(std::move(wire)), settings_(settings), limits_(limits),
      tight_(1.0 / settings.rate_hz < kSpareTime * seconds(3 * wire_->exchange_time())),
      spare_(wire_->exchange_time()) {
  const double rate = settings.rate_hz;
  const double share = std::clamp(rate / kRoomForErrands_hz, 0.5, 1.0);  // on slow lines the pose goes first
  errands_ = {{
      {News::health, map_a::error, 12, cycles_between(rate, tight_ ? 5 * share : 10), 0},
      {News::current, map_a::current, 12, cycles_between(rate, tight_ ? 2 * share : 5), 1},
      {News::temperature, map_a::temperature, 6, cycles_between(rate, tight_ ? 2 * share : 5), 3},
      {News::force, map_a::force_actual, 12, cycles_between(rate, tight_ ? 5 * share : 50), 0},
  }};
}

void InspireDriver::connect() {
  wire_->open();
  try {
    identify();
    set_and_verify(map_a::speed_set, settings_.speed, "SPEED_SET");
    set_and_verify(map_a::force_set, settings_.force_g, "FORCE_SET");
  } catch (...) {
    wire_->close();
    throw;
  }
  for (Errand& errand : errands_) errand.next_cycle = 0;
}

// Read-only: the same addresses mean different things on other families, so nothing is written before this passed.
void InspireDriver::identify() {
  std::int16_t words[kJoints] = {};
  Outcome outcome = Outcome::timeout;
  for (int i = 0; i < kConnectTries && outcome == Outcome::timeout; ++i)
    outcome = read_words(map_a::angle_actual, words);
  if (outcome == Outcome::hung_up) throw PortError(EIO, wire_->name() + ": was lost while connecting");
  if (outcome == Outcome::timeout)
    throw NoReply(wire_->name() + ": no answer from the hand; check power, wiring, its id and the baud or bitrate");
  if (settings_.trust_family && outcome == Outcome::done) return;
  // All zero is a closed hand, or an address that means nothing to this family; stroke and angle cannot both be zero.
  if (outcome == Outcome::done && plausible(words, kFullScale)) {
    if (!all_zero(words)) return;
    if (read_words(map_a::position_actual, words) == Outcome::done && plausible(words, kFullStroke) &&
        !all_zero(words))
      return;
  }
  throw WrongHand(wire_->name() +
                  ": the registers do not look like an RH56 DFX/DFQ/BFX/DFTP/R1 (map A); an F1 or H1 has another map "
                  "and is not driven. If you know it is map A, pass family=\"A\"");
}

void InspireDriver::set_and_verify(std::uint16_t address, int value, const char* name) {
  std::int16_t words[kJoints];
  for (int i = 0; i < kConnectTries; ++i) {
    std::fill(words, words + kJoints, static_cast<std::int16_t>(value));
    if (failed(write_words(address, words)) || failed(read_words(address, words))) continue;
    if (std::all_of(words, words + kJoints, [value](int word) { return word == value; })) return;
  }
  throw WrongHand(wire_->name() + ": the hand does not keep " + name + " = " + std::to_string(value));
}

Outcome InspireDriver::read_words(std::uint16_t address, std::int16_t* words) {
  std::uint8_t bytes[kSixWords];
  const Outcome outcome = wire_->read(address, kSixWords, bytes);
  for (int j = 0; j < kJoints && outcome == Outcome::done; ++j) words[j] = word_at(bytes, j);
  return outcome;
}

Outcome InspireDriver::write_words(std::uint16_t address, const std::int16_t* words) {
  std::uint8_t data[kSixWords];
  for (int j = 0; j < kJoints; ++j) {
    data[2 * j] = static_cast<std::uint8_t>(words[j] & 0xFF);
    data[2 * j + 1] = static_cast<std::uint8_t>((words[j] >> 8) & 0xFF);
  }
  return wire_->write(address, data, sizeof data);
}

Outcome InspireDriver::read_pose(std::uint64_t cycle, Joints& q_rad) {
  instead_ = tight_ && !instead_ && errand_due(cycle);  // never twice in a row, or the pose becomes stale
  if (instead_) return Outcome::nothing;
  std::int16_t words[kJoints];
  const Nanos begin = monotonic_now();
  const Outcome outcome = read_words(map_a::angle_actual, words);
  if (outcome != Outcome::done) return outcome;
  spare_.took(monotonic_now() - begin);
  if (!plausible(words, kFullScale)) {
    ++implausible_;
    return Outcome::implausible;
  }
  for (int j = 0; j < kJoints; ++j) {
    const double closed = 1.0 - static_cast<double>(words[j]) / kFullScale;
    q_rad[j] = limits_[j].lower_rad + closed * (limits_[j].upper_rad - limits_[j].lower_rad);
  }
  return Outcome::done;
}

Outcome InspireDriver::write_pose(const Joints& q_rad) {
  std::int16_t words[kJoints];
  for (int j = 0; j < kJoints; ++j) {
    const double closed = (q_rad[j] - limits_[j].lower_rad) / (limits_[j].upper_rad - limits_[j].lower_rad);
    const double raw = std::round(kFullScale * (1.0 - closed));
    if (!(raw >= 0.0 && raw <= kFullScale)) return Outcome::not_representable;  // also catches NaN
    words[j] = static_cast<std::int16_t>(raw);
  }
  return write_words(map_a::angle_set, words);
}

bool InspireDriver::errand_due(std::uint64_t cycle) const {
  for (const Errand& errand : errands_)
    if (errand.next_cycle <= cycle) return true;
  return false;
}

Outcome InspireDriver::read_news(std::uint64_t cycle, Nanos until, Telemetry& telemetry, News& news) {
  news = News::none;
  Errand* due = nullptr;
  for (Errand& errand : errands_)  // the one whose turn ends first
    if (errand.next_cycle <= cycle && (!due || errand.next_cycle + errand.every_cycles < due->next_cycle + due->every_cycles))
      due = &errand;
  if (!due || (tight_ && !instead_)) return Outcome::nothing;
  const std::uint64_t patience = kMostPeriodsLate * due->every_cycles;
  if (!tight_ && cycle < due->next_cycle + patience && !spare_.enough(monotonic_now(), until)) return Outcome::nothing;
  // On from when it was due, so that waiting does not make it rarer.
  due->next_cycle += due->every_cycles;
  if (due->next_cycle + patience < cycle) due->next_cycle = cycle;  // it was not asked for so long: not made up for
  std::uint8_t bytes[kMostInspireBytes];
  const bool one_byte_each = due->news == News::health || due->news == News::temperature;
  const Outcome outcome = one_byte_each ? wire_->read_bytes(due->address, due->bytes, bytes)
                                        : wire_->read(due->address, due->bytes, bytes);
  if (outcome != Outcome::done) return outcome;
  news = due->news;
  for (int j = 0; j < kJoints; ++j) {
    switch (due->news) {
      case News::force: telemetry.force_g[j] = word_at(bytes, j); break;
      case News::current: telemetry.current_a[j] = static_cast<float>(word_at(bytes, j)) * 1e-3f; break;
      case News::temperature: telemetry.temperature_c[j] = bytes[j]; break;
      case News::health:  // ERROR[6] and STATUS[6] lie side by side
        telemetry.error_bits[j] = bytes[j];
        telemetry.status[j] = bytes[kJoints + j];
        break;
      case News::none: break;
    }
  }
  return Outcome::done;
}

Outcome InspireDriver::clear_errors() { return wire_->write_byte(map_a::clear_error, 1); }

Outcome InspireDriver::calibrate() { return wire_->write_byte(map_a::force_calibration, 1); }

BusCounts InspireDriver::counts() const {
  BusCounts counts = wire_->counts();
  counts.implausible = implausible_;
  return counts;
}

}  // namespace bridge
