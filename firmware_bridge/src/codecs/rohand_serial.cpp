#include "codecs/rohand_serial.hpp"

#include <cstdio>
#include <cstring>

namespace bridge::rohand {
namespace {

constexpr std::uint8_t kErrorBit = 0x80;

std::uint8_t lrc(const std::uint8_t* from, const std::uint8_t* to) {
  std::uint8_t total = 0;
  while (from != to) total ^= *from++;
  return total;
}

bool wrong(std::string& problem, const char* format, std::size_t first, std::size_t second) {
  char line[120];
  std::snprintf(line, sizeof line, format, static_cast<unsigned>(first), static_cast<unsigned>(second));
  problem = line;
  return false;
}

}  // namespace

std::size_t encode(std::uint8_t to, std::uint8_t from, std::uint8_t command, const std::uint8_t* data,
                   std::size_t size, Frame& out) noexcept {
  if (size > kMostData || (command & kErrorBit) != 0) return 0;
  out[0] = 0x55;
  out[1] = 0xAA;
  out[2] = to;
  out[3] = from;
  out[4] = command;
  out[5] = static_cast<std::uint8_t>(size);
  if (size > 0) std::memcpy(&out[6], data, size);
  out[6 + size] = lrc(&out[2], &out[6 + size]);
  return size + kOverhead;
}

bool parse_reply(const std::uint8_t* bytes, std::size_t size, Reply& reply, std::string& problem) {
  if (size < kOverhead) return wrong(problem, "expected at least %u bytes, got %u", kOverhead, size);
  if (bytes[0] != 0x55 || bytes[1] != 0xAA)
    return wrong(problem, "expected the head 55 AA, got %02X %02X", bytes[0], bytes[1]);
  if (size != bytes[5] + kOverhead) return wrong(problem, "size byte: expected %u, got %u", size - kOverhead, bytes[5]);
  const std::uint8_t expected = lrc(bytes + 2, bytes + size - 1);
  if (expected != bytes[size - 1]) return wrong(problem, "lrc: expected %02X, got %02X", expected, bytes[size - 1]);
  const bool error = (bytes[4] & kErrorBit) != 0;
  if (error && (bytes[5] != 1 || bytes[6] == 0))
    return wrong(problem, "error reply: expected one code byte that is not 0, got %u bytes", bytes[5], 0);
  reply.to = bytes[2];
  reply.from = bytes[3];
  reply.command = bytes[4] & static_cast<std::uint8_t>(~kErrorBit);
  reply.error = error ? bytes[6] : 0;
  reply.size = error ? 0 : bytes[5];
  if (reply.size > 0) std::memcpy(reply.data.data(), bytes + 6, reply.size);
  return true;
}

}  // namespace bridge::rohand
