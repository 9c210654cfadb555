#include "drivers/inspire_wires.hpp"

#include <algorithm>
#include <cstring>

#include "codecs/inspire_can.hpp"

namespace bridge {
namespace {

constexpr Nanos kSilence = 3'000'000;
constexpr Nanos kLongestSilenceWait = 10'000'000;
constexpr std::size_t kCanBytes = inspire_can::kMostData;

}  // namespace

IoStatus Quiet::settle(ByteStream& stream, std::uint64_t& late) {
  if (wanted_) {
    std::uint8_t scratch[128];
    std::size_t got = 0;
    const Nanos give_up = monotonic_now() + kLongestSilenceWait;
    while (monotonic_now() < give_up) {
      const IoStatus status = stream.read_some(scratch, sizeof scratch, got, monotonic_now() + kSilence);
      if (status == IoStatus::hung_up) return status;
      if (status == IoStatus::timeout) break;
      late += got;
    }
    wanted_ = false;
  }
  late += stream.discard_input();
  return IoStatus::ok;
}

// -- private RS-485 frame

void InspireRs485Wire::open() {
  stream_->open();
  replies_.clear();
}

Outcome InspireRs485Wire::transact(const inspire::Frame& request, std::size_t size,
                                   const inspire::Expected& expected) {
  if (quiet_.settle(*stream_, counts_.late) != IoStatus::ok) return Outcome::hung_up;
  ++counts_.transactions;
  const Nanos deadline =
      monotonic_now() + stream_->wire_time(size + expected.payload + inspire::kOverhead) + timeout_;
  IoStatus status = stream_->write_all(request.data(), size, deadline);
  while (status == IoStatus::ok) {
    std::uint8_t bytes[256];
    std::size_t got = 0;
    status = stream_->read_some(bytes, sizeof bytes, got, deadline);
    if (status != IoStatus::ok) break;
    replies_.feed(bytes, got);
    if (replies_.take(expected, reply_)) return Outcome::done;
  }
  replies_.clear();
  quiet_.want();
  if (status == IoStatus::hung_up) return Outcome::hung_up;
  ++counts_.timeouts;
  return Outcome::timeout;
}

Outcome InspireRs485Wire::read(std::uint16_t address, std::size_t size, std::uint8_t* out) {
  inspire::Frame frame;
  const std::size_t length = inspire::encode_read(id_, address, size, frame);
  const Outcome outcome = transact(frame, length, {id_, inspire::Command::read, address, size});
  if (outcome == Outcome::done) std::memcpy(out, reply_.data.data(), size);
  return outcome;
}

Outcome InspireRs485Wire::write(std::uint16_t address, const std::uint8_t* data, std::size_t size) {
  inspire::Frame frame;
  const std::size_t length = inspire::encode_write(id_, address, data, size, frame);
  const Outcome outcome = transact(frame, length, {id_, inspire::Command::write, address, 1});
  if (outcome != Outcome::done || reply_.data[0] == 1) return outcome;
  ++counts_.refused;
  return Outcome::refused;
}

BusCounts InspireRs485Wire::counts() const {
  BusCounts counts = counts_;
  const inspire::ParserCounts& parser = replies_.counts();
  counts.checksum = parser.checksum;
  counts.length = parser.length;
  counts.garbage = parser.garbage;
  counts.echo = parser.echo;
  counts.foreign = parser.foreign;
  counts.truncated = parser.truncated;
  return counts;
}

// -- Modbus RTU and TCP

void InspireModbusWire::open() {
  stream_->open();
  replies_.clear();
  free_at_ = 0;
}

Outcome InspireModbusWire::transact(const modbus::Request& request, const std::uint8_t* data) {
  if (quiet_.settle(*stream_, counts_.late) != IoStatus::ok) return Outcome::hung_up;
  // Frames of RTU are told apart by silence; a reply that just came was the last thing on the line.
  std::uint8_t stray[64];
  std::size_t got = 0;
  while (monotonic_now() < free_at_) {
    const IoStatus status = stream_->read_some(stray, sizeof stray, got, free_at_);
    if (status == IoStatus::hung_up) return Outcome::hung_up;
    counts_.late += got;
  }
  modbus::Request numbered = request;
  numbered.transaction = ++transaction_;
  modbus::Frame frame;
  const std::size_t size = modbus::encode(wire_, numbered, data, frame);
  if (size == 0 || !replies_.expect(frame.data(), size)) return Outcome::not_representable;
  ++counts_.transactions;
  const Nanos deadline = monotonic_now() + stream_->wire_time(size + 2 * request.count + 5) + timeout_;
  IoStatus status = stream_->write_all(frame.data(), size, deadline);
  while (status == IoStatus::ok) {
    std::uint8_t bytes[256];
    status = stream_->read_some(bytes, sizeof bytes, got, deadline);
    if (status != IoStatus::ok) break;
    replies_.feed(bytes, got);
    if (!replies_.take(reply_)) continue;
    free_at_ = monotonic_now() + silence();
    if (reply_.exception == 0) return Outcome::done;
    ++counts_.refused;
    return Outcome::refused;
  }
  replies_.clear();
  quiet_.want();
  if (status == IoStatus::hung_up) return Outcome::hung_up;
  ++counts_.timeouts;
  return Outcome::timeout;
}

Outcome InspireModbusWire::read(std::uint16_t address, std::size_t size, std::uint8_t* out) {
  modbus::Request request;
  request.device_id = id_;
  request.function = modbus::Function::read_holding;
  request.address = address;
  request.count = static_cast<std::uint16_t>(size / 2);
  const Outcome outcome = transact(request, nullptr);
  if (outcome != Outcome::done) return outcome;
  for (std::size_t i = 0; i + 1 < size; i += 2) {
    out[i] = reply_.data[i + 1];
    out[i + 1] = reply_.data[i];
  }
  return outcome;
}

Outcome InspireModbusWire::read_bytes(std::uint16_t address, std::size_t size, std::uint8_t* out) {
  const Outcome outcome = read(address, size, out);
  for (std::size_t i = 0; outcome == Outcome::done && high_first_ && i + 1 < size; i += 2) std::swap(out[i], out[i + 1]);
  return outcome;
}

Outcome InspireModbusWire::write(std::uint16_t address, const std::uint8_t* data, std::size_t size) {
  if (size > kMostInspireBytes || size % 2 != 0) return Outcome::not_representable;
  std::uint8_t big_endian[kMostInspireBytes];
  for (std::size_t i = 0; i < size; i += 2) {
    big_endian[i] = data[i + 1];
    big_endian[i + 1] = data[i];
  }
  modbus::Request request;
  request.device_id = id_;
  request.function = modbus::Function::write_many;
  request.address = address;
  request.count = static_cast<std::uint16_t>(size / 2);
  return transact(request, big_endian);
}

Outcome InspireModbusWire::write_byte(std::uint16_t address, std::uint8_t value) {
  modbus::Request request;
  request.device_id = id_;
  request.function = modbus::Function::write_one;
  request.address = address;
  request.count = 1;
  request.value = value;
  return transact(request, nullptr);
}

BusCounts InspireModbusWire::counts() const {
  BusCounts counts = counts_;
  const modbus::ParserCounts& parser = replies_.counts();
  counts.checksum = parser.checksum;
  counts.length = parser.length;
  counts.garbage = parser.garbage;
  counts.echo = parser.echo;
  counts.foreign = parser.foreign;
  counts.truncated = parser.truncated;
  return counts;
}

// -- CAN

Outcome InspireCanWire::transact(const CanFrame& request, bool write, std::size_t wanted, std::uint8_t* out) {
  counts_.late += bus_->discard_input();
  ++counts_.transactions;
  const Nanos deadline = monotonic_now() + timeout_;
  IoStatus status = bus_->send(request, deadline);
  while (status == IoStatus::ok) {
    CanFrame reply;
    status = bus_->receive(reply, deadline);
    if (status != IoStatus::ok) break;
    if (!reply.extended || reply.remote || reply.id != request.id) {
      ++counts_.foreign;
      continue;
    }
    // Acknowledgements carry one byte or none; manuals disagree.
    const bool fits = write ? reply.size <= 1 : reply.size == wanted;
    if (!fits) {
      ++counts_.length;
      continue;
    }
    if (!write) std::memcpy(out, reply.data.data(), wanted);
    return Outcome::done;
  }
  if (status == IoStatus::hung_up) return Outcome::hung_up;
  ++counts_.timeouts;
  return Outcome::timeout;
}

Outcome InspireCanWire::read(std::uint16_t address, std::size_t size, std::uint8_t* out) {
  for (std::size_t at = 0; at < size; at += kCanBytes) {
    const std::size_t part = std::min(kCanBytes, size - at);
    inspire_can::Frame frame;
    if (!inspire_can::encode_read(false, id_, static_cast<std::uint16_t>(address + at), part, frame))
      return Outcome::not_representable;
    CanFrame request;
    request.id = frame.id;
    request.extended = true;
    request.size = frame.size;
    request.data = frame.data;
    const Outcome outcome = transact(request, false, part, out + at);
    if (outcome != Outcome::done) return outcome;
  }
  return Outcome::done;
}

Outcome InspireCanWire::write(std::uint16_t address, const std::uint8_t* data, std::size_t size) {
  for (std::size_t at = 0; at < size; at += kCanBytes) {
    const std::size_t part = std::min(kCanBytes, size - at);
    inspire_can::Frame frame;
    if (!inspire_can::encode_write(false, id_, static_cast<std::uint16_t>(address + at), data + at, part, frame))
      return Outcome::not_representable;
    CanFrame request;
    request.id = frame.id;
    request.extended = true;
    request.size = frame.size;
    request.data = frame.data;
    const Outcome outcome = transact(request, true, 0, nullptr);
    if (outcome != Outcome::done) return outcome;
  }
  return Outcome::done;
}

BusCounts InspireCanWire::counts() const {
  BusCounts counts = counts_;
  counts.garbage = bus_->damaged();
  return counts;
}

}  // namespace bridge
