#include "codecs/ability.hpp"

#include <cstdio>

namespace bridge::ability {
namespace {

constexpr std::uint8_t kDelimiter = 0x7E;
constexpr std::uint8_t kEscape = 0x7D;
constexpr std::uint8_t kFlip = 0x20;
constexpr std::size_t kPairs = 1;  // where the six pairs of a reply start, after the header
constexpr std::size_t kRest = kPairs + 4 * kJoints;

enum class Soundness { sound, length, variant, checksum };

std::uint8_t sum(const std::uint8_t* bytes, std::size_t size) {
  unsigned total = 0;
  for (std::size_t i = 0; i < size; ++i) total += bytes[i];
  return static_cast<std::uint8_t>(total);
}

std::int16_t word(const std::uint8_t* p) { return static_cast<std::int16_t>(p[0] | (p[1] << 8)); }

Soundness check(const std::uint8_t* bytes, std::size_t size) noexcept {
  if (size != kLongReply && size != kShortReply) return Soundness::length;
  if (sum(bytes, size) != 0) return Soundness::checksum;
  const unsigned variant = bytes[0] & 0x0Fu;
  return (size == kShortReply ? variant == 2 : variant < 2) ? Soundness::sound : Soundness::variant;
}

void decode(const std::uint8_t* bytes, std::size_t size, TouchOrder order, Reply& reply) noexcept {
  reply = Reply{};
  reply.header = bytes[0];
  reply.variant = (bytes[0] & 0x0F) + 1;
  reply.status = bytes[size - 2];
  Counts& second = reply.variant == 2 ? reply.velocity : reply.current;
  for (int j = 0; j < kJoints; ++j) {
    reply.position[j] = word(bytes + kPairs + 4 * j);
    second[j] = word(bytes + kPairs + 4 * j + 2);
  }
  if (reply.variant == 3) {
    for (int j = 0; j < kJoints; ++j) reply.velocity[j] = word(bytes + kRest + 2 * j);
    return;
  }
  for (int i = 0; i < kTouchSensors; i += 2) {  // two values in three bytes
    const std::uint8_t* p = bytes + kRest + 3 * i / 2;
    if (order == TouchOrder::low_nibble_first) {
      reply.touch[i] = static_cast<std::uint16_t>(p[0] | ((p[1] & 0x0F) << 8));
      reply.touch[i + 1] = static_cast<std::uint16_t>((p[1] >> 4) | (p[2] << 4));
    } else {
      reply.touch[i] = static_cast<std::uint16_t>((p[0] << 4) | (p[1] >> 4));
      reply.touch[i + 1] = static_cast<std::uint16_t>(((p[1] & 0x0F) << 8) | p[2]);
    }
  }
}

void say(std::string& problem, const char* format, unsigned a, unsigned b) {
  char line[160];
  std::snprintf(line, sizeof line, format, a, b);
  problem = line;
}

}  // namespace

std::size_t encode(std::uint8_t address, std::uint8_t header, const std::uint8_t* payload, std::size_t size,
                   bool stuffing, Frame& out) noexcept {
  if (size > kMostPayload) return 0;
  std::array<std::uint8_t, kMostPayload + 3> raw{address, header};
  for (std::size_t i = 0; i < size; ++i) raw[2 + i] = payload[i];
  raw[2 + size] = static_cast<std::uint8_t>(-sum(raw.data(), 2 + size));
  std::size_t written = 0;
  if (stuffing) out[written++] = kDelimiter;
  for (std::size_t i = 0; i < size + 3; ++i) {
    if (stuffing && (raw[i] == kDelimiter || raw[i] == kEscape)) {
      out[written++] = kEscape;
      out[written++] = raw[i] ^ kFlip;
    } else {
      out[written++] = raw[i];
    }
  }
  if (stuffing) out[written++] = kDelimiter;
  return written;
}

std::size_t encode_joints(std::uint8_t address, std::uint8_t header, const Counts& counts, bool stuffing,
                          Frame& out) noexcept {
  std::array<std::uint8_t, kMostPayload> payload;
  for (int j = 0; j < kJoints; ++j) {
    const auto bits = static_cast<std::uint16_t>(counts[j]);
    payload[2 * j] = static_cast<std::uint8_t>(bits & 0xFF);
    payload[2 * j + 1] = static_cast<std::uint8_t>(bits >> 8);
  }
  return encode(address, header, payload.data(), payload.size(), stuffing, out);
}

bool parse_reply(const std::uint8_t* bytes, std::size_t size, TouchOrder order, Reply& reply, std::string& problem) {
  switch (check(bytes, size)) {
    case Soundness::sound: decode(bytes, size, order, reply); return true;
    case Soundness::length:
      say(problem, "a reply has 72 or 39 bytes, got %u", static_cast<unsigned>(size), 0);
      return false;
    case Soundness::checksum:
      say(problem, "check byte: expected %02X, got %02X", static_cast<std::uint8_t>(-sum(bytes, size - 1)),
          bytes[size - 1]);
      return false;
    case Soundness::variant:
      say(problem, "header %02X does not fit a reply of %u bytes", bytes[0], static_cast<unsigned>(size));
      return false;
  }
  return false;
}

bool unstuff(const std::uint8_t* bytes, std::size_t& size, std::uint8_t* out, std::string& problem) {
  if (size < 2 || bytes[0] != kDelimiter || bytes[size - 1] != kDelimiter) {
    problem = "a frame starts and ends with 7E";
    return false;
  }
  std::size_t written = 0;
  for (std::size_t i = 1; i + 1 < size; ++i) {
    std::uint8_t byte = bytes[i];
    if (byte == kEscape) byte = bytes[++i] ^ kFlip;  // at worst the closing 7E, caught below
    if (bytes[i] == kDelimiter) {
      say(problem, "7E inside a frame, at byte %u", static_cast<unsigned>(i), 0);
      return false;
    }
    out[written++] = byte;
  }
  size = written;
  return true;
}

bool ReplyStream::push(std::uint8_t byte, Reply& reply) noexcept {
  if (byte == kDelimiter) return finish(reply);
  if (byte == kEscape && !escaped_) {
    escaped_ = true;
    return false;
  }
  if (size_ == frame_.size()) spoilt_ = true;
  else frame_[size_++] = escaped_ ? byte ^ kFlip : byte;
  escaped_ = false;
  return false;
}

bool ReplyStream::finish(Reply& reply) noexcept {
  const std::size_t size = size_;
  const bool spoilt = spoilt_ || escaped_;
  size_ = 0;
  escaped_ = spoilt_ = false;
  if (size == 0 && !spoilt) return false;  // between the closing 7E of one frame and the opening one of the next
  const Soundness soundness = spoilt ? Soundness::length : check(frame_.data(), size);
  if (soundness == Soundness::sound) {
    decode(frame_.data(), size, order_, reply);
    ++counts_.replies;
    return true;
  }
  ++(soundness == Soundness::checksum ? counts_.checksum : counts_.foreign);
  return false;
}

void ReplyStream::clear() noexcept {
  if (size_ > 0 || escaped_) ++counts_.foreign;
  size_ = 0;
  escaped_ = spoilt_ = false;
}

}  // namespace bridge::ability
