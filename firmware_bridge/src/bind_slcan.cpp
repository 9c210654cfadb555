#include <nanobind/nanobind.h>

#include "bindings.hpp"
#include "codecs/slcan.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace bridge {

void bind_slcan(nb::module_& m) {
  m.def("slcan_encode",
        [](std::uint32_t can_id, bool extended, bool remote, bool fd, std::uint8_t size, const nb::bytes& payload) {
          if (size > 64 || payload.size() != (remote ? 0u : size))
            throw std::invalid_argument("expected `size` bytes, at most 64, and none in a remote frame");
          CanFrame frame;
          frame.id = can_id;
          frame.extended = extended;
          frame.remote = remote;
          frame.fd = fd;
          frame.size = size;
          for (std::size_t i = 0; i < payload.size(); ++i) frame.data[i] = static_cast<std::uint8_t>(payload.c_str()[i]);
          slcan::Text text;
          const std::size_t length = slcan::encode(frame, text);
          if (length == 0) throw std::invalid_argument("the id or the size does not fit a frame");
          return nb::bytes(text.data(), length);
        },
        "can_id"_a, "extended"_a, "remote"_a, "fd"_a, "size"_a, "payload"_a);
  m.def("slcan_decode",
        [](const nb::bytes& line) -> nb::object {
          CanFrame frame;
          if (!slcan::decode(line.c_str(), line.size(), frame)) return nb::none();
          const nb::bytes data(reinterpret_cast<const char*>(frame.data.data()), frame.remote ? 0 : frame.size);
          return nb::make_tuple(frame.id, frame.extended, frame.remote, frame.fd, frame.size, data);
        },
        "line"_a, "(CAN id, extended, remote, fd, size, data) of a line without its CR; None if it is no frame.");
}

}  // namespace bridge
