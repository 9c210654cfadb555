// One bind function per subject; bindings.cpp calls them.
#pragma once

#include <nanobind/nanobind.h>

#include "codecs/parser_counts.hpp"

namespace bridge {

inline nanobind::dict as_dict(const ParserCounts& counts) {
  nanobind::dict out;
  out["replies"] = counts.replies;
  out["garbage"] = counts.garbage;
  out["checksum"] = counts.checksum;
  out["length"] = counts.length;
  out["echo"] = counts.echo;
  out["foreign"] = counts.foreign;
  out["truncated"] = counts.truncated;
  return out;
}

inline const std::uint8_t* data(const nanobind::bytes& bytes) {
  return reinterpret_cast<const std::uint8_t*>(bytes.c_str());
}

inline nanobind::bytes as_bytes(const std::uint8_t* bytes, std::size_t count) {
  return nanobind::bytes(reinterpret_cast<const char*>(bytes), count);
}

// What a parser of a line has whatever it takes off it.
template <class Stream>
nanobind::class_<Stream> reply_stream(nanobind::module_& m, const char* name) {
  return nanobind::class_<Stream>(m, name)
      .def("feed", [](Stream& self, const nanobind::bytes& bytes) { self.feed(data(bytes), bytes.size()); },
           nanobind::arg("data"))
      .def("clear", &Stream::clear)
      .def_prop_ro("counts", [](const Stream& self) { return as_dict(self.counts()); });
}

void bind_core(nanobind::module_& m);
void bind_controller(nanobind::module_& m);
void bind_loop(nanobind::module_& m);
void bind_drivers(nanobind::module_& m);
void bind_inspire(nanobind::module_& m);
void bind_brainco(nanobind::module_& m);
void bind_inspire_can(nanobind::module_& m);
void bind_modbus(nanobind::module_& m);
void bind_rohand(nanobind::module_& m);
void bind_slcan(nanobind::module_& m);
void bind_dynamixel(nanobind::module_& m);
void bind_ability(nanobind::module_& m);
void bind_linkerhand(nanobind::module_& m);
void bind_allegro(nanobind::module_& m);

}  // namespace bridge
