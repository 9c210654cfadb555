#include "codecs/modbus.hpp"

#include <algorithm>
#include <cstdio>
#include <cstring>

namespace bridge::modbus {
namespace {

constexpr std::uint8_t kExceptionBit = 0x80;
constexpr std::size_t kTcpHead = 7;  // transaction, protocol, length, unit
constexpr std::size_t kCrc = 2;
constexpr std::size_t kLeastPdu = 2;  // function and exception code
constexpr std::size_t kMostPdu = 253;

constexpr std::array<std::uint16_t, 256> crc_table() {
  std::array<std::uint16_t, 256> table{};
  for (unsigned byte = 0; byte < 256; ++byte) {
    unsigned crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc & 1) ? (crc >> 1) ^ 0xA001u : crc >> 1;
    table[byte] = static_cast<std::uint16_t>(crc);
  }
  return table;
}
constexpr std::array<std::uint16_t, 256> kCrcTable = crc_table();

void put16(std::uint8_t* p, std::size_t value) {
  p[0] = static_cast<std::uint8_t>(value >> 8);
  p[1] = static_cast<std::uint8_t>(value);
}
std::uint16_t get16(const std::uint8_t* p) { return static_cast<std::uint16_t>(p[0] << 8 | p[1]); }

bool known(std::uint8_t function) {
  return function == 0x03 || function == 0x04 || function == 0x06 || function == 0x10;
}
bool reads(Function function) { return function == Function::read_holding || function == Function::read_input; }

bool wrong(Problem& problem, const char* format, std::size_t first, std::size_t second) {
  problem = {format, static_cast<unsigned>(first), static_cast<unsigned>(second)};
  return false;
}

// Where the PDU stands in a frame, once the part around it has been found sound.
bool open_frame(Wire wire, const std::uint8_t* bytes, std::size_t size, std::uint8_t& device_id,
                std::uint16_t& transaction, const std::uint8_t*& pdu, std::size_t& pdu_size, Problem& problem) {
  const std::size_t around = wire == Wire::rtu ? 1 + kCrc : kTcpHead;
  if (size < around + kLeastPdu) return wrong(problem, "expected at least %u bytes, got %u", around + kLeastPdu, size);
  if (size > around + kMostPdu) return wrong(problem, "expected at most %u bytes, got %u", around + kMostPdu, size);
  pdu_size = size - around;
  if (wire == Wire::rtu) {
    const std::uint16_t expected = crc16(bytes, size - kCrc);
    const std::uint16_t got = static_cast<std::uint16_t>(bytes[size - 2] | bytes[size - 1] << 8);
    if (expected != got) return wrong(problem, "CRC: expected %04X, got %04X", expected, got);
    if (bytes[0] == 0) return wrong(problem, "device id: expected 1 to 255, got 0 (%u bytes)", size, 0);
    device_id = bytes[0];
    transaction = 0;
    pdu = bytes + 1;
    return true;
  }
  if (get16(bytes + 2) != 0) return wrong(problem, "protocol number: expected %u, got %u", 0, get16(bytes + 2));
  if (get16(bytes + 4) != size - 6)
    return wrong(problem, "length field: expected %u, got %u", size - 6, get16(bytes + 4));
  device_id = bytes[6];
  transaction = get16(bytes);
  pdu = bytes + kTcpHead;
  return true;
}

bool parse_reply_pdu(const std::uint8_t* pdu, std::size_t size, Reply& reply, Problem& problem) {
  const std::uint8_t function = pdu[0] & static_cast<std::uint8_t>(~kExceptionBit);
  if (!known(function)) return wrong(problem, "function: expected 03, 04, 06 or 10 hex, got %02X", pdu[0], 0);
  reply.function = static_cast<Function>(function);
  reply.exception = 0;
  reply.address = reply.count = 0;
  reply.size = 0;
  if (pdu[0] & kExceptionBit) {
    if (size != 2) return wrong(problem, "exception: expected a PDU of %u bytes, got %u", 2, size);
    if (pdu[1] == 0) return wrong(problem, "exception code: expected 1 to 255, got %u", 0, 0);
    reply.exception = pdu[1];
    return true;
  }
  if (reads(reply.function)) {
    if (pdu[1] == 0 || pdu[1] % 2 != 0 || pdu[1] > 2 * kMostRead)
      return wrong(problem, "byte count: expected an even number up to %u, got %u", 2 * kMostRead, pdu[1]);
    if (size != pdu[1] + 2u) return wrong(problem, "byte count: expected %u, got %u", size - 2, pdu[1]);
    reply.count = static_cast<std::uint16_t>(pdu[1] / 2);
    reply.size = pdu[1];
    std::memcpy(reply.data.data(), pdu + 2, reply.size);
    return true;
  }
  if (size != 5) return wrong(problem, "write reply: expected a PDU of %u bytes, got %u", 5, size);
  reply.address = get16(pdu + 1);
  if (reply.function == Function::write_one) {
    reply.count = 1;
    reply.size = 2;
    std::memcpy(reply.data.data(), pdu + 3, 2);
    return true;
  }
  reply.count = get16(pdu + 3);
  if (reply.count == 0 || reply.count > kMostWrite)
    return wrong(problem, "registers written: expected 1 to %u, got %u", kMostWrite, reply.count);
  return true;
}

bool fits(const Request& request) {
  const std::size_t most = reads(request.function)                   ? kMostRead
                           : request.function == Function::write_one ? 1
                                                                     : kMostWrite;
  return request.count >= 1 && request.count <= most && request.address + request.count <= 0x10000u;
}

bool parse_request_pdu(const std::uint8_t* pdu, std::size_t size, Request& request, Problem& problem) {
  if (!known(pdu[0])) return wrong(problem, "function: expected 03, 04, 06 or 10 hex, got %02X", pdu[0], 0);
  if (size < 5) return wrong(problem, "request: expected a PDU of at least %u bytes, got %u", 5, size);
  request.function = static_cast<Function>(pdu[0]);
  request.address = get16(pdu + 1);
  const bool one = request.function == Function::write_one;
  request.count = one ? 1 : get16(pdu + 3);
  request.value = one ? get16(pdu + 3) : 0;
  if (!fits(request))
    return wrong(problem, "registers: %u from address %u on do not fit", request.count, request.address);
  const std::size_t whole = request.function == Function::write_many ? 6 + 2u * request.count : 5;
  if (size != whole) return wrong(problem, "request: expected a PDU of %u bytes, got %u", whole, size);
  if (request.function == Function::write_many && pdu[5] != 2 * request.count)
    return wrong(problem, "byte count: expected %u, got %u", 2 * request.count, pdu[5]);
  return true;
}

// Length of the reply that may start here; 0: too few bytes to tell, kImpossible: no reply starts like this.
constexpr std::size_t kImpossible = ~std::size_t{0};
std::size_t rtu_length(const std::uint8_t* p, std::size_t left) {
  if (left < 3) return 0;
  if (p[1] & kExceptionBit) return 5;
  if (p[1] == 0x06 || p[1] == 0x10) return 8;
  return p[2] == 0 || p[2] % 2 != 0 || p[2] > 2 * kMostRead ? kImpossible : p[2] + 5u;
}

}  // namespace

