#include "codecs/inspire_can.hpp"

#include <cstdio>
#include <cstring>

namespace bridge::inspire_can {
namespace {

constexpr std::uint32_t kWrite = 1, kWrist = 4;
constexpr std::uint8_t kHead = 0xAA, kTail = 0x55, kEscape = 0xA5;
constexpr std::size_t kBody = 4 + kMostData + 4 + 1;  // id, data, length and flags, sum
constexpr std::size_t kLengthAt = 4 + kMostData;

bool special(std::uint8_t byte) { return byte == kHead || byte == kTail || byte == kEscape; }

bool wrong(Problem& problem, const char* format, std::size_t first, std::size_t second) {
  problem = {format, static_cast<unsigned>(first), static_cast<unsigned>(second)};
  return false;
}

std::uint32_t make_id(bool write, bool wrist, std::uint8_t hand_id, std::uint16_t address) {
  return ((write ? kWrite : 0) | (wrist ? kWrist : 0)) << 26 | std::uint32_t{address} << 14 | hand_id;
}

std::uint8_t sum_of(const std::uint8_t* body) {
  unsigned total = 0;
  for (std::size_t i = 0; i + 1 < kBody; ++i) total += body[i];
  return static_cast<std::uint8_t>(total);
}

}  // namespace

std::string Problem::text() const {
  char line[160];
  std::snprintf(line, sizeof line, format, first, second);
  return line;
}

bool encode_read(bool wrist, std::uint8_t hand_id, std::uint16_t address, std::size_t bytes_wanted,
                 Frame& out) noexcept {
  if (bytes_wanted == 0 || bytes_wanted > kMostData || address + bytes_wanted > kMostAddress + 1u) return false;
  out = Frame{};
  out.id = make_id(false, wrist, hand_id, address);
  out.size = 1;
  out.data[0] = static_cast<std::uint8_t>(bytes_wanted);
  return true;
}

bool encode_write(bool wrist, std::uint8_t hand_id, std::uint16_t address, const std::uint8_t* data,
                  std::size_t size, Frame& out) noexcept {
  if (size == 0 || size > kMostData || address + size > kMostAddress + 1u) return false;
  out = Frame{};
  out.id = make_id(true, wrist, hand_id, address);
  out.size = static_cast<std::uint8_t>(size);
  std::memcpy(out.data.data(), data, size);
  return true;
}

bool parse_reply(std::uint32_t id, const std::uint8_t* data, std::size_t size, Reply& reply,
                 Problem& problem) noexcept {
  if (id >> 29 != 0) return wrong(problem, "CAN id: expected 29 bits, got %08X", id, 0);
  const std::uint32_t code = id >> 26;
  if ((code & ~(kWrite | kWrist)) != 0) return wrong(problem, "read/write code: expected 0, 1, 4 or 5, got %u", code, 0);
  reply.write = (code & kWrite) != 0;
  reply.wrist = (code & kWrist) != 0;
  if (reply.write && size > 1) return wrong(problem, "write reply: expected 0 or 1 bytes, got %u", size, 0);
  if (!reply.write && (size == 0 || size > kMostData))
    return wrong(problem, "read reply: expected 1 to 8 bytes, got %u", size, 0);
  reply.address = static_cast<std::uint16_t>(id >> 14 & kMostAddress);
  reply.hand_id = static_cast<std::uint16_t>(id & 0x3FFF);
  reply.size = size;
  if (size > 0) std::memcpy(reply.data.data(), data, size);
  return true;
}

std::size_t wrap(const Frame& frame, std::uint8_t fill, StickFrame& out) noexcept {
  std::uint8_t body[kBody];
  for (int i = 0; i < 4; ++i) body[i] = static_cast<std::uint8_t>(frame.id >> 8 * i);
  for (std::size_t i = 0; i < kMostData; ++i) body[4 + i] = i < frame.size ? frame.data[i] : fill;
  const std::uint8_t flags[4] = {frame.size, 0x00, 0x01, 0x00};  // length, channel, extended id, data frame
  std::memcpy(body + kLengthAt, flags, sizeof flags);
  body[kBody - 1] = sum_of(body);
  std::size_t size = 0;
  out[size++] = kHead;
  out[size++] = kHead;
  for (const std::uint8_t byte : body) {
    if (special(byte)) out[size++] = kEscape;
    out[size++] = byte;
  }
  out[size++] = kTail;
  out[size++] = kTail;
  return size;
}

bool unwrap(const std::uint8_t* bytes, std::size_t size, Frame& frame, Problem& problem) noexcept {
  if (size < 4 + kBody || size > kMostStick)
    return wrong(problem, "expected %u to 38 bytes, got %u", 4 + kBody, size);
  if (bytes[0] != kHead || bytes[1] != kHead)
    return wrong(problem, "expected the head AA AA, got %02X %02X", bytes[0], bytes[1]);
  if (bytes[size - 2] != kTail || bytes[size - 1] != kTail)
    return wrong(problem, "expected the tail 55 55, got %02X %02X", bytes[size - 2], bytes[size - 1]);
  std::uint8_t body[kBody];
  std::size_t filled = 0;
  for (std::size_t i = 2; i + 2 < size; ++i) {
    std::uint8_t byte = bytes[i];
    if (byte == kEscape) {
      if (++i + 2 >= size || !special(bytes[i])) return wrong(problem, "byte %u: expected 55, AA or A5 after A5", i, 0);
      byte = bytes[i];
    } else if (special(byte)) {
      return wrong(problem, "byte %u: %02X inside a frame without A5 before it", i, byte);
    }
    if (filled == kBody) return wrong(problem, "expected %u bytes between head and tail, got more", kBody, 0);
    body[filled++] = byte;
  }
  if (filled != kBody) return wrong(problem, "expected %u bytes between head and tail, got %u", kBody, filled);
  if (sum_of(body) != body[kBody - 1])
    return wrong(problem, "checksum: expected %02X, got %02X", sum_of(body), body[kBody - 1]);
  const std::uint8_t* flags = body + kLengthAt;
  if (flags[0] > kMostData) return wrong(problem, "length: expected 0 to 8, got %u", flags[0], 0);
  if (flags[1] != 0 || flags[2] != 1 || flags[3] != 0)
    return wrong(problem, "expected an extended data frame of channel 0, got flags %02X and %02X", flags[2], flags[3]);
  frame.id = 0;
  for (int i = 3; i >= 0; --i) frame.id = frame.id << 8 | body[i];
  if (frame.id >> 29 != 0) return wrong(problem, "CAN id: expected 29 bits, got %08X", frame.id, 0);
  frame.size = flags[0];
  frame.data.fill(0);
  std::memcpy(frame.data.data(), body + 4, frame.size);
  return true;
}

}  // namespace bridge::inspire_can
