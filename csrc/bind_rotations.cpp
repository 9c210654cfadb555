#include <pybind11/pybind11.h>

void bind_rotations(pybind11::module_&) {}
