#include <nanobind/nanobind.h>

#include "bindings.hpp"
#include "codecs/modbus.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace bridge {
namespace {

using modbus::Wire;

Wire wire(bool tcp) { return tcp ? Wire::tcp : Wire::rtu; }

nb::tuple as_tuple(const modbus::Reply& reply) {
  return nb::make_tuple(reply.transaction, reply.device_id, static_cast<std::uint8_t>(reply.function),
                        reply.exception, reply.address, reply.count, as_bytes(reply.data.data(), reply.size));
}

nb::bytes request(bool tcp, std::uint16_t transaction, std::uint8_t device_id, std::uint8_t function,
                  std::uint16_t address, std::uint16_t count, const nb::bytes& payload) {
  modbus::Request asked;
  asked.transaction = transaction;
  asked.device_id = device_id;
  asked.function = static_cast<modbus::Function>(function);
  asked.address = address;
  asked.count = count;
  const bool writes = asked.function == modbus::Function::write_one || asked.function == modbus::Function::write_many;
  if (payload.size() != (writes ? 2u * count : 0u))
    throw std::invalid_argument("payload: expected two bytes for every register written");
  if (asked.function == modbus::Function::write_one && count == 1)
    asked.value = static_cast<std::uint16_t>(data(payload)[0] << 8 | data(payload)[1]);
  modbus::Frame frame;
  const std::size_t size = modbus::encode(wire(tcp), asked, data(payload), frame);
  if (size == 0) throw std::invalid_argument("the request does not fit a frame");
  return as_bytes(frame.data(), size);
}

nb::tuple parse(bool tcp, const nb::bytes& frame, const nb::object& request) {
  modbus::Reply reply;
  modbus::Problem problem;
  bool sound = modbus::parse_reply(wire(tcp), data(frame), frame.size(), reply, problem);
  if (sound && !request.is_none()) {
    const nb::bytes bytes = nb::cast<nb::bytes>(request);
    modbus::Request asked;
    if (!modbus::parse_request(wire(tcp), data(bytes), bytes.size(), asked, problem))
      throw nb::type_error(("request: " + problem.text()).c_str());
    sound = modbus::answers(wire(tcp), reply, asked, problem);
    reply.address = asked.address;
  }
  if (!sound) throw std::invalid_argument(problem.text());
  return as_tuple(reply);
}

}  // namespace

void bind_modbus(nb::module_& m) {
  m.def("modbus_crc16", [](const nb::bytes& bytes) { return modbus::crc16(data(bytes), bytes.size()); }, "data"_a);
  m.def("modbus_request", &request, "tcp"_a, "transaction"_a, "device_id"_a, "function"_a, "address"_a, "count"_a,
        "payload"_a);
  m.def("modbus_parse", &parse, "tcp"_a, "frame"_a, "request"_a.none(),
        "(transaction, device id, function, exception, address, count, data); ValueError on damage, TypeError if "
        "`request` is none.");

  reply_stream<modbus::ReplyStream>(m, "ModbusReplyStream")
      .def("__init__", [](modbus::ReplyStream* self, bool tcp, bool echoes) {
        new (self) modbus::ReplyStream(wire(tcp), echoes);
      }, "tcp"_a, "echoes"_a = false)
      .def("expect", [](modbus::ReplyStream& self, const nb::bytes& asked) {
        if (!self.expect(data(asked), asked.size())) throw std::invalid_argument("this is no request");
      }, "request"_a)
      .def("take", [](modbus::ReplyStream& self) -> nb::object {
        modbus::Reply reply;
        if (!self.take(reply)) return nb::none();
        return as_tuple(reply);
      });
}

}  // namespace bridge
