#include "codecs/brainco_can.hpp"

#include <cstdio>
#include <cstring>

namespace bridge::brainco {
namespace {

constexpr std::uint8_t kOneOfOne = 0x11, kOneOfTwo = 0x12, kTwoOfTwo = 0x22;

std::size_t fd_length(std::size_t size) {
  constexpr std::size_t lengths[] = {12, 16, 20, 24, 32, 48, 64};
  if (size <= 8) return size;
  for (const std::size_t length : lengths)
    if (size <= length) return length;
  return 0;
}

Frame six(std::uint8_t slave, Command command, std::uint8_t first, const Percents& values) {
  std::uint8_t data[8] = {first, 0};
  for (int i = 0; i < kFingers; ++i) data[2 + i] = static_cast<std::uint8_t>(values[i]);
  return message(slave, command, kAllFingers, data, sizeof data);
}

std::size_t wrong(std::string& problem, const char* format, std::size_t first, std::size_t second) {
  char line[120];
  std::snprintf(line, sizeof line, format, static_cast<unsigned>(first), static_cast<unsigned>(second));
  problem = line;
  return 0;
}

}  // namespace

Frame message(std::uint8_t slave, Command command, std::uint8_t finger, const std::uint8_t* data,
              std::size_t size) noexcept {
  Frame frame;
  frame.id = static_cast<std::uint16_t>(slave << 7 | static_cast<std::uint8_t>(command) << 3 | finger);
  frame.size = static_cast<std::uint8_t>(size);
  if (size > 0) std::memcpy(frame.data.data(), data, size);
  return frame;
}

Frame all_fingers(std::uint8_t slave, Command command, const Percents& percents) noexcept {
  return six(slave, command, 0, percents);
}

Frame one_finger(std::uint8_t slave, Command command, std::uint8_t finger, std::int8_t percent) noexcept {
  const std::uint8_t data[8] = {0, 0, static_cast<std::uint8_t>(percent)};
  return message(slave, command, finger, data, sizeof data);
}

std::array<Frame, 2> positions_with_durations(std::uint8_t slave, const Percents& percents,
                                              const Percents& durations_10ms) noexcept {
  return {six(slave, Command::position_with_duration, kOneOfTwo, percents),
          six(slave, Command::position_with_duration, kTwoOfTwo, durations_10ms)};
}

Frame position_with_duration(std::uint8_t slave, std::uint8_t finger, std::int8_t percent,
                             std::int8_t duration_10ms) noexcept {
  const std::uint8_t data[8] = {kOneOfOne, static_cast<std::uint8_t>(percent),
                                static_cast<std::uint8_t>(duration_10ms)};
  return message(slave, Command::position_with_duration, finger, data, sizeof data);
}

bool wrap_fd(std::uint8_t master, const std::uint8_t* rtu, std::size_t size, FdFrame& out) noexcept {
  if (size == 0 || size > kMostFdData) return false;
  out.id = std::uint32_t{rtu[0]} << 16 | std::uint32_t{master} << 8 | static_cast<std::uint32_t>(size);
  out.size = fd_length(size);
  out.data.fill(0);
  std::memcpy(out.data.data(), rtu, size);
  return true;
}

std::size_t unwrap_fd(std::uint32_t id, const std::uint8_t* data, std::size_t size, std::string& problem) {
  const std::size_t length = id & 0xFF;
  if (id >> 24 != 0) return wrong(problem, "CAN id: expected slave, master and length, got %08X", id, 0);
  if (length == 0 || length > kMostFdData) return wrong(problem, "length: expected 1 to 64, got %u", length, 0);
  if (size != fd_length(length)) return wrong(problem, "expected %u bytes, got %u", fd_length(length), size);
  for (std::size_t i = length; i < size; ++i)
    if (data[i] != 0) return wrong(problem, "padding byte %u: expected 00, got %02X", i, data[i]);
  return length;
}

}  // namespace bridge::brainco
