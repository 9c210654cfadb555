#include <nanobind/nanobind.h>
#include <nanobind/stl/array.h>

#include "bindings.hpp"
#include "codecs/brainco_can.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace bridge {
namespace {

nb::tuple as_tuple(const brainco::Frame& frame) {
  return nb::make_tuple(frame.id, as_bytes(frame.data.data(), frame.size));
}
brainco::Command command_of(std::uint8_t command) { return static_cast<brainco::Command>(command); }

}  // namespace

void bind_brainco(nb::module_& m) {
  using namespace brainco;
  m.def("brainco_can_message",
        [](std::uint8_t slave, std::uint8_t command, std::uint8_t finger, const nb::bytes& payload) {
          if (slave > kMostSlave || command > 15 || finger > 7 || payload.size() > 8)
            throw std::invalid_argument("expected slave and command up to 15, finger up to 7 and at most 8 bytes");
          return as_tuple(message(slave, command_of(command), finger, data(payload), payload.size()));
        },
        "slave"_a, "command"_a, "finger"_a, "payload"_a);
  m.def("brainco_can_all",
        [](std::uint8_t slave, std::uint8_t command, const Percents& percents) {
          return as_tuple(all_fingers(slave, command_of(command), percents));
        },
        "slave"_a, "command"_a, "percents"_a);
  m.def("brainco_can_one",
        [](std::uint8_t slave, std::uint8_t command, std::uint8_t finger, std::int8_t percent) {
          return as_tuple(one_finger(slave, command_of(command), finger, percent));
        },
        "slave"_a, "command"_a, "finger"_a, "percent"_a);
  m.def("brainco_can_timed",
        [](std::uint8_t slave, const Percents& percents, const Percents& durations_10ms) {
          const std::array<Frame, 2> frames = positions_with_durations(slave, percents, durations_10ms);
          return nb::make_tuple(as_tuple(frames[0]), as_tuple(frames[1]));
        },
        "slave"_a, "percents"_a, "durations_10ms"_a);
  m.def("brainco_can_one_timed",
        [](std::uint8_t slave, std::uint8_t finger, std::int8_t percent, std::int8_t duration_10ms) {
          return as_tuple(position_with_duration(slave, finger, percent, duration_10ms));
        },
        "slave"_a, "finger"_a, "percent"_a, "duration_10ms"_a);
  m.def("brainco_canfd_wrap",
        [](std::uint8_t master, const nb::bytes& rtu) {
          FdFrame frame;
          if (!wrap_fd(master, data(rtu), rtu.size(), frame))
            throw std::invalid_argument("expected an RTU frame of 1 to 64 bytes, got " + std::to_string(rtu.size()));
          return nb::make_tuple(frame.id, as_bytes(frame.data.data(), frame.size));
        },
        "master"_a, "rtu"_a);
  m.def("brainco_canfd_unwrap",
        [](std::uint32_t can_id, const nb::bytes& payload) {
          std::string problem;
          const std::size_t size = unwrap_fd(can_id, data(payload), payload.size(), problem);
          if (size == 0) throw std::invalid_argument(problem);
          return as_bytes(data(payload), size);
        },
        "can_id"_a, "data"_a, "The RTU frame; ValueError on damage.");
}

}  // namespace bridge
