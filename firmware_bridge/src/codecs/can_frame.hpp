// One CAN 2.0 frame as codecs pass it around.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace bridge {

struct CanFrame {
  std::uint32_t id = 0;   // without flag bits
  bool extended = false;  // a 29-bit id
  bool remote = false;    // a request without data (RTR)
  std::uint8_t size = 0;
  std::array<std::uint8_t, 8> data{};
};

constexpr std::uint32_t kMostStandardId = 0x7FF;

}  // namespace bridge
