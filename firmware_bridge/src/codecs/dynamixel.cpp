#include "codecs/dynamixel.hpp"

#include <cstdio>
#include <cstring>

namespace bridge::dynamixel {
namespace {

constexpr std::uint8_t kHead[4] = {0xFF, 0xFF, 0xFD, 0x00};
constexpr std::size_t kBeforeLength = 7;    // head, id and the length field itself
constexpr std::size_t kLeastLength = 3;     // instruction and crc
constexpr std::size_t kLeastStatus = 4;     // 55, error and crc
constexpr std::size_t kAroundPart = 4;      // error, id and crc of one share of a joint answer

constexpr std::array<std::uint16_t, 256> make_table() {
  std::array<std::uint16_t, 256> table{};
  for (unsigned i = 0; i < 256; ++i) {
    unsigned crc = i << 8;
    for (int bit = 0; bit < 8; ++bit) crc = (crc & 0x8000u) ? (crc << 1) ^ 0x8005u : crc << 1;
    table[i] = static_cast<std::uint16_t>(crc);
  }
  return table;
}
constexpr auto kTable = make_table();

std::uint16_t word(const std::uint8_t* p) { return static_cast<std::uint16_t>(p[0] | (p[1] << 8)); }

// Is FF FF FD complete with the byte at p?
bool looks_like_head(const std::uint8_t* p) { return p[0] == 0xFD && p[-1] == 0xFF && p[-2] == 0xFF; }

// Writes a frame byte by byte, stuffing as it goes.
class Writer {
 public:
  Writer(std::uint8_t id, Instruction instruction, Frame& out) noexcept : out_(out) {
    std::memcpy(out_.data(), kHead, sizeof kHead);
    out_[4] = id;
    byte(static_cast<std::uint8_t>(instruction));
  }

  void byte(std::uint8_t value) noexcept {
    raw(value);
    if (size_ >= kBeforeLength + 3 && fits_ && looks_like_head(&out_[size_ - 1])) raw(0xFD);
  }
  void word16(std::uint16_t value) noexcept {
    byte(static_cast<std::uint8_t>(value & 0xFF));
    byte(static_cast<std::uint8_t>(value >> 8));
  }
  void bytes(const std::uint8_t* from, std::size_t count) noexcept {
    for (std::size_t i = 0; i < count; ++i) byte(from[i]);
  }
  std::size_t finish() noexcept {
    if (!fits_) return 0;
    const std::size_t length = size_ - kBeforeLength + 2;
    out_[5] = static_cast<std::uint8_t>(length & 0xFF);
    out_[6] = static_cast<std::uint8_t>(length >> 8);
    const std::uint16_t crc = crc16(out_.data(), size_);
    out_[size_] = static_cast<std::uint8_t>(crc & 0xFF);
    out_[size_ + 1] = static_cast<std::uint8_t>(crc >> 8);
    return size_ + 2;
  }

 private:
  void raw(std::uint8_t value) noexcept {
    if (size_ + 2 >= out_.size()) fits_ = false;  // the crc must fit as well
    else out_[size_++] = value;
  }

  Frame& out_;
  std::size_t size_ = kBeforeLength;
  bool fits_ = true;
};

// Ids that may stand in a list: servos, each once.
class Seen {
 public:
  bool add(std::uint8_t id) noexcept {
    if (id > kHighestId) return false;
    const std::uint64_t bit = std::uint64_t{1} << (id % 64);
    if (words_[id / 64] & bit) return false;
    words_[id / 64] |= bit;
    return true;
  }

