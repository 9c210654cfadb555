// ROHand's own serial protocol, which also travels in 8-byte pieces over CAN. Pure: arguments in, bytes out.
//
//   55 AA | to | from | command | size | data | lrc        lrc = XOR from `to` to the last data byte
//   A reply swaps `to` and `from`; an error is command + 80 (hex) with one code byte.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace bridge::rohand {

constexpr std::size_t kOverhead = 7;
constexpr std::size_t kMostData = 255;
using Frame = std::array<std::uint8_t, kOverhead + kMostData>;

// Returns the number of bytes written, or 0 if the data are too long or the command has the error bit.
std::size_t encode(std::uint8_t to, std::uint8_t from, std::uint8_t command, const std::uint8_t* data,
                   std::size_t size, Frame& out) noexcept;

struct Reply {
  std::uint8_t to = 0, from = 0;
  std::uint8_t command = 0;
  std::uint8_t error = 0;  // the code; 0: none
  std::size_t size = 0;
  std::array<std::uint8_t, kMostData> data{};
};

// One whole reply and nothing else; on damage returns false and says what was got and expected.
bool parse_reply(const std::uint8_t* bytes, std::size_t size, Reply& reply, std::string& problem);

}  // namespace bridge::rohand
