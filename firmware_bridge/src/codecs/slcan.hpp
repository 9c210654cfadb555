// CAN over a serial line in the text form of Lawicel adapters ("slcan"). Pure: frames in, text out, and back.
//
//   t III L DD..     standard data frame       T IIIIIIII L DD..   extended data frame
//   r III L          standard remote frame     R IIIIIIII L        extended remote frame      each ends with CR
//   b III L DD..     standard CAN-FD frame     B IIIIIIII L DD..   extended CAN-FD frame      L is a length code, 0 to F
//   d, D             as b, B, without the faster bit rate for the data (only ever received)
//   adapters answer commands with CR (ok), BEL (error), and sent frames with z or Z and CR
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "codecs/can_frame.hpp"

namespace bridge::slcan {

constexpr std::size_t kMostText = 1 + 8 + 1 + 2 * 64 + 1;
using Text = std::array<char, kMostText>;

// Returns the number of characters written, 0 if the id or the size does not fit.
std::size_t encode(const CanFrame& frame, Text& out) noexcept;

// Takes a line without its CR. False if it is not a frame.
bool decode(const char* line, std::size_t size, CanFrame& frame) noexcept;

// Cuts a stream into frames; adapters' acknowledgements are skipped.
class LineStream {
 public:
  void feed(const std::uint8_t* bytes, std::size_t size) noexcept;
  bool take(CanFrame& frame) noexcept;
  void clear() noexcept { start_ = end_ = 0; }
  std::uint64_t damaged() const { return damaged_; }
  std::uint64_t refused() const { return refused_; }  // BEL: the adapter did not take a command or a frame

 private:
  std::array<std::uint8_t, 4096> buffer_{};
  std::size_t start_ = 0;
  std::size_t end_ = 0;
  std::uint64_t damaged_ = 0;
  std::uint64_t refused_ = 0;
};

}  // namespace bridge::slcan
