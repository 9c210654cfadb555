#include <nanobind/nanobind.h>

#include "bindings.hpp"
#include "codecs/inspire_rs485.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace bridge {

void bind_inspire(nb::module_& m) {
  m.def("inspire_rs485_read",
        [](std::uint8_t device_id, std::uint16_t address, std::size_t byte_count) {
          inspire::Frame frame;
          const std::size_t size = inspire::encode_read(device_id, address, byte_count, frame);
          if (size == 0) throw std::invalid_argument("count: expected 1 to 252 bytes");
          return as_bytes(frame.data(), size);
        },
        "device_id"_a, "address"_a, "byte_count"_a);
  m.def("inspire_rs485_write",
        [](std::uint8_t device_id, std::uint16_t address, const nb::bytes& payload) {
          inspire::Frame frame;
          const std::size_t size = inspire::encode_write(device_id, address, data(payload), payload.size(), frame);
          if (size == 0) throw std::invalid_argument("payload: expected 1 to 252 bytes");
          return as_bytes(frame.data(), size);
        },
        "device_id"_a, "address"_a, "payload"_a);
  m.def("inspire_rs485_parse",
        [](const nb::bytes& frame) {
          inspire::Reply reply;
          std::string problem;
          if (!inspire::parse_reply(data(frame), frame.size(), reply, problem)) throw std::invalid_argument(problem);
          return nb::make_tuple(reply.id, static_cast<std::uint8_t>(reply.command), reply.address,
                                as_bytes(reply.data.data(), reply.size));
        },
        "frame"_a, "(device id, command, address, data); ValueError on damage.");

  reply_stream<inspire::ReplyStream>(m, "InspireReplyStream")
      .def(nb::init<>())
      .def("take",
           [](inspire::ReplyStream& self, std::uint8_t device_id, std::uint8_t command, std::uint16_t address,
              std::size_t payload) -> nb::object {
             inspire::Reply reply;
             if (!self.take({device_id, static_cast<inspire::Command>(command), address, payload}, reply))
               return nb::none();
             return as_bytes(reply.data.data(), reply.size);
           },
           "device_id"_a, "command"_a, "address"_a, "payload"_a);
}

}  // namespace bridge
