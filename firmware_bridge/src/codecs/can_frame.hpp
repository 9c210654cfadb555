// One CAN 2.0 or CAN-FD frame as codecs pass it around.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace bridge {

struct CanFrame {
  std::uint32_t id = 0;   // without flag bits
  bool extended = false;  // a 29-bit id
  bool remote = false;    // a request without data (RTR)
  bool fd = false;        // CAN-FD: up to 64 bytes, data at the faster bit rate
  std::uint8_t size = 0;
  std::array<std::uint8_t, 64> data{};
};
constexpr std::size_t kMostCanData = 8;  // of a CAN 2.0 frame

// CAN-FD frames have 0 to 8, 12, 16, 20, 24, 32, 48 or 64 bytes: the size of a code, and the code of a size or -1.
constexpr std::uint8_t kFdSizes[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 20, 24, 32, 48, 64};
constexpr int fd_code(std::size_t size) {
  for (int code = 0; code < 16; ++code)
    if (kFdSizes[code] == size) return code;
  return -1;
}

constexpr std::uint32_t kMostStandardId = 0x7FF;

}  // namespace bridge
