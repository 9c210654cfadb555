#include <nanobind/nanobind.h>

#include <algorithm>

#include "bindings.hpp"
#include "codecs/linkerhand.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace bridge {
namespace {

namespace lh = linkerhand;

lh::Model model_of(int number) {
  if (number < 0 || number > static_cast<int>(lh::Model::l20)) throw std::invalid_argument("unknown model");
  return static_cast<lh::Model>(number);
}

lh::Quantity quantity_of(int number) {
  if (number < 0 || number > static_cast<int>(lh::Quantity::tactile_little))
    throw std::invalid_argument("unknown quantity");
  return static_cast<lh::Quantity>(number);
}

nb::tuple as_tuple(const CanFrame& frame) {
  return nb::make_tuple(frame.id, nb::bytes(reinterpret_cast<const char*>(frame.data.data()), frame.size));
}

nb::list as_list(const CanFrame* frames, std::size_t count) {
  nb::list out;
  for (std::size_t i = 0; i < count; ++i) out.append(as_tuple(frames[i]));
  return out;
}

}  // namespace

void bind_linkerhand(nb::module_& m) {
  m.def("linkerhand_values",
        [](int model, int quantity) { return lh::values_of(model_of(model), quantity_of(quantity)); }, "model"_a,
        "quantity"_a, "How many per-joint values the quantity has on this model; 0 if the model does not know it.");
  m.def("linkerhand_message",
        [](std::uint32_t device_id, std::uint8_t tag, const nb::bytes& values) {
          CanFrame frame;
          if (!lh::encode(device_id, tag, data(values), values.size(), frame))
            throw std::invalid_argument("expected an id up to 7FF and at most 7 values");
          return as_tuple(frame);
        },
        "device_id"_a, "tag"_a, "values"_a);
  m.def("linkerhand_set",
        [](int model, int quantity, std::uint32_t device_id, const nb::bytes& values, bool reply) {
          if (values.size() != lh::values_of(model_of(model), quantity_of(quantity)))
            throw std::invalid_argument("values: expected one for each joint");
          CanFrame frames[lh::kMostFrames];
          return as_list(frames, lh::encode_set(model_of(model), quantity_of(quantity), device_id, data(values),
                                                reply, frames));
        },
        "model"_a, "quantity"_a, "device_id"_a, "values"_a, "reply"_a, "No frames if the model cannot.");
  m.def("linkerhand_query",
        [](int model, int quantity, std::uint32_t device_id) {
          CanFrame frames[lh::kMostFrames];
          return as_list(frames, lh::encode_query(model_of(model), quantity_of(quantity), device_id, frames));
        },
        "model"_a, "quantity"_a, "device_id"_a, "No frames if the model cannot.");
  m.def("linkerhand_parse",
        [](int model, std::uint32_t can_id, const nb::bytes& payload) {
          CanFrame frame;
          frame.id = can_id;
          if (payload.size() > kMostCanData) throw std::invalid_argument("a CAN frame has at most 8 bytes");
          frame.size = static_cast<std::uint8_t>(payload.size());
          std::copy_n(data(payload), payload.size(), frame.data.begin());
          lh::Reply reply;
          std::string problem;
          if (!lh::parse(model_of(model), frame, reply, problem)) throw std::invalid_argument(problem);
          return nb::make_tuple(static_cast<int>(reply.quantity), reply.tag, reply.first,
                                nb::bytes(reinterpret_cast<const char*>(reply.values), reply.count));
        },
        "model"_a, "can_id"_a, "data"_a, "(quantity, tag, first joint, values); ValueError on damage.");
}

}  // namespace bridge
