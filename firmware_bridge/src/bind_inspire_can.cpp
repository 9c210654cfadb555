#include <nanobind/nanobind.h>

#include "bindings.hpp"
#include "codecs/inspire_can.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace bridge {
namespace {

nb::tuple as_tuple(const inspire_can::Frame& frame) {
  return nb::make_tuple(frame.id, as_bytes(frame.data.data(), frame.size));
}

}  // namespace

void bind_inspire_can(nb::module_& m) {
  using namespace inspire_can;
  m.def("inspire_can_read",
        [](bool wrist, std::uint8_t device_id, std::uint16_t address, std::size_t byte_count) {
          Frame frame;
          if (!encode_read(wrist, device_id, address, byte_count, frame))
            throw std::invalid_argument("expected 1 to 8 bytes below address 4096");
          return as_tuple(frame);
        },
        "wrist"_a, "device_id"_a, "address"_a, "byte_count"_a);
  m.def("inspire_can_write",
        [](bool wrist, std::uint8_t device_id, std::uint16_t address, const nb::bytes& payload) {
          Frame frame;
          if (!encode_write(wrist, device_id, address, data(payload), payload.size(), frame))
            throw std::invalid_argument("expected 1 to 8 bytes below address 4096");
          return as_tuple(frame);
        },
        "wrist"_a, "device_id"_a, "address"_a, "payload"_a);
  m.def("inspire_can_parse",
        [](std::uint32_t can_id, const nb::bytes& payload) {
          Reply reply;
          Problem problem;
          if (!parse_reply(can_id, data(payload), payload.size(), reply, problem))
            throw std::invalid_argument(problem.text());
          return nb::make_tuple(reply.write, reply.wrist, reply.hand_id, reply.address,
                                as_bytes(reply.data.data(), reply.size));
        },
        "can_id"_a, "data"_a, "(write, wrist, device id, address, data); ValueError on damage.");
  m.def("inspire_stick_wrap",
        [](std::uint32_t can_id, const nb::bytes& payload, std::uint8_t fill) {
          if (payload.size() > kMostData) throw std::invalid_argument("data: expected at most 8 bytes");
          Frame frame;
          frame.id = can_id;
          frame.size = static_cast<std::uint8_t>(payload.size());
          for (std::size_t i = 0; i < payload.size(); ++i) frame.data[i] = data(payload)[i];
          StickFrame out;
          const std::size_t size = wrap(frame, fill, out);
          return as_bytes(out.data(), size);
        },
        "can_id"_a, "data"_a, "fill"_a);
  m.def("inspire_stick_unwrap",
        [](const nb::bytes& bytes) {
          Frame frame;
          Problem problem;
          if (!unwrap(data(bytes), bytes.size(), frame, problem)) throw std::invalid_argument(problem.text());
          return as_tuple(frame);
        },
        "frame"_a, "(CAN id, data); ValueError on damage.");
}

}  // namespace bridge
