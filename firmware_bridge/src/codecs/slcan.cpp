#include "codecs/slcan.hpp"

#include <cstring>

namespace bridge::slcan {
namespace {

constexpr char kDigits[] = "0123456789ABCDEF";
constexpr char kCarriageReturn = '\r';
constexpr char kBell = '\a';

int digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

}  // namespace

std::size_t encode(const CanFrame& frame, Text& out) noexcept {
  if (frame.id > (frame.extended ? 0x1FFFFFFFu : 0x7FFu)) return 0;
  const int code = fd_code(frame.size);
  if (code < 0 || (frame.fd ? frame.remote : frame.size > kMostCanData)) return 0;
  std::size_t at = 0;
  const char kind = frame.fd ? 'b' : frame.remote ? 'r' : 't';
  out[at++] = frame.extended ? static_cast<char>(kind - 'a' + 'A') : kind;
  for (int shift = frame.extended ? 28 : 8; shift >= 0; shift -= 4) out[at++] = kDigits[(frame.id >> shift) & 15];
  out[at++] = kDigits[code];
  for (int i = 0; i < frame.size && !frame.remote; ++i) {
    out[at++] = kDigits[frame.data[i] >> 4];
    out[at++] = kDigits[frame.data[i] & 15];
  }
  out[at++] = kCarriageReturn;
  return at;
}

bool decode(const char* line, std::size_t size, CanFrame& frame) noexcept {
  if (size == 0) return false;
  const bool upper = line[0] >= 'A' && line[0] <= 'Z';
  const char kind = upper ? static_cast<char>(line[0] - 'A' + 'a') : line[0];
  if (kind != 't' && kind != 'r' && kind != 'b' && kind != 'd') return false;
  frame = CanFrame{};
  frame.extended = upper;
  frame.remote = kind == 'r';
  frame.fd = kind == 'b' || kind == 'd';
  const std::size_t digits = frame.extended ? 8 : 3;
  if (size < 1 + digits + 1) return false;
  for (std::size_t i = 1; i <= digits; ++i) {
    const int value = digit(line[i]);
    if (value < 0) return false;
    frame.id = frame.id << 4 | static_cast<std::uint32_t>(value);
  }
  if (frame.id > (frame.extended ? 0x1FFFFFFFu : 0x7FFu)) return false;
  const int length = digit(line[1 + digits]);
  if (length < 0 || (length > 8 && !frame.fd)) return false;
  frame.size = kFdSizes[length];
  const std::size_t body = frame.remote ? 0 : 2u * frame.size;
  // Some adapters append four digits of time.
  if (size != 2 + digits + body && size != 2 + digits + body + 4) return false;
  for (std::size_t i = 0; i < body / 2; ++i) {
    const int high = digit(line[2 + digits + 2 * i]), low = digit(line[3 + digits + 2 * i]);
    if (high < 0 || low < 0) return false;
    frame.data[i] = static_cast<std::uint8_t>(high << 4 | low);
  }
  return true;
}

void LineStream::feed(const std::uint8_t* bytes, std::size_t size) noexcept {
  if (size > buffer_.size() / 2) {  // far more than any exchange: only the newest can matter
    bytes += size - buffer_.size() / 2;
    size = buffer_.size() / 2;
    ++damaged_;
  }
  if (end_ + size > buffer_.size()) {
    std::memmove(buffer_.data(), buffer_.data() + start_, end_ - start_);
    end_ -= start_;
    start_ = 0;
    if (end_ + size > buffer_.size()) {
      ++damaged_;
      end_ = 0;
    }
  }
  std::memcpy(buffer_.data() + end_, bytes, size);
  end_ += size;
}

bool LineStream::take(CanFrame& frame) noexcept {
  for (std::size_t at = start_; at < end_; ++at) {
    const char c = static_cast<char>(buffer_[at]);
    if (c == kBell) {
      ++refused_;
      start_ = at + 1;
      continue;
    }
    if (c != kCarriageReturn) continue;
    const char* line = reinterpret_cast<const char*>(buffer_.data() + start_);
    const std::size_t size = at - start_;
    start_ = at + 1;
    if (decode(line, size, frame)) return true;
    const bool acknowledgement = size == 0 || (size == 1 && (line[0] == 'z' || line[0] == 'Z'));
    if (!acknowledgement) ++damaged_;
  }
  if (start_ == end_) start_ = end_ = 0;
  return false;
}

}  // namespace bridge::slcan
