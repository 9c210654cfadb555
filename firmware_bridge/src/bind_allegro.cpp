#include <nanobind/nanobind.h>
#include <nanobind/stl/array.h>

#include <algorithm>

#include "bindings.hpp"
#include "codecs/allegro.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace bridge {
namespace {

// (CAN id, data)
nb::tuple whole(const CanFrame& frame, bool fits) {
  if (!fits) throw std::invalid_argument("arguments do not fit a frame");
  return nb::make_tuple(frame.id, nb::bytes(reinterpret_cast<const char*>(frame.data.data()), frame.size));
}

}  // namespace

void bind_allegro(nb::module_& m) {
  m.def("allegro_plain",
        [](std::uint8_t device_id, std::uint8_t what) {
          CanFrame frame;
          return whole(frame, allegro::encode_plain(device_id, what, frame));
        },
        "device_id"_a, "message"_a);
  m.def("allegro_request",
        [](std::uint8_t device_id, std::uint8_t what) {
          CanFrame frame;
          return whole(frame, allegro::encode_request(device_id, what, frame));
        },
        "device_id"_a, "message"_a, "To be sent as a remote frame.");
  m.def("allegro_finger",
        [](std::uint8_t device_id, std::uint8_t what, int finger, const allegro::FingerValues& values) {
          CanFrame frame;
          return whole(frame, allegro::encode_finger(device_id, what, finger, values, frame));
        },
        "device_id"_a, "message"_a, "finger"_a, "values"_a);
  m.def("allegro_periods",
        [](std::uint8_t device_id, std::int16_t position_ms, std::int16_t imu_ms, std::int16_t temperature_ms) {
          CanFrame frame;
          return whole(frame, allegro::encode_periods(device_id, position_ms, imu_ms, temperature_ms, frame));
        },
        "device_id"_a, "position_ms"_a, "imu_ms"_a, "temperature_ms"_a);
  m.def("allegro_parse",
        [](int version, std::uint32_t can_id, const nb::bytes& payload) {
          CanFrame frame;
          frame.id = can_id;
          if (payload.size() > kMostCanData) throw std::invalid_argument("a CAN frame has at most 8 bytes");
          frame.size = static_cast<std::uint8_t>(payload.size());
          std::copy_n(reinterpret_cast<const std::uint8_t*>(payload.c_str()), payload.size(), frame.data.begin());
          allegro::Reply reply;
          std::string problem;
          if (!allegro::parse(version == 4 ? allegro::Version::v4 : allegro::Version::v5, frame, reply, problem))
            throw std::invalid_argument(problem);
          nb::list values;
          for (std::size_t i = 0; i < reply.count; ++i) values.append(reply.values[i]);
          return nb::make_tuple(reply.device, reply.what, reply.finger, nb::tuple(values));
        },
        "version"_a, "can_id"_a, "data"_a, "(device, message, finger or -1, values); ValueError on damage.");
}

}  // namespace bridge