std::uint16_t crc16(const std::uint8_t* bytes, std::size_t size) noexcept {
  unsigned crc = 0xFFFF;
  for (std::size_t i = 0; i < size; ++i) crc = crc >> 8 ^ kCrcTable[(crc ^ bytes[i]) & 0xFF];
  return static_cast<std::uint16_t>(crc);
}

std::string Problem::text() const {
  char line[160];
  std::snprintf(line, sizeof line, format, first, second);
  return line;
}

std::size_t encode(Wire wire, const Request& request, const std::uint8_t* data, Frame& out) noexcept {
  if (!known(static_cast<std::uint8_t>(request.function)) || !fits(request)) return 0;
  std::uint8_t* pdu = &out[wire == Wire::rtu ? 1 : kTcpHead];
  pdu[0] = static_cast<std::uint8_t>(request.function);
  put16(pdu + 1, request.address);
  put16(pdu + 3, request.function == Function::write_one ? request.value : request.count);
  std::size_t size = 5;
  if (request.function == Function::write_many) {
    pdu[5] = static_cast<std::uint8_t>(2 * request.count);
    std::memcpy(pdu + 6, data, 2u * request.count);
    size = 6 + 2u * request.count;
  }
  if (wire == Wire::rtu) {
    out[0] = request.device_id;
    const std::uint16_t crc = crc16(out.data(), 1 + size);
    out[1 + size] = static_cast<std::uint8_t>(crc);
    out[2 + size] = static_cast<std::uint8_t>(crc >> 8);
    return 1 + size + kCrc;
  }
  put16(&out[0], request.transaction);
  put16(&out[2], 0);
  put16(&out[4], 1 + size);
  out[6] = request.device_id;
  return kTcpHead + size;
}

bool parse_reply(Wire wire, const std::uint8_t* bytes, std::size_t size, Reply& reply, Problem& problem) noexcept {
  const std::uint8_t* pdu = nullptr;
  std::size_t pdu_size = 0;
  return open_frame(wire, bytes, size, reply.device_id, reply.transaction, pdu, pdu_size, problem) &&
         parse_reply_pdu(pdu, pdu_size, reply, problem);
}

bool parse_request(Wire wire, const std::uint8_t* bytes, std::size_t size, Request& request,
                   Problem& problem) noexcept {
  const std::uint8_t* pdu = nullptr;
  std::size_t pdu_size = 0;
  return open_frame(wire, bytes, size, request.device_id, request.transaction, pdu, pdu_size, problem) &&
         parse_request_pdu(pdu, pdu_size, request, problem);
}

