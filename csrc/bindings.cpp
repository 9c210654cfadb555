// The module: one bind_*.cpp per subject declares its functions and checks what comes in.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "simd.hpp"

namespace py = pybind11;

void bind_grq(py::module_& m);
void bind_mano(py::module_& m);
void bind_rotations(py::module_& m);
void bind_raster(py::module_& m);
void bind_retarget(py::module_& m);

PYBIND11_MODULE(_kernels, m) {
    m.doc() = "C++ kernels of beingh0_edge: motion tokenizer, hand kinematics, rotations, rasteriser, retargeting.";
    beingh0::simd();  // a BEINGH0_ISA this machine cannot run fails here, at import
    m.def("isa", [] { return std::string(beingh0::simd().name); });
    m.def("available_isas", [] {
        int count = 0;
        const char* const* names = beingh0::available_isas(count);
        return std::vector<std::string>(names, names + count);
    });
    m.def("use_isa", [](const std::string& name) { beingh0::use_isa(name.c_str()); }, py::arg("name"));
    bind_grq(m);
    bind_mano(m);
    bind_rotations(m);
    bind_raster(m);
    bind_retarget(m);
}
