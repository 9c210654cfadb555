// Inspire RH56 (register map A) over CAN 2.0 extended frames, and the serial wrapper of the USB-CAN stick sold with
// the hand. Pure: arguments in, frames out.
//
//   id      read/write code << 26 | register address << 14 | hand id      codes: 0 read, 1 write; wrist 4 and 5
//   read    one byte, the number of bytes wanted; the reply repeats the id and carries them
//   write   the bytes; the reply repeats the id with one byte or none (manuals disagree: both pass)
//
//   stick   AA AA | id, 4 bytes LE | 8 data bytes | length 00 01 00 | sum | 55 55; between head and tail 55, AA and
//           A5 are preceded by A5; sum = low byte of the sum from the id on, before escaping
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace bridge::inspire_can {

constexpr std::size_t kMostData = 8;
constexpr std::uint16_t kMostAddress = 0xFFF;

struct Frame {
  std::uint32_t id = 0;  // 29 bits
  std::uint8_t size = 0;
  std::array<std::uint8_t, kMostData> data{};
};

// Both return false if the arguments do not fit a frame.
bool encode_read(bool wrist, std::uint8_t hand_id, std::uint16_t address, std::size_t bytes_wanted,
                 Frame& out) noexcept;
bool encode_write(bool wrist, std::uint8_t hand_id, std::uint16_t address, const std::uint8_t* data,
                  std::size_t size, Frame& out) noexcept;

struct Reply {
  bool write = false;
  bool wrist = false;
  std::uint16_t hand_id = 0;
  std::uint16_t address = 0;
  std::size_t size = 0;
  std::array<std::uint8_t, kMostData> data{};
};

struct Problem {
  const char* format = "";
  unsigned first = 0, second = 0;
  std::string text() const;
};

bool parse_reply(std::uint32_t id, const std::uint8_t* data, std::size_t size, Reply& reply,
                 Problem& problem) noexcept;

// Every byte between head and tail may need escaping.
constexpr std::size_t kMostStick = 4 + 2 * (4 + kMostData + 4 + 1);
using StickFrame = std::array<std::uint8_t, kMostStick>;

// `fill`: what follows the data in the 8-byte field. Returns the number of bytes written.
std::size_t wrap(const Frame& frame, std::uint8_t fill, StickFrame& out) noexcept;
bool unwrap(const std::uint8_t* bytes, std::size_t size, Frame& frame, Problem& problem) noexcept;

}  // namespace bridge::inspire_can
