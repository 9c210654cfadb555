#include <pybind11/pybind11.h>

void bind_grq(pybind11::module_&) {}
