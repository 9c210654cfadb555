// Python face of the retargeting solver: checks there, none in the solver.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

void bind_retarget(pybind11::module_&) {}
