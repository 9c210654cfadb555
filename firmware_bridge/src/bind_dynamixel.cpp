#include <nanobind/nanobind.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <tuple>
#include <vector>

#include "bindings.hpp"
#include "codecs/dynamixel.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace bridge {
namespace {

namespace dxl = dynamixel;

nb::bytes whole(const dxl::Frame& frame, std::size_t size) {
  if (size == 0) throw std::invalid_argument("arguments do not fit a frame of at most 1024 bytes");
  return as_bytes(frame.data(), size);
}

std::vector<dxl::BulkItem> bulk_items(const std::vector<std::tuple<std::uint8_t, std::uint16_t, std::uint16_t>>& reads) {
  std::vector<dxl::BulkItem> items;
  for (const auto& [id, address, count] : reads) items.push_back({id, address, count, nullptr});
  return items;
}

}  // namespace

void bind_dynamixel(nb::module_& m) {
  m.def("dynamixel_plain",
        [](std::uint8_t device_id, std::uint8_t instruction) {
          dxl::Frame frame;
          return whole(frame, dxl::encode_plain(device_id, static_cast<dxl::Instruction>(instruction), frame));
        },
        "device_id"_a, "instruction"_a, "Ping (1), action (5) or reboot (8).");
  m.def("dynamixel_read",
        [](std::uint8_t device_id, std::uint16_t address, std::uint16_t count) {
          dxl::Frame frame;
          return whole(frame, dxl::encode_read(device_id, address, count, frame));
        },
        "device_id"_a, "address"_a, "count"_a);
  m.def("dynamixel_write",
        [](std::uint8_t device_id, std::uint16_t address, const nb::bytes& payload, bool registered) {
          dxl::Frame frame;
          return whole(frame, dxl::encode_write(device_id, address, data(payload), payload.size(), registered, frame));
        },
        "device_id"_a, "address"_a, "payload"_a, "registered"_a);
  m.def("dynamixel_sync_read",
        [](std::uint16_t address, std::uint16_t count, const nb::bytes& device_ids, bool fast) {
          dxl::Frame frame;
          return whole(frame,
                       dxl::encode_sync_read(address, count, data(device_ids), device_ids.size(), fast, frame));
        },
        "address"_a, "count"_a, "device_ids"_a, "fast"_a);
  m.def("dynamixel_sync_write",
        [](std::uint16_t address, const nb::bytes& device_ids, const nb::bytes& payload) {
          if (device_ids.size() == 0 || payload.size() % device_ids.size() != 0)
            throw std::invalid_argument("payload: expected the same number of bytes for each id");
          const auto count = payload.size() / device_ids.size();
          dxl::Frame frame;
          if (count > frame.size()) return whole(frame, 0);
          return whole(frame, dxl::encode_sync_write(address, static_cast<std::uint16_t>(count), data(device_ids),
                                                     data(payload), device_ids.size(), frame));
        },
        "address"_a, "device_ids"_a, "payload"_a);
  m.def("dynamixel_bulk_read",
        [](const std::vector<std::tuple<std::uint8_t, std::uint16_t, std::uint16_t>>& reads, bool fast) {
          const auto items = bulk_items(reads);
          dxl::Frame frame;
          return whole(frame, dxl::encode_bulk_read(items.data(), items.size(), fast, frame));
        },
        "reads"_a, "fast"_a);
  m.def("dynamixel_bulk_write",
        [](const std::vector<std::tuple<std::uint8_t, std::uint16_t, nb::bytes>>& writes) {
          std::vector<dxl::BulkItem> items;
          for (const auto& [id, address, payload] : writes) {
            if (payload.size() > dxl::kMostFrame) throw std::invalid_argument("payload: expected at most 1024 bytes");
            items.push_back({id, address, static_cast<std::uint16_t>(payload.size()), data(payload)});
          }
          dxl::Frame frame;
          return whole(frame, dxl::encode_bulk_write(items.data(), items.size(), frame));
        },
        "writes"_a);
  m.def("dynamixel_parse",
        [](const nb::bytes& frame) {
          dxl::Status status;
          std::string problem;
          if (!dxl::parse_status(data(frame), frame.size(), status, problem)) throw std::invalid_argument(problem);
          return nb::make_tuple(status.id, status.error, as_bytes(status.data.data(), status.size));
        },
        "frame"_a, "(device id, error byte, parameters); ValueError on damage.");
  m.def("dynamixel_inner_crcs_hold",
        [](const nb::bytes& frame, std::size_t servos) {
          dxl::Status status;
          std::string problem;
          if (!dxl::parse_status(data(frame), frame.size(), status, problem)) throw std::invalid_argument(problem);
          return status.joint() && dxl::inner_crcs_hold(data(frame), frame.size(), servos);
        },
        "frame"_a, "servos"_a);

  reply_stream<dxl::StatusStream>(m, "DynamixelStatusStream")
      .def(nb::init<>())
      .def("take",
           [](dxl::StatusStream& self) -> nb::object {
             dxl::Status status;
             if (!self.take(status)) return nb::none();
             return nb::make_tuple(status.id, status.error, as_bytes(status.data.data(), status.size));
           });
}

}  // namespace bridge