 private:
  std::uint64_t words_[4] = {};
};

bool addressed(std::uint8_t id) { return id <= kHighestId || id == kBroadcast; }

void say(std::string& problem, const char* format, unsigned a, unsigned b) {
  char line[160];
  std::snprintf(line, sizeof line, format, a, b);
  problem = line;
}

// Copies parameters without their stuffing; false if a bare FF FF FD stands in them. The two bytes before `from`
// (55 and the error) are part of the frame, so that looking back is safe.
bool unstuff(const std::uint8_t* from, const std::uint8_t* to, Status& status) {
  status.size = 0;
  for (; from != to; ++from) {
    status.data[status.size++] = *from;
    if (looks_like_head(from) && (++from == to || *from != 0xFD)) return false;
  }
  return true;
}

// Everything but the crc has been checked.
bool unpack(const std::uint8_t* frame, std::size_t size, Status& status) {
  status.id = frame[4];
  if (status.joint()) {
    status.error = 0;
    status.size = size - kBeforeLength - 3;
    std::memcpy(status.data.data(), frame + kBeforeLength + 1, status.size);
    return true;
  }
  status.error = frame[8];
  return unstuff(frame + 9, frame + size - 2, status);
}

}  // namespace

std::uint16_t crc16(const std::uint8_t* bytes, std::size_t size, std::uint16_t crc) noexcept {
  for (std::size_t i = 0; i < size; ++i)
    crc = static_cast<std::uint16_t>((crc << 8) ^ kTable[(crc >> 8) ^ bytes[i]]);
  return crc;
}

std::size_t encode_plain(std::uint8_t id, Instruction instruction, Frame& out) noexcept {
  if (!addressed(id)) return 0;
  return Writer(id, instruction, out).finish();
}

std::size_t encode_read(std::uint8_t id, std::uint16_t address, std::uint16_t count, Frame& out) noexcept {
  if (id > kHighestId || count == 0) return 0;
  Writer writer(id, Instruction::read, out);
  writer.word16(address);
  writer.word16(count);
  return writer.finish();
}

std::size_t encode_write(std::uint8_t id, std::uint16_t address, const std::uint8_t* data, std::size_t count,
                         bool registered, Frame& out) noexcept {
  if (!addressed(id) || count == 0) return 0;
  Writer writer(id, registered ? Instruction::reg_write : Instruction::write, out);
  writer.word16(address);
  writer.bytes(data, count);
  return writer.finish();
}

std::size_t encode_sync_read(std::uint16_t address, std::uint16_t count, const std::uint8_t* ids, std::size_t servos,
                             bool fast, Frame& out) noexcept {
  if (count == 0 || servos == 0) return 0;
  Writer writer(kBroadcast, fast ? Instruction::fast_sync_read : Instruction::sync_read, out);
  writer.word16(address);
  writer.word16(count);
  Seen seen;
  for (std::size_t i = 0; i < servos; ++i) {
    if (!seen.add(ids[i])) return 0;
    writer.byte(ids[i]);
  }
  return writer.finish();
}

std::size_t encode_sync_write(std::uint16_t address, std::uint16_t count, const std::uint8_t* ids,
                              const std::uint8_t* data, std::size_t servos, Frame& out) noexcept {
  if (count == 0 || servos == 0) return 0;
  Writer writer(kBroadcast, Instruction::sync_write, out);
  writer.word16(address);
  writer.word16(count);
  Seen seen;
  for (std::size_t i = 0; i < servos; ++i) {
    if (!seen.add(ids[i])) return 0;
    writer.byte(ids[i]);
    writer.bytes(data + i * count, count);
  }
  return writer.finish();
}

std::size_t encode_bulk_read(const BulkItem* items, std::size_t servos, bool fast, Frame& out) noexcept {
  if (servos == 0) return 0;
  Writer writer(kBroadcast, fast ? Instruction::fast_bulk_read : Instruction::bulk_read, out);
  Seen seen;
  for (std::size_t i = 0; i < servos; ++i) {
    if (items[i].count == 0 || !seen.add(items[i].id)) return 0;
    writer.byte(items[i].id);
    writer.word16(items[i].address);
    writer.word16(items[i].count);
  }
  return writer.finish();
}

std::size_t encode_bulk_write(const BulkItem* items, std::size_t servos, Frame& out) noexcept {
  if (servos == 0) return 0;
  Writer writer(kBroadcast, Instruction::bulk_write, out);
  Seen seen;
  for (std::size_t i = 0; i < servos; ++i) {
    if (items[i].count == 0 || !seen.add(items[i].id)) return 0;
    writer.byte(items[i].id);
    writer.word16(items[i].address);
    writer.word16(items[i].count);
    writer.bytes(items[i].data, items[i].count);
  }
  return writer.finish();
}

bool Status::part(std::size_t i, std::size_t count, Part& out) const noexcept {
  const std::size_t at = i * (count + kAroundPart);
  if (!joint() || at + 2 + count > size) return false;
  out.error = data[at];
  out.id = data[at + 1];
  out.data = &data[at + 2];
  return true;
}

bool parse_status(const std::uint8_t* bytes, std::size_t size, Status& status, std::string& problem) {
  if (size < kBeforeLength + kLeastStatus || size > kMostFrame) {
    say(problem, "a status has 11 to %u bytes, got %u", kMostFrame, static_cast<unsigned>(size));
    return false;
  }
  if (std::memcmp(bytes, kHead, sizeof kHead) != 0) {
    problem = "a status starts with FF FF FD 00";
    return false;
  }
  if (!addressed(bytes[4])) {
    say(problem, "id: expected 0 to 252, or 254, got %u", bytes[4], 0);
    return false;
  }
  if (word(bytes + 5) + kBeforeLength != size) {
    say(problem, "length field %u does not fit a status of %u bytes", word(bytes + 5), static_cast<unsigned>(size));
    return false;
  }
  const unsigned expected = crc16(bytes, size - 2);
  if (expected != word(bytes + size - 2)) {
    say(problem, "crc: expected %04X, got %04X", expected, word(bytes + size - 2));
    return false;
  }
  if (bytes[7] != static_cast<std::uint8_t>(Instruction::status)) {
    say(problem, "instruction: expected 55, got %02X", bytes[7], 0);
    return false;
  }
  if (!unpack(bytes, size, status)) {
    problem = "FF FF FD stands in the parameters without its stuffing byte FD";
    return false;
  }
  return true;
}

bool inner_crcs_hold(const std::uint8_t* frame, std::size_t size, std::size_t servos) noexcept {
  const std::size_t shares = size - kBeforeLength - 1;
  if (servos == 0 || shares % servos != 0 || shares / servos <= kAroundPart) return false;
  std::uint16_t crc = 0;
  std::size_t done = 0;
  for (std::size_t i = 1; i <= servos; ++i) {
    const std::size_t end = kBeforeLength + 1 + i * (shares / servos);
    crc = crc16(frame + done, end - 2 - done, crc);
    if (crc != word(frame + end - 2)) return false;
    done = end - 2;
  }
  return true;
}

void StatusStream::clear() noexcept {
  if (size_ >= sizeof kHead) ++counts_.truncated;
  else counts_.garbage += size_;
  size_ = 0;
}

StatusStream::Candidate StatusStream::classify(std::size_t at, std::size_t& length) const noexcept {
  const std::uint8_t* p = buffer_.data() + at;
  const std::size_t left = size_ - at;
  for (std::size_t i = 0; i < sizeof kHead; ++i) {
    if (i == left) return Candidate::incomplete;
    if (p[i] != kHead[i]) return Candidate::none;
  }
  if (left < kBeforeLength) return Candidate::incomplete;
  const std::size_t whole = word(p + 5) + kBeforeLength;
  if (word(p + 5) < kLeastLength || whole > kMostFrame || !addressed(p[4])) return Candidate::impossible;
  if (left < whole) return Candidate::incomplete;
  if (crc16(p, whole - 2) != word(p + whole - 2)) return Candidate::damaged;
  length = whole;
  if (p[7] != static_cast<std::uint8_t>(Instruction::status)) return Candidate::echo;
  return word(p + 5) < kLeastStatus ? Candidate::impossible : Candidate::status;
}

bool StatusStream::take(Status& status) noexcept {
  while (size_ > 0) {
    std::size_t length = 1;
    switch (classify(0, length)) {
      case Candidate::none: {
        const void* next = std::memchr(&buffer_[1], kHead[0], size_ - 1);
        const std::size_t gone = next ? static_cast<std::size_t>(static_cast<const std::uint8_t*>(next) - buffer_.data())
                                      : size_;
        counts_.garbage += gone;
        drop(gone);
        continue;
      }
      case Candidate::impossible: ++counts_.length; drop(1); continue;
      case Candidate::damaged: ++counts_.checksum; drop(1); continue;
      case Candidate::echo: ++counts_.echo; drop(length); continue;
      case Candidate::status: break;
      case Candidate::incomplete: {
        // The rest may still come, or the head was damaged: then the status stands further back.
        std::size_t at = 1;
        while (at < size_ && classify(at, length) != Candidate::status) ++at;
        if (at >= size_) return false;
        ++counts_.truncated;
        drop(at);
        break;
      }
    }
    if (!unpack(buffer_.data(), length, status)) {
      ++counts_.length;
      drop(1);
      continue;
    }
    drop(length);
    ++counts_.replies;
    return true;
  }
  return false;
}

}  // namespace bridge::dynamixel
