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