bool answers(Wire wire, const Reply& reply, const Request& request, Problem& problem) noexcept {
  if (wire == Wire::tcp && reply.transaction != request.transaction)
    return wrong(problem, "transaction: expected %u, got %u", request.transaction, reply.transaction);
  if (reply.device_id != request.device_id)
    return wrong(problem, "device id: expected %u, got %u", request.device_id, reply.device_id);
  if (reply.function != request.function)
    return wrong(problem, "function: expected %02X, got %02X", static_cast<unsigned>(request.function),
                 static_cast<unsigned>(reply.function));
  if (reply.exception != 0) return true;
  if (!reads(reply.function) && reply.address != request.address)
    return wrong(problem, "address: expected %u, got %u", request.address, reply.address);
  if (reply.count != request.count)
    return wrong(problem, "registers: expected %u, got %u", request.count, reply.count);
  if (reply.function == Function::write_one && reply.word(0) != request.value)
    return wrong(problem, "value written: expected %u, got %u", request.value, reply.word(0));
  return true;
}

bool ReplyStream::expect(const std::uint8_t* request, std::size_t size) noexcept {
  Problem unused;
  waiting_ = false;
  if (!parse_request(wire_, request, size, request_, unused)) return false;
  if (wire_ == Wire::rtu) clear();
  std::memcpy(request_bytes_.data(), request, size);
  request_size_ = size;
  waiting_ = true;
  echo_due_ = echoes_ && wire_ == Wire::rtu;
  return true;
}

void ReplyStream::clear() noexcept {
  Reply reply;
  while (size_ > 0) {
    std::size_t length = 0;
    switch (classify(0, length, reply)) {
      case Candidate::frame: ++counts_.foreign; drop(length); break;
      case Candidate::incomplete: ++counts_.truncated; drop(size_); break;
      default: ++counts_.garbage; drop(1);
    }
  }
}

std::size_t ReplyStream::echoed() const noexcept {
  const std::size_t seen = std::min(size_, request_size_);
  return std::memcmp(buffer_.data(), request_bytes_.data(), seen) == 0 ? seen : 0;
}

bool ReplyStream::asked(std::size_t at) const noexcept {
  if (wire_ == Wire::tcp || size_ - at < 2) return true;
  return buffer_[at] == request_.device_id &&
         (buffer_[at + 1] & ~kExceptionBit) == static_cast<std::uint8_t>(request_.function);
}

ReplyStream::Candidate ReplyStream::classify(std::size_t at, std::size_t& length, Reply& reply) const noexcept {
  const std::uint8_t* p = buffer_.data() + at;
  const std::size_t left = size_ - at;
  std::size_t whole = 0;
  if (wire_ == Wire::rtu) {
    if (left >= 2 && !known(p[1] & static_cast<std::uint8_t>(~kExceptionBit))) return Candidate::none;
    whole = rtu_length(p, left);
    if (whole == kImpossible) return Candidate::impossible;
  } else {
    if ((left > 2 && p[2] != 0) || (left > 3 && p[3] != 0)) return Candidate::none;
    if (left > 5) {
      if (get16(p + 4) < 1 + kLeastPdu || get16(p + 4) > 1 + kMostPdu) return Candidate::impossible;
      whole = get16(p + 4) + 6u;
    }
  }
  if (whole == 0 || left < whole) return Candidate::incomplete;
  Problem unused;
  if (!parse_reply(wire_, p, whole, reply, unused)) return Candidate::damaged;
  length = whole;
  return Candidate::frame;
}

bool ReplyStream::take(Reply& reply) noexcept {
  Problem unused;
  while (waiting_ && size_ > 0) {
    if (echo_due_) {  // nothing before the echo can be the reply
      const std::uint8_t* end = buffer_.data() + size_;
      const std::uint8_t* found =
          std::search(static_cast<const std::uint8_t*>(buffer_.data()), end, request_bytes_.data(),
                      request_bytes_.data() + request_size_);
      if (found == end) return false;
      const std::size_t before = static_cast<std::size_t>(found - buffer_.data());
      counts_.garbage += before;
      ++counts_.echo;
      drop(before + request_size_);
      echo_due_ = false;
      continue;
    }
    std::size_t length = 0;
    const Candidate front = classify(0, length, reply);
    if (front == Candidate::frame && answers(wire_, reply, request_, unused)) {
      drop(length);
      ++counts_.replies;
      waiting_ = false;
      return true;
    }
    if (front == Candidate::frame) {
      ++counts_.foreign;
      drop(length);
      continue;
    }
    if (wire_ == Wire::rtu) {  // an adapter that repeats us although we were not told
      const std::size_t seen = echoed();
      if (seen == request_size_) {
        ++counts_.echo;
        drop(seen);
        continue;
      }
      if (seen == size_) return false;
    }
    if (front == Candidate::incomplete) {
      // The rest may still come, or the head was noise: then the reply stands further back.
      std::size_t at = 1;
      for (; at < size_; ++at)
        if (classify(at, length, reply) == Candidate::frame && answers(wire_, reply, request_, unused)) break;
      if (at >= size_) return false;
      ++counts_.truncated;
      drop(at);
      continue;
    }
    if (front == Candidate::impossible && asked(0)) ++counts_.length;
    else if (front == Candidate::damaged && asked(0)) ++counts_.checksum;
    else ++counts_.garbage;
    drop(1);
  }
  return false;
}

}  // namespace bridge::modbus
