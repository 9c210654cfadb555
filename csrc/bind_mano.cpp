#include <pybind11/pybind11.h>

void bind_mano(pybind11::module_&) {}
