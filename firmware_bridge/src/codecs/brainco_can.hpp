// BrainCo Revo2 over CAN 2.0 (standard ids) and CAN-FD (Modbus RTU frames inside). Pure: arguments in, frames out.
//
//   CAN 2.0  id = slave * 128 + command * 8 + finger (0 to 5, 6: all)
//            all fingers: 00 00 and six percents; one finger: 00 00 percent 00 00 00 00 00
//            position with duration: byte 0 holds frame number and frame count as nibbles; durations in 10 ms
//   CAN-FD   extended id = slave << 16 | master << 8 | length; data = RTU frame, zeros up to a legal FD length
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace bridge::brainco {

constexpr int kFingers = 6;
constexpr std::uint8_t kAllFingers = 6;
constexpr std::uint8_t kMostSlave = 15;  // four bits are left in a standard id
constexpr std::size_t kMostFdData = 64;

enum class Command : std::uint8_t {
  position = 1,
  speed = 2,
  current = 3,
  pwm = 4,
  status = 5,
  write_parameter = 9,
  read_parameter = 10,
  position_with_duration = 12
};

struct Frame {
  std::uint16_t id = 0;
  std::uint8_t size = 0;
  std::array<std::uint8_t, 8> data{};
};
using Percents = std::array<std::int8_t, kFingers>;

Frame message(std::uint8_t slave, Command command, std::uint8_t finger, const std::uint8_t* data,
              std::size_t size) noexcept;
Frame all_fingers(std::uint8_t slave, Command command, const Percents& percents) noexcept;
Frame one_finger(std::uint8_t slave, Command command, std::uint8_t finger, std::int8_t percent) noexcept;
std::array<Frame, 2> positions_with_durations(std::uint8_t slave, const Percents& percents,
                                              const Percents& durations_10ms) noexcept;
Frame position_with_duration(std::uint8_t slave, std::uint8_t finger, std::int8_t percent,
                             std::int8_t duration_10ms) noexcept;

struct FdFrame {
  std::uint32_t id = 0;
  std::size_t size = 0;
  std::array<std::uint8_t, kMostFdData> data{};
};

// False if the RTU frame is longer than 64 bytes or empty. Its first byte is the slave.
bool wrap_fd(std::uint8_t master, const std::uint8_t* rtu, std::size_t size, FdFrame& out) noexcept;
// Length of the RTU frame at the front of `data`; 0 with a problem if id, length and padding do not fit.
std::size_t unwrap_fd(std::uint32_t id, const std::uint8_t* data, std::size_t size, std::string& problem);

}  // namespace bridge::brainco
