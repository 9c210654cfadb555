#include <nanobind/nanobind.h>
#include <nanobind/stl/array.h>

#include <vector>

#include "bindings.hpp"
#include "codecs/ability.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace bridge {
namespace {

nb::bytes whole(const ability::Frame& frame, std::size_t size) {
  if (size == 0) throw std::invalid_argument("payload: expected at most 12 bytes");
  return nb::bytes(reinterpret_cast<const char*>(frame.data()), size);
}

template <typename Values>
nb::tuple as_tuple(const Values& values) {
  nb::list out;
  for (auto value : values) out.append(value);
  return nb::tuple(out);
}

// (header, variant, position, current or None, velocity or None, touch or None, status)
nb::tuple as_tuple(const ability::Reply& reply) {
  const bool has_current = reply.variant != 2, has_velocity = reply.variant != 1, has_touch = reply.variant != 3;
  return nb::make_tuple(reply.header, reply.variant, as_tuple(reply.position),
                        has_current ? nb::object(as_tuple(reply.current)) : nb::none(),
                        has_velocity ? nb::object(as_tuple(reply.velocity)) : nb::none(),
                        has_touch ? nb::object(as_tuple(reply.touch)) : nb::none(), reply.status);
}

ability::TouchOrder order(bool high_nibble_first) {
  return high_nibble_first ? ability::TouchOrder::high_nibble_first : ability::TouchOrder::low_nibble_first;
}

}  // namespace

void bind_ability(nb::module_& m) {
  m.def("ability_encode",
        [](std::uint8_t device_id, std::uint8_t header, const nb::bytes& payload, bool stuffing) {
          ability::Frame frame;
          return whole(frame,
                       ability::encode(device_id, header, data(payload), payload.size(), stuffing, frame));
        },
        "device_id"_a, "header"_a, "payload"_a, "stuffing"_a);
  m.def("ability_encode_joints",
        [](std::uint8_t device_id, std::uint8_t header, const ability::Counts& counts, bool stuffing) {
          ability::Frame frame;
          return whole(frame, ability::encode_joints(device_id, header, counts, stuffing, frame));
        },
        "device_id"_a, "header"_a, "counts"_a, "stuffing"_a);
  m.def("ability_parse",
        [](const nb::bytes& frame, bool stuffing, bool high_nibble_first) {
          std::vector<std::uint8_t> raw(frame.size());
          std::size_t size = frame.size();
          ability::Reply reply;
          std::string problem;
          const std::uint8_t* from = data(frame);
          if (stuffing) {
            if (!ability::unstuff(from, size, raw.data(), problem)) throw std::invalid_argument(problem);
            from = raw.data();
          }
          if (!ability::parse_reply(from, size, order(high_nibble_first), reply, problem))
            throw std::invalid_argument(problem);
          return as_tuple(reply);
        },
        "frame"_a, "stuffing"_a, "high_nibble_first"_a,
        "(header, variant, position, current, velocity, touch, status); ValueError on damage.");

  nb::class_<ability::ReplyStream>(m, "AbilityReplyStream")
      .def("__init__",
           [](ability::ReplyStream* self, bool high_nibble_first) {
             new (self) ability::ReplyStream(order(high_nibble_first));
           },
           "high_nibble_first"_a = false)
      .def("feed",
           [](ability::ReplyStream& self, const nb::bytes& bytes) {
             nb::list out;
             ability::Reply reply;
             for (std::size_t i = 0; i < bytes.size(); ++i)
               if (self.push(data(bytes)[i], reply)) out.append(as_tuple(reply));
             return out;
           },
           "data"_a)
      .def("clear", &ability::ReplyStream::clear)
      .def_prop_ro("counts", [](const ability::ReplyStream& self) { return as_dict(self.counts()); });
}

}  // namespace bridge
