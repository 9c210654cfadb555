#include <nanobind/nanobind.h>

#include "bindings.hpp"
#include "codecs/rohand_serial.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace bridge {

void bind_rohand(nb::module_& m) {
  m.def("rohand_serial_message",
        [](std::uint8_t to, std::uint8_t from, std::uint8_t command, const nb::bytes& payload) {
          rohand::Frame frame;
          const std::size_t size = rohand::encode(to, from, command, data(payload), payload.size(), frame);
          if (size == 0) throw std::invalid_argument("expected a command below 128 and at most 255 bytes");
          return as_bytes(frame.data(), size);
        },
        "to"_a, "sender"_a, "command"_a, "payload"_a);
  m.def("rohand_serial_parse",
        [](const nb::bytes& frame) {
          rohand::Reply reply;
          std::string problem;
          if (!rohand::parse_reply(data(frame), frame.size(), reply, problem)) throw std::invalid_argument(problem);
          return nb::make_tuple(reply.to, reply.from, reply.command, reply.error,
                                as_bytes(reply.data.data(), reply.size));
        },
        "frame"_a, "(to, sender, command, error, data); ValueError on damage.");
}

}  // namespace bridge
