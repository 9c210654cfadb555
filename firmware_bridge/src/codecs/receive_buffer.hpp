// What has come off a line and is not understood yet. No allocation; what does not fit is counted as garbage.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "codecs/parser_counts.hpp"

namespace bridge {

template <std::size_t Capacity>
class ReceiveBuffer {
 public:
  void feed(const std::uint8_t* bytes, std::size_t size) noexcept {
    if (size > Capacity) {  // more than any exchange makes: only the newest can matter
      counts_.garbage += size - Capacity;
      bytes += size - Capacity;
      size = Capacity;
    }
    if (size > room()) {
      const std::size_t oldest = size - room();
      counts_.garbage += oldest;
      drop(oldest);
    }
    if (size > 0) std::memcpy(&buffer_[size_], bytes, size);
    size_ += size;
  }
  std::size_t room() const noexcept { return Capacity - size_; }
  const ParserCounts& counts() const noexcept { return counts_; }

 protected:
  void drop(std::size_t count) noexcept {
    std::memmove(buffer_.data(), buffer_.data() + count, size_ - count);
    size_ -= count;
  }

  std::array<std::uint8_t, Capacity> buffer_{};
  std::size_t size_ = 0;
  ParserCounts counts_;
};

}  // namespace bridge
