// Modbus RTU and TCP: functions 03, 04, 06 and 10 (hex) and their exceptions. Pure: bytes in, bytes out.
//
//   RTU   device id | PDU | CRC lo hi                     CRC-16/MODBUS over everything before it
//   TCP   transaction | 00 00 | length | unit | PDU       length counts from the unit on; no checksum
//   PDU   function | big-endian fields; an exception is function + 80 and one code byte
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "codecs/receive_buffer.hpp"

namespace bridge::modbus {

enum class Function : std::uint8_t { read_holding = 0x03, read_input = 0x04, write_one = 0x06, write_many = 0x10 };
enum class Wire { rtu, tcp };

constexpr std::size_t kMostRead = 125;   // registers, as the standard allows
constexpr std::size_t kMostWrite = 123;  // registers
constexpr std::size_t kMostFrame = 260;  // bytes of the longest TCP frame; RTU ends at 256
using Frame = std::array<std::uint8_t, kMostFrame>;

// CRC-16/MODBUS: polynomial A001 reflected, init FFFF; goes out low byte first.
std::uint16_t crc16(const std::uint8_t* bytes, std::size_t size) noexcept;

struct Request {
  std::uint8_t device_id = 0;  // TCP: the unit
  Function function = Function::read_holding;
  std::uint16_t address = 0;
  std::uint16_t count = 0;        // registers; 1 for write_one
  std::uint16_t value = 0;        // of write_one
  std::uint16_t transaction = 0;  // TCP
};

// `data` holds the 2 * count bytes to write, big endian; it is not looked at by the other functions.
// Returns the number of bytes written, or 0 if the request does not fit a frame.
std::size_t encode(Wire wire, const Request& request, const std::uint8_t* data, Frame& out) noexcept;

struct Reply {
  std::uint8_t device_id = 0;
  Function function = Function::read_holding;
  std::uint8_t exception = 0;     // 0: none; else the code, and the fields below are empty
  std::uint16_t address = 0;      // of the write functions; read replies do not carry it
  std::uint16_t count = 0;        // registers
  std::uint16_t transaction = 0;  // TCP
  std::size_t size = 0;           // bytes of data: of reads, and the value of write_one
  std::array<std::uint8_t, 2 * kMostRead> data{};

  std::uint16_t word(std::size_t i) const { return static_cast<std::uint16_t>(data[2 * i] << 8 | data[2 * i + 1]); }
};

struct Problem {  // cheap to carry; made into words only when somebody asks
  const char* format = "";
  unsigned first = 0, second = 0;
  std::string text() const;
};

// One whole frame and nothing else; on damage returns false and says what was expected and got.
bool parse_reply(Wire wire, const std::uint8_t* bytes, std::size_t size, Reply& reply, Problem& problem) noexcept;
bool parse_request(Wire wire, const std::uint8_t* bytes, std::size_t size, Request& request,
                   Problem& problem) noexcept;
// Whether a sound reply belongs to this request. RTU read replies carry no address: a late one of the same
// length cannot be told apart.
bool answers(Wire wire, const Reply& reply, const Request& request, Problem& problem) noexcept;

// Finds the reply to one request after another in a stream that may hold anything else as well.
class ReplyStream : public ReceiveBuffer<1024> {
 public:
  // `echoes`: the adapter repeats what we send. It must be known: the reply to write_one equals its request,
  // so without it an echo would pass for the hand's answer.
  explicit ReplyStream(Wire wire, bool echoes = false) : wire_(wire), echoes_(echoes) {}

  // Call before the request goes out. On RTU drops what came before, which cannot be its reply; on TCP the
  // transaction number tells replies apart, so a half-received frame stays. False if it is not a request.
  bool expect(const std::uint8_t* request, std::size_t size) noexcept;
  // True once for every request, when its reply is complete; what came before it is counted and dropped.
  bool take(Reply& reply) noexcept;
  // Forgets everything half-received; counts it.
  void clear() noexcept;

 private:
  enum class Candidate { none, incomplete, impossible, damaged, frame };
  Candidate classify(std::size_t at, std::size_t& length, Reply& reply) const noexcept;
  bool asked(std::size_t at) const noexcept;
  // How far the bytes at the front repeat the request: 0 if they do not.
  std::size_t echoed() const noexcept;

  const Wire wire_;
  const bool echoes_;
  bool waiting_ = false, echo_due_ = false;
  Request request_;
  Frame request_bytes_{};
  std::size_t request_size_ = 0;
};

}  // namespace bridge::modbus
