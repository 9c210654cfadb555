#include "codecs/inspire_rs485.hpp"

#include <algorithm>
#include <cstdio>
#include <cstring>

namespace bridge::inspire {
namespace {

constexpr std::uint8_t kRequestHead[2] = {0xEB, 0x90};
constexpr std::uint8_t kReplyHead[2] = {0x90, 0xEB};
constexpr std::size_t kLeastLength = 3;  // cmd and address

std::uint8_t sum(const std::uint8_t* from, const std::uint8_t* to) {
  unsigned total = 0;
  while (from != to) total += *from++;
  return static_cast<std::uint8_t>(total);
}

std::size_t encode(std::uint8_t id, Command command, std::uint16_t address, const std::uint8_t* payload,
                   std::size_t size, Frame& out) {
  if (size == 0 || size > kMostPayload) return 0;
  out[0] = kRequestHead[0];
  out[1] = kRequestHead[1];
  out[2] = id;
  out[3] = static_cast<std::uint8_t>(size + kLeastLength);
  out[4] = static_cast<std::uint8_t>(command);
  out[5] = static_cast<std::uint8_t>(address & 0xFF);
  out[6] = static_cast<std::uint8_t>(address >> 8);
  std::memcpy(&out[7], payload, size);
  out[7 + size] = sum(&out[2], &out[7 + size]);
  return size + kOverhead;
}

std::string text(const char* format, unsigned a, unsigned b) {
  char line[160];
  std::snprintf(line, sizeof line, format, a, b);
  return line;
}

}  // namespace

std::size_t encode_read(std::uint8_t id, std::uint16_t address, std::size_t bytes_wanted, Frame& out) {
  if (bytes_wanted == 0 || bytes_wanted > kMostPayload) return 0;
  const auto wanted = static_cast<std::uint8_t>(bytes_wanted);
  return encode(id, Command::read, address, &wanted, 1, out);
}

std::size_t encode_write(std::uint8_t id, std::uint16_t address, const std::uint8_t* data, std::size_t size,
                         Frame& out) {
  return encode(id, Command::write, address, data, size, out);
}

bool parse_reply(const std::uint8_t* bytes, std::size_t size, Reply& reply, std::string& problem) {
  if (size < kOverhead) {
    problem = text("a reply has at least %u bytes, got %u", kOverhead, static_cast<unsigned>(size));
    return false;
  }
  if (bytes[0] != kReplyHead[0] || bytes[1] != kReplyHead[1]) {
    problem = text("a reply starts with 90 EB, got %02X %02X", bytes[0], bytes[1]);
    return false;
  }
  if (bytes[3] < kLeastLength || size != bytes[3] + 5u) {
    problem = text("length byte %u does not fit a reply of %u bytes", bytes[3], static_cast<unsigned>(size));
    return false;
  }
  if (sum(bytes + 2, bytes + size - 1) != bytes[size - 1]) {
    problem = text("checksum: expected %02X, got %02X", sum(bytes + 2, bytes + size - 1), bytes[size - 1]);
    return false;
  }
  if (bytes[4] != 0x11 && bytes[4] != 0x12) {
    problem = text("command: expected 11 or 12, got %02X", bytes[4], 0);
    return false;
  }
  reply.id = bytes[2];
  reply.command = static_cast<Command>(bytes[4]);
  reply.address = static_cast<std::uint16_t>(bytes[5] | (bytes[6] << 8));
  reply.size = size - kOverhead;
  std::memcpy(reply.data.data(), bytes + 7, reply.size);
  return true;
}

void ReplyStream::clear() {
  if (size_ >= 2) ++counts_.truncated;
  else counts_.garbage += size_;
  size_ = 0;
}

ReplyStream::Candidate ReplyStream::classify(std::size_t at, std::size_t& length) const {
  const std::uint8_t* p = buffer_.data() + at;
  const std::size_t left = size_ - at;
  length = 1;
  const bool may_be_reply = p[0] == kReplyHead[0];
  const bool may_be_echo = p[0] == kRequestHead[0];
  if (!may_be_reply && !may_be_echo) return Candidate::none;
  if (left < 2) return Candidate::incomplete;
  if (p[1] != (may_be_reply ? kReplyHead[1] : kRequestHead[1])) return Candidate::none;
  if (left < 4) return Candidate::incomplete;
  if (p[3] < kLeastLength) return Candidate::impossible;
  const std::size_t whole = p[3] + 5u;
  if (left < whole) return Candidate::incomplete;
  if (sum(p + 2, p + whole - 1) != p[whole - 1]) return Candidate::damaged;
  length = whole;
  return may_be_reply ? Candidate::reply : Candidate::echo;
}

bool ReplyStream::matches(std::size_t at, std::size_t length, const Expected& expected) const {
  const std::uint8_t* p = buffer_.data() + at;
  return p[2] == expected.id && p[4] == static_cast<std::uint8_t>(expected.command) &&
         (p[5] | (p[6] << 8)) == expected.address && length == expected.payload + kOverhead;
}

bool ReplyStream::take(const Expected& expected, Reply& reply) {
  while (size_ > 0) {
    std::size_t length = 0;
    const Candidate front = classify(0, length);
    switch (front) {
      case Candidate::none: ++counts_.garbage; drop(1); continue;
      case Candidate::impossible: ++counts_.length; drop(1); continue;
      case Candidate::damaged: ++counts_.checksum; drop(1); continue;
      case Candidate::echo: ++counts_.echo; drop(length); continue;
      case Candidate::reply:
        if (!matches(0, length, expected)) {
          ++counts_.foreign;
          drop(length);
          continue;
        }
        break;
      case Candidate::incomplete: {
        // The rest may still come, or the head was noise: then the reply stands further back.
        std::size_t at = 1;
        for (; at < size_; ++at)
          if (classify(at, length) == Candidate::reply && matches(at, length, expected)) break;
        if (at >= size_) return false;
        ++counts_.truncated;
        drop(at);
        continue;
      }
    }
    std::string unused;
    parse_reply(buffer_.data(), length, reply, unused);
    drop(length);
    ++counts_.replies;
    return true;
  }
  return false;
}

}  // namespace bridge::inspire
