#include "drivers/inspire_wires.hpp"

#include <algorithm>
#include <cstring>

namespace bridge {

// -- private RS-485 frame

void InspireRs485Wire::open() {
  line_.open();
  replies_.clear();
}

Outcome InspireRs485Wire::transact(const inspire::Frame& request, std::size_t size,
                                   const inspire::Expected& expected) {
  const Outcome outcome = line_.transact(request.data(), size, expected.payload + inspire::kOverhead,
                                         [&](const std::uint8_t* bytes, std::size_t count) {
                                           replies_.feed(bytes, count);
                                           return replies_.take(expected, reply_) ? Outcome::done : Outcome::nothing;
                                         });
  if (failed(outcome)) replies_.clear();
  return outcome;
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
  ++line_.counts().refused;
  return Outcome::refused;
}

// -- Modbus RTU and TCP

Outcome InspireModbusWire::read(std::uint16_t address, std::size_t size, std::uint8_t* out) {
  std::uint16_t words[kMostInspireBytes / 2];
  if (size > kMostInspireBytes || size % 2 != 0) return Outcome::not_representable;
  const Outcome outcome = line_->read(modbus::Function::read_holding, address, size / 2, words);
  for (std::size_t i = 0; outcome == Outcome::done && i < size / 2; ++i) {
    out[2 * i] = static_cast<std::uint8_t>(words[i] & 0xFF);
    out[2 * i + 1] = static_cast<std::uint8_t>(words[i] >> 8);
  }
  return outcome;
}

Outcome InspireModbusWire::read_bytes(std::uint16_t address, std::size_t size, std::uint8_t* out) {
  const Outcome outcome = read(address, size, out);
  for (std::size_t i = 0; outcome == Outcome::done && high_first_ && i + 1 < size; i += 2) std::swap(out[i], out[i + 1]);
  return outcome;
}

Outcome InspireModbusWire::write(std::uint16_t address, const std::uint8_t* data, std::size_t size) {
  std::uint16_t words[kMostInspireBytes / 2];
  if (size > kMostInspireBytes || size % 2 != 0) return Outcome::not_representable;
  for (std::size_t i = 0; i < size / 2; ++i) words[i] = static_cast<std::uint16_t>(data[2 * i] | data[2 * i + 1] << 8);
  return line_->write(address, size / 2, words);
}

// -- CAN

Outcome InspireCanWire::transact(const inspire_can::Frame& frame, bool write, std::size_t wanted, std::uint8_t* out) {
  CanFrame request;
  request.id = frame.id;
  request.extended = true;
  request.size = frame.size;
  std::copy(frame.data.begin(), frame.data.end(), request.data.begin());
  return line_.transact(request, [&](const CanFrame& reply) {
    if (!reply.extended || reply.remote || reply.id != request.id) {
      ++line_.counts().foreign;
      return Outcome::nothing;
    }
    // Acknowledgements carry one byte or none; manuals disagree.
    if (write ? reply.size > 1 : reply.size != wanted) {
      ++line_.counts().length;
      return Outcome::nothing;
    }
    if (!write) std::memcpy(out, reply.data.data(), wanted);
    return Outcome::done;
  });
}

Outcome InspireCanWire::read(std::uint16_t address, std::size_t size, std::uint8_t* out) {
  for (std::size_t at = 0; at < size; at += inspire_can::kMostData) {
    const std::size_t part = std::min(inspire_can::kMostData, size - at);
    inspire_can::Frame frame;
    if (!inspire_can::encode_read(false, id_, static_cast<std::uint16_t>(address + at), part, frame))
      return Outcome::not_representable;
    const Outcome outcome = transact(frame, false, part, out + at);
    if (outcome != Outcome::done) return outcome;
  }
  return Outcome::done;
}

Outcome InspireCanWire::write(std::uint16_t address, const std::uint8_t* data, std::size_t size) {
  for (std::size_t at = 0; at < size; at += inspire_can::kMostData) {
    const std::size_t part = std::min(inspire_can::kMostData, size - at);
    inspire_can::Frame frame;
    if (!inspire_can::encode_write(false, id_, static_cast<std::uint16_t>(address + at), data + at, part, frame))
      return Outcome::not_representable;
    const Outcome outcome = transact(frame, true, 0, nullptr);
    if (outcome != Outcome::done) return outcome;
  }
  return Outcome::done;
}

}  // namespace bridge
