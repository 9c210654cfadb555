// Python face of the rotation conversions: float32[N, ...] in, a new float32 array out.
#include "bind_check.hpp"
#include "kernels.hpp"

namespace py = pybind11;
using namespace beingh0;

namespace {

using Convert = void (*)(const float*, std::int64_t, float*) noexcept;
using Convert6d = void (*)(const float*, std::int64_t, bool, float*) noexcept;

const float* input(const char* name, const py::array& a, py::ssize_t width) {
    return width == 9 ? checked<float>(name, a, {kAny, 3, 3}) : checked<float>(name, a, {kAny, width});
}

py::array_t<float> output(py::ssize_t n, py::ssize_t width) {
    return width == 9 ? py::array_t<float>({n, py::ssize_t{3}, py::ssize_t{3}}) : py::array_t<float>({n, width});
}

void def(py::module_& m, const char* function, const char* name, Convert convert, int width_in, int width_out) {
    m.def(
        function,
        [=](const py::array& a) {
            const float* const in = input(name, a, width_in);
            const std::int64_t n = a.shape(0);
            py::array_t<float> out = output(n, width_out);
            float* const to = out.mutable_data();
            py::gil_scoped_release release;
            convert(in, n, to);
            return out;
        },
        py::arg(name));
}

void def_6d(py::module_& m, const char* function, const char* name, Convert6d convert, int width_in, int width_out) {
    m.def(
        function,
        [=](const py::array& a, bool interleaved) {
            const float* const in = input(name, a, width_in);
            const std::int64_t n = a.shape(0);
            py::array_t<float> out = output(n, width_out);
            float* const to = out.mutable_data();
            py::gil_scoped_release release;
            convert(in, n, interleaved, to);
            return out;
        },
        py::arg(name), py::arg("interleaved"));
}

}  // namespace

void bind_rotations(py::module_& m) {
    def(m, "axis_angle_to_matrix", "axis_angle", axis_angle_to_matrix, 3, 9);
    def(m, "axis_angle_to_quaternion", "axis_angle", axis_angle_to_quaternion, 3, 4);
    def(m, "matrix_to_axis_angle", "matrix", matrix_to_axis_angle, 9, 3);
    def(m, "matrix_to_quaternion", "matrix", matrix_to_quaternion, 9, 4);
    def(m, "quaternion_to_matrix", "quaternion", quaternion_to_matrix, 4, 9);
    def(m, "quaternion_to_axis_angle", "quaternion", quaternion_to_axis_angle, 4, 3);
    def_6d(m, "rot6d_to_matrix", "rot6d", rot6d_to_matrix, 6, 9);
    def_6d(m, "matrix_to_rot6d", "matrix", matrix_to_rot6d, 9, 6);
}
