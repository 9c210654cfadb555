// PSYONIC Ability Hand over UART or RS-485, extended API. Pure: bytes in, bytes out.
//
//   to the hand    address | header | payload | check        payload: six int16 lo hi, or none, or a few bytes
//   reply 1        header | (position, current) x 6  | 45 bytes = 30 touch values of 12 bits | status | check
//   reply 2        header | (position, velocity) x 6 | 45 bytes = 30 touch values of 12 bits | status | check
//   reply 3        header | (position, current) x 6  | velocity x 6                          | status | check
//   The check byte makes the sum of all bytes 0 (mod 256). With byte stuffing on, a frame travels as 7E ... 7E and
//   every 7E or 7D inside it as 7D, byte ^ 20. The low digit of a header is the wanted reply less one.
//   Joints: index, middle, ring, pinky, thumb flexor, thumb rotator.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "codecs/parser_counts.hpp"

namespace bridge::ability {

constexpr int kJoints = 6;
constexpr int kTouchSensors = 30;
constexpr std::uint8_t kDefaultAddress = 0x50;
constexpr std::size_t kMostPayload = 12;
constexpr std::size_t kMostFrame = 2 * (kMostPayload + 3) + 2;  // everything escaped, and two delimiters
constexpr std::size_t kLongReply = 72;                          // variants 1 and 2
constexpr std::size_t kShortReply = 39;                         // variant 3
using Frame = std::array<std::uint8_t, kMostFrame>;
using Counts = std::array<std::int16_t, kJoints>;

// All return the number of bytes written, or 0 if the payload is too long.
std::size_t encode(std::uint8_t address, std::uint8_t header, const std::uint8_t* payload, std::size_t size,
                   bool stuffing, Frame& out) noexcept;
std::size_t encode_joints(std::uint8_t address, std::uint8_t header, const Counts& counts, bool stuffing,
                          Frame& out) noexcept;

struct Reply {
  std::uint8_t header = 0;
  int variant = 1;
  Counts position{};
  Counts current{};   // variants 1 and 3
  Counts velocity{};  // variants 2 and 3; of the rotors
  std::array<std::uint16_t, kTouchSensors> touch{};  // variants 1 and 2
  std::uint8_t status = 0;  // bit k: motor k is limited or stalled
};

// Which nibble of a byte that two touch values share belongs to the earlier one: low as in both vendor libraries.
enum class TouchOrder { low_nibble_first, high_nibble_first };

// One whole reply without delimiters and stuffing; on damage returns false and says what was got and expected.
bool parse_reply(const std::uint8_t* bytes, std::size_t size, TouchOrder order, Reply& reply, std::string& problem);

// Takes delimiters and stuffing off one whole frame 7E ... 7E; `size` becomes the number of bytes written to `out`,
// which has room for `size` of them. On damage returns false and says what was got and expected.
bool unstuff(const std::uint8_t* bytes, std::size_t& size, std::uint8_t* out, std::string& problem);

// Finds replies in a stuffed stream that may hold anything else as well, byte by byte. Counts as checksum what has a
// reply's length, all other frames as foreign: our own requests heard back, noise, half frames.
class ReplyStream {
 public:
  explicit ReplyStream(TouchOrder order = TouchOrder::low_nibble_first) noexcept : order_(order) {}
  // True if this byte completed a sound reply.
  bool push(std::uint8_t byte, Reply& reply) noexcept;
  // Forgets a half-received frame; counts it.
  void clear() noexcept;
  const ParserCounts& counts() const noexcept { return counts_; }

 private:
  bool finish(Reply& reply) noexcept;

  TouchOrder order_;
  std::array<std::uint8_t, kLongReply> frame_{};
  std::size_t size_ = 0;
  bool escaped_ = false;
  bool spoilt_ = false;  // too long, or an escape without its byte
  ParserCounts counts_;
};

}  // namespace bridge::ability
