// Inspire RH56 private RS-485 frame and register map A (DFX, DFQ, BFX, DFTP, R1). Pure: bytes in, bytes out.
//
//   request  EB 90 | id | len | cmd | address lo hi | payload | sum        len = payload bytes + 3
//   reply    90 EB | id | len | cmd | address lo hi | payload | sum        sum = low byte of the sum from id on
//   cmd 11 reads (payload: the number of bytes wanted), cmd 12 writes; 16-bit data are little endian.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "codecs/receive_buffer.hpp"

namespace bridge::inspire {

enum class Command : std::uint8_t { read = 0x11, write = 0x12 };

// Register map A, byte addresses.
namespace map_a {
constexpr std::uint16_t hand_id = 1000;
constexpr std::uint16_t baud_code = 1002;
constexpr std::uint16_t clear_error = 1004;
constexpr std::uint16_t save = 1005;
constexpr std::uint16_t reset_parameters = 1006;
constexpr std::uint16_t gesture = 1008;
constexpr std::uint16_t force_calibration = 1009;
constexpr std::uint16_t current_limit = 1020;
constexpr std::uint16_t default_speed = 1032;
constexpr std::uint16_t default_force = 1044;
constexpr std::uint16_t voltage = 1472;
constexpr std::uint16_t position_set = 1474;
constexpr std::uint16_t angle_set = 1486;
constexpr std::uint16_t force_set = 1498;
constexpr std::uint16_t speed_set = 1522;
constexpr std::uint16_t position_actual = 1534;
constexpr std::uint16_t angle_actual = 1546;
constexpr std::uint16_t force_actual = 1582;
constexpr std::uint16_t current = 1594;
constexpr std::uint16_t error = 1606;
constexpr std::uint16_t status = 1612;
constexpr std::uint16_t temperature = 1618;
}  // namespace map_a

constexpr int kJoints = 6;
constexpr std::size_t kOverhead = 8;         // bytes of a frame around its payload
constexpr std::size_t kMostPayload = 255 - 3;
constexpr std::size_t kMostFrame = kMostPayload + kOverhead;
using Frame = std::array<std::uint8_t, kMostFrame>;

// Both return the number of bytes written, or 0 if the arguments do not fit a frame.
std::size_t encode_read(std::uint8_t id, std::uint16_t address, std::size_t bytes_wanted, Frame& out);
std::size_t encode_write(std::uint8_t id, std::uint16_t address, const std::uint8_t* data, std::size_t size,
                         Frame& out);

struct Reply {
  std::uint8_t id = 0;
  Command command = Command::read;
  std::uint16_t address = 0;
  std::size_t size = 0;
  std::array<std::uint8_t, kMostPayload> data{};

  std::int16_t word(std::size_t i) const {
    return static_cast<std::int16_t>(data[2 * i] | (data[2 * i + 1] << 8));
  }
};

// One whole reply and nothing else; on damage returns false and says what was got and expected.
bool parse_reply(const std::uint8_t* bytes, std::size_t size, Reply& reply, std::string& problem);

// What the answer to a request must look like.
struct Expected {
  std::uint8_t id;
  Command command;
  std::uint16_t address;
  std::size_t payload;  // bytes
};

// Finds the expected reply in a stream that may hold anything else as well.
class ReplyStream : public ReceiveBuffer<1024> {
 public:
  // True once the reply is complete; what came before it is counted and dropped.
  bool take(const Expected& expected, Reply& reply);
  // Forgets a half-received frame; counts it.
  void clear();

 private:
  enum class Candidate { none, incomplete, impossible, damaged, echo, reply };
  Candidate classify(std::size_t at, std::size_t& length) const;
  bool matches(std::size_t at, std::size_t length, const Expected& expected) const;
};

}  // namespace bridge::inspire
