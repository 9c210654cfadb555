#include "drivers/modbus_line.hpp"

#include <cstring>

#include "codecs/brainco_can.hpp"

namespace bridge {

modbus::Request ModbusLine::request(modbus::Function function, std::uint16_t address, std::size_t count) const {
  modbus::Request asked;
  asked.device_id = id_;
  asked.function = function;
  asked.address = address;
  asked.count = static_cast<std::uint16_t>(count);
  return asked;
}

Outcome ModbusLine::read(modbus::Function function, std::uint16_t address, std::size_t count, std::uint16_t* words) {
  const Outcome outcome = transact(request(function, address, count), nullptr);
  for (std::size_t i = 0; outcome == Outcome::done && i < count; ++i) words[i] = reply_.word(i);
  return outcome;
}

Outcome ModbusLine::write(std::uint16_t address, std::size_t count, const std::uint16_t* words) {
  std::uint8_t data[2 * modbus::kMostWrite];
  if (count > modbus::kMostWrite) return Outcome::not_representable;
  for (std::size_t i = 0; i < count; ++i) {
    data[2 * i] = static_cast<std::uint8_t>(words[i] >> 8);
    data[2 * i + 1] = static_cast<std::uint8_t>(words[i] & 0xFF);
  }
  return transact(request(modbus::Function::write_many, address, count), data);
}

Outcome ModbusLine::write_one(std::uint16_t address, std::uint16_t word) {
  modbus::Request asked = request(modbus::Function::write_one, address, 1);
  asked.value = word;
  return transact(asked, nullptr);
}

Outcome ModbusStreamLine::transact(const modbus::Request& request, const std::uint8_t* data) {
  modbus::Request numbered = request;
  numbered.transaction = ++transaction_;
  modbus::Frame frame;
  const std::size_t size = modbus::encode(wire_, numbered, data, frame);
  if (size == 0 || !replies_.expect(frame.data(), size)) return Outcome::not_representable;
  reply_.exception = 0;
  const Outcome outcome =
      line_.transact(frame.data(), size, 2u * request.count + 5, [this](const std::uint8_t* bytes, std::size_t count) {
        replies_.feed(bytes, count);
        if (!replies_.take(reply_)) return Outcome::nothing;
        return reply_.exception == 0 ? Outcome::done : Outcome::refused;
      });
  if (outcome == Outcome::timeout || outcome == Outcome::hung_up) replies_.clear();
  return outcome;
}

Outcome ModbusCanFdLine::transact(const modbus::Request& request, const std::uint8_t* data) {
  modbus::Frame frame;
  const std::size_t size = modbus::encode(modbus::Wire::rtu, request, data, frame);
  brainco::FdFrame wrapped;
  if (size == 0 || !brainco::wrap_fd(master_, frame.data(), size, wrapped)) return Outcome::not_representable;
  CanFrame out;
  out.id = wrapped.id;
  out.extended = out.fd = true;
  out.size = static_cast<std::uint8_t>(wrapped.size);
  out.data = wrapped.data;
  reply_.exception = 0;
  return line_.transact(out, [&](const CanFrame& in) {
    // Which of the two ids a reply's CAN id starts with is not documented; its low byte is the length of the RTU frame.
    const std::size_t length = in.id & 0xFF;
    const bool ours = in.extended && (((in.id >> 16) & 0xFF) == id() || ((in.id >> 8) & 0xFF) == id());
    if (!ours || length > in.size) {
      ++line_.counts().foreign;
      return Outcome::nothing;
    }
    modbus::Problem problem;
    if (!modbus::parse_reply(modbus::Wire::rtu, in.data.data(), length, reply_, problem)) {
      ++line_.counts().checksum;
      return Outcome::nothing;
    }
    if (!modbus::answers(modbus::Wire::rtu, reply_, request, problem)) {
      ++line_.counts().foreign;
      return Outcome::nothing;
    }
    return reply_.exception == 0 ? Outcome::done : Outcome::refused;
  });
}

}  // namespace bridge
