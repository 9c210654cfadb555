#include "drivers/inspire_rs485_driver.hpp"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>

namespace bridge {

using inspire::kJoints;
namespace map_a = inspire::map_a;

namespace {

constexpr int kFullScale = 1000;      // open; 0 is closed
constexpr int kFullStroke = 2000;     // POS_ACT
constexpr int kPlausibleOvershoot = 100;  // sensors read a little past their ends
constexpr Nanos kSilence = 3'000'000;     // of the line after an error, before the next request
constexpr Nanos kLongestSilenceWait = 10'000'000;
constexpr std::size_t kSixWords = 2 * kJoints;
constexpr std::size_t kTransactionBytes = 29;  // a read or write of six words and its reply
constexpr int kConnectTries = 3;

std::uint64_t cycles(double rate_hz, double wanted_hz) {
  return static_cast<std::uint64_t>(std::max(1.0, std::round(rate_hz / wanted_hz)));
}

bool plausible(const inspire::Reply& reply, int full) {
  for (int j = 0; j < kJoints; ++j)
    if (reply.word(j) < -kPlausibleOvershoot || reply.word(j) > full + kPlausibleOvershoot) return false;
  return true;
}

bool all_zero(const inspire::Reply& reply) {
  for (int j = 0; j < kJoints; ++j)
    if (reply.word(j) != 0) return false;
  return true;
}

}  // namespace

InspireRs485Driver::InspireRs485Driver(const InspireSettings& settings,
                                       const std::array<JointLimits, kMaxJoints>& limits)
    : settings_(settings), limits_(limits) {
  const double rate = settings.rate_hz;
  tight_ = 1.0 / rate < 1.15 * seconds(wire_time(3 * kTransactionBytes));
  errands_ = {{
      {News::health, map_a::error, 12, cycles(rate, tight_ ? 5 : 10), 0},
      {News::current, map_a::current, 12, cycles(rate, tight_ ? 2 : 5), 1},
      {News::temperature, map_a::temperature, 6, cycles(rate, tight_ ? 2 : 5), 3},
      {News::force, map_a::force_actual, 12, cycles(rate, tight_ ? 5 : 50), 0},
  }};
}

Nanos InspireRs485Driver::wire_time(std::size_t bytes) const {
  return static_cast<Nanos>(bytes) * 10 * kNanosPerSecond / settings_.baud;
}

void InspireRs485Driver::connect() {
  port_.open(settings_.port, settings_.baud);
  stream_.clear();
  needs_silence_ = false;
  try {
    identify();
    set_and_verify(map_a::speed_set, settings_.speed, "SPEED_SET");
    set_and_verify(map_a::force_set, settings_.force_g, "FORCE_SET");
  } catch (...) {
    port_.close();
    throw;
  }
  for (Errand& errand : errands_) errand.next_cycle = 0;
}

void InspireRs485Driver::disconnect() { port_.close(); }

// Read-only: the same addresses mean different things on other families, so nothing is written before this passed.
void InspireRs485Driver::identify() {
  Outcome outcome = Outcome::timeout;
  for (int i = 0; i < kConnectTries && outcome != Outcome::done; ++i) outcome = read(map_a::angle_actual, kSixWords);
  if (outcome == Outcome::hung_up) throw PortError(EIO, settings_.port + ": was lost while connecting");
  if (outcome != Outcome::done)
    throw NoReply(settings_.port + ": no answer from id " + std::to_string(settings_.device_id) + " at " +
                  std::to_string(settings_.baud) + " baud; check power, the A and B wires, the id and the baud");
  if (settings_.trust_family) return;
  // All zero is a closed hand, or an address that means nothing to this family; stroke and angle cannot both be zero.
  if (plausible(reply_, kFullScale) && !all_zero(reply_)) return;
  if (plausible(reply_, kFullScale) && read(map_a::position_actual, kSixWords) == Outcome::done &&
      plausible(reply_, kFullStroke) && !all_zero(reply_))
    return;
  throw WrongHand(settings_.port +
                  ": the registers do not look like an RH56 DFX/DFQ/BFX/DFTP/R1 (map A); an F1 or H1 has another map "
                  "and is not driven. If you know it is map A, pass family=\"A\"");
}

void InspireRs485Driver::set_and_verify(std::uint16_t address, int value, const char* name) {
  std::int16_t words[kJoints];
  std::fill(words, words + kJoints, static_cast<std::int16_t>(value));
  for (int i = 0; i < kConnectTries; ++i) {
    if (failed(write_words(address, words)) || failed(read(address, kSixWords))) continue;
    bool equal = true;
    for (int j = 0; j < kJoints; ++j) equal &= reply_.word(j) == value;
    if (equal) return;
  }
  throw WrongHand(settings_.port + ": the hand does not keep " + name + " = " + std::to_string(value));
}

Outcome InspireRs485Driver::transact(const inspire::Frame& request, std::size_t size,
                                     const inspire::Expected& expected) {
  if (needs_silence_) {  // a hand that missed a byte listens again only after an idle line
    std::uint8_t scratch[128];
    std::size_t got = 0;
    const Nanos give_up = monotonic_now() + kLongestSilenceWait;
    while (monotonic_now() < give_up) {
      const IoStatus status = port_.read_some(scratch, sizeof scratch, got, monotonic_now() + kSilence);
      if (status == IoStatus::hung_up) return Outcome::hung_up;
      if (status == IoStatus::timeout) break;
      counts_.late += got;
    }
    needs_silence_ = false;
  }
  counts_.late += port_.discard_input();
  ++counts_.transactions;
  const Nanos deadline = monotonic_now() + wire_time(size + expected.payload + inspire::kOverhead) +
                         nanos(settings_.reply_timeout_s);
  Outcome outcome = Outcome::timeout;
  IoStatus status = port_.write_all(request.data(), size, deadline);
  while (status == IoStatus::ok) {
    std::uint8_t bytes[256];
    std::size_t got = 0;
    status = port_.read_some(bytes, sizeof bytes, got, deadline);
    if (status != IoStatus::ok) break;
    stream_.feed(bytes, got);
    if (stream_.take(expected, reply_)) return Outcome::done;
  }
  if (status == IoStatus::hung_up) outcome = Outcome::hung_up;
  if (outcome == Outcome::timeout) ++counts_.timeouts;
  stream_.clear();
  needs_silence_ = true;
  return outcome;
}

Outcome InspireRs485Driver::read(std::uint16_t address, std::size_t bytes) {
  const auto id = static_cast<std::uint8_t>(settings_.device_id);
  inspire::Frame frame;
  const std::size_t size = inspire::encode_read(id, address, bytes, frame);
  return transact(frame, size, {id, inspire::Command::read, address, bytes});
}

Outcome InspireRs485Driver::write(std::uint16_t address, const std::uint8_t* data, std::size_t count) {
  const auto id = static_cast<std::uint8_t>(settings_.device_id);
  inspire::Frame frame;
  const std::size_t size = inspire::encode_write(id, address, data, count, frame);
  const Outcome outcome = transact(frame, size, {id, inspire::Command::write, address, 1});
  if (outcome != Outcome::done || reply_.data[0] == 1) return outcome;
  ++counts_.refused;
  return Outcome::refused;
}

Outcome InspireRs485Driver::write_words(std::uint16_t address, const std::int16_t* words) {
  std::uint8_t data[kSixWords];
  for (int j = 0; j < kJoints; ++j) {
    data[2 * j] = static_cast<std::uint8_t>(words[j] & 0xFF);
    data[2 * j + 1] = static_cast<std::uint8_t>((words[j] >> 8) & 0xFF);
  }
  return write(address, data, sizeof data);
}

Outcome InspireRs485Driver::read_pose(std::uint64_t cycle, Joints& q_rad) {
  if (tight_ && errand_due(cycle)) return Outcome::nothing;
  const Outcome outcome = read(map_a::angle_actual, kSixWords);
  if (outcome != Outcome::done) return outcome;
  if (!plausible(reply_, kFullScale)) {
    ++counts_.implausible;
    return Outcome::implausible;
  }
  for (int j = 0; j < kJoints; ++j) {
    const double closed = 1.0 - static_cast<double>(reply_.word(j)) / kFullScale;
    q_rad[j] = limits_[j].lower_rad + closed * (limits_[j].upper_rad - limits_[j].lower_rad);
  }
  return Outcome::done;
}

Outcome InspireRs485Driver::write_pose(const Joints& q_rad) {
  std::int16_t words[kJoints];
  for (int j = 0; j < kJoints; ++j) {
    const double closed = (q_rad[j] - limits_[j].lower_rad) / (limits_[j].upper_rad - limits_[j].lower_rad);
    const double raw = std::round(kFullScale * (1.0 - closed));
    if (!(raw >= 0.0 && raw <= kFullScale)) return Outcome::not_representable;  // also catches NaN
    words[j] = static_cast<std::int16_t>(raw);
  }
  return write_words(map_a::angle_set, words);
}

bool InspireRs485Driver::errand_due(std::uint64_t cycle) const {
  for (const Errand& errand : errands_)
    if (errand.next_cycle <= cycle) return true;
  return false;
}

Outcome InspireRs485Driver::read_news(std::uint64_t cycle, Telemetry& telemetry, News& news) {
  news = News::none;
  Errand* due = nullptr;
  for (Errand& errand : errands_)
    if (errand.next_cycle <= cycle && (!due || errand.next_cycle < due->next_cycle)) due = &errand;
  if (!due) return Outcome::nothing;
  due->next_cycle = cycle + due->every_cycles;
  const Outcome outcome = read(due->address, due->bytes);
  if (outcome != Outcome::done) return outcome;
  news = due->news;
  for (int j = 0; j < kJoints; ++j) {
    switch (due->news) {
      case News::force: telemetry.force_g[j] = reply_.word(j); break;
      case News::current: telemetry.current_a[j] = static_cast<float>(reply_.word(j)) * 1e-3f; break;
      case News::temperature: telemetry.temperature_c[j] = reply_.data[j]; break;
      case News::health:  // ERROR[6] and STATUS[6] lie side by side
        telemetry.error_bits[j] = reply_.data[j];
        telemetry.status[j] = reply_.data[kJoints + j];
        break;
      case News::none: break;
    }
  }
  return Outcome::done;
}

Outcome InspireRs485Driver::clear_errors() {
  const std::uint8_t one = 1;
  return write(map_a::clear_error, &one, 1);
}

BusCounts InspireRs485Driver::counts() const {
  BusCounts counts = counts_;
  const inspire::ParserCounts& parser = stream_.counts();
  counts.checksum = parser.checksum;
  counts.length = parser.length;
  counts.garbage = parser.garbage;
  counts.echo = parser.echo;
  counts.foreign = parser.foreign;
  counts.truncated = parser.truncated;
  return counts;
}

}  // namespace bridge
