// Dynamixel protocol 2.0 (LEAP hand and every X-series servo). Pure: bytes in, bytes out.
//
//   instruction  FF FF FD 00 | id | length lo hi | instruction | parameters | crc lo hi
//   status       FF FF FD 00 | id | length lo hi | 55 | error | parameters | crc lo hi
//   length = bytes after the length field; crc = CRC-16, polynomial 8005, over everything before it.
//   From the instruction byte to the last parameter, FF FF FD is sent as FF FF FD FD ("stuffed"); length and crc
//   count the stuffed bytes. One status is not stuffed, the joint answer to a fast sync or fast bulk read:
//   FF FF FD 00 | FE | length lo hi | 55 | error | id | data | crc lo hi | error | id | data | crc lo hi ...
//   where each crc, the last one included, is over everything before it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "codecs/receive_buffer.hpp"

namespace bridge::dynamixel {

enum class Instruction : std::uint8_t {
  ping = 0x01,
  read = 0x02,
  write = 0x03,
  reg_write = 0x04,
  action = 0x05,
  reboot = 0x08,
  status = 0x55,
  sync_read = 0x82,
  sync_write = 0x83,
  fast_sync_read = 0x8A,
  bulk_read = 0x92,
  bulk_write = 0x93,
  fast_bulk_read = 0x9A,
};

constexpr std::uint8_t kHighestId = 252;
constexpr std::uint8_t kBroadcast = 254;
constexpr std::size_t kOverhead = 10;  // head, id, length, instruction and crc
constexpr std::size_t kMostFrame = 1024;
constexpr std::uint8_t kAlert = 0x80;  // of the error byte: look at Hardware Error Status (register 70)
using Frame = std::array<std::uint8_t, kMostFrame>;

std::uint16_t crc16(const std::uint8_t* bytes, std::size_t size, std::uint16_t crc = 0) noexcept;

// One servo's share of a bulk read (data unused) or bulk write.
struct BulkItem {
  std::uint8_t id;
  std::uint16_t address;
  std::uint16_t count;
  const std::uint8_t* data;
};

// All return the number of bytes written, or 0 if the arguments do not fit a frame: an id above 252 (254 only where
// a broadcast makes sense), an id twice, a count of 0, or more than kMostFrame bytes.
std::size_t encode_plain(std::uint8_t id, Instruction instruction, Frame& out) noexcept;  // ping, action, reboot
std::size_t encode_read(std::uint8_t id, std::uint16_t address, std::uint16_t count, Frame& out) noexcept;
std::size_t encode_write(std::uint8_t id, std::uint16_t address, const std::uint8_t* data, std::size_t count,
                         bool registered, Frame& out) noexcept;
std::size_t encode_sync_read(std::uint16_t address, std::uint16_t count, const std::uint8_t* ids, std::size_t servos,
                             bool fast, Frame& out) noexcept;
// `data` holds `count` bytes per servo, in the order of `ids`.
std::size_t encode_sync_write(std::uint16_t address, std::uint16_t count, const std::uint8_t* ids,
                              const std::uint8_t* data, std::size_t servos, Frame& out) noexcept;
std::size_t encode_bulk_read(const BulkItem* items, std::size_t servos, bool fast, Frame& out) noexcept;
std::size_t encode_bulk_write(const BulkItem* items, std::size_t servos, Frame& out) noexcept;

// One servo's answer; `data` points into the Status it came from.
struct Part {
  std::uint8_t id;
  std::uint8_t error;
  const std::uint8_t* data;
};

struct Status {
  std::uint8_t id = 0;
  std::uint8_t error = 0;  // 0 for a joint answer: each part has its own
  std::size_t size = 0;
  // Parameters, unstuffed. Of a joint answer (id FE): everything between 55 and the last crc.
  std::array<std::uint8_t, kMostFrame> data{};

  bool joint() const noexcept { return id == kBroadcast; }
  // The i-th share of a joint answer in which each servo sends `count` data bytes; false past the end.
  bool part(std::size_t i, std::size_t count, Part& out) const noexcept;
};

// One whole status and nothing else; on damage returns false and says what was got and expected.
bool parse_status(const std::uint8_t* bytes, std::size_t size, Status& status, std::string& problem);

// Do `servos` shares of equal size, each closed by the crc of everything before it, make up this sound joint answer?
bool inner_crcs_hold(const std::uint8_t* frame, std::size_t size, std::size_t servos) noexcept;

// Finds statuses in a stream that may hold anything else as well.
class StatusStream : public ReceiveBuffer<2 * kMostFrame> {
 public:
  // True once a sound status of any servo is complete; what came before it is counted and dropped.
  bool take(Status& status) noexcept;
  // Forgets a half-received frame; counts it.
  void clear() noexcept;

 private:
  enum class Candidate { none, incomplete, impossible, damaged, echo, status };
  Candidate classify(std::size_t at, std::size_t& length) const noexcept;
};

}  // namespace bridge::dynamixel
