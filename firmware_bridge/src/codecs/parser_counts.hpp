// What a parser met on a line besides the reply it was asked for.
#pragma once

#include <cstdint>

namespace bridge {

struct ParserCounts {
  std::uint64_t replies = 0;    // taken
  std::uint64_t garbage = 0;    // bytes outside any frame
  std::uint64_t checksum = 0;   // frames with a wrong sum, crc or content
  std::uint64_t length = 0;     // headers with an impossible length or id
  std::uint64_t echo = 0;       // our own requests, heard back
  std::uint64_t foreign = 0;    // sound replies to something else: late, another id, another address
  std::uint64_t truncated = 0;  // frames that ended in the middle
};

}  // namespace bridge
