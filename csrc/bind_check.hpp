// Checks shared by the bindings. An array must be exactly what the kernel reads: no silent cast, no silent copy.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <initializer_list>
#include <stdexcept>
#include <string>

namespace beingh0 {

namespace py = pybind11;

constexpr py::ssize_t kAny = -1;  // an axis of any length

template <typename T>
std::string dtype_name() {
    return py::str(py::object(py::dtype::of<T>()));
}

inline std::string shape_text(std::initializer_list<py::ssize_t> shape) {
    std::string text = "[";
    for (const py::ssize_t n : shape)
        text += (text.size() > 1 ? ", " : "") + (n == kAny ? std::string("N") : std::to_string(n));
    return text + "]";
}

inline std::string describe(const py::array& a) {
    std::string text = std::string(py::str(py::object(a.dtype()))) + "[";
    for (py::ssize_t i = 0; i < a.ndim(); ++i) text += (i ? ", " : "") + std::to_string(a.shape(i));
    text += "]";
    if (!(a.flags() & py::array::c_style)) text += " not C-contiguous";
    return text;
}

// The array's data if dtype, shape and contiguity fit; raises ValueError saying expected and got.
template <typename T>
const T* checked(const char* name, const py::array& a, std::initializer_list<py::ssize_t> shape) {
    bool fits = a.dtype().is(py::dtype::of<T>()) || py::dtype::of<T>().equal(a.dtype());
    fits = fits && a.ndim() == static_cast<py::ssize_t>(shape.size()) && (a.flags() & py::array::c_style);
    py::ssize_t axis = 0;
    if (fits)
        for (const py::ssize_t n : shape) {
            fits = fits && (n == kAny || a.shape(axis) == n);
            ++axis;
        }
    if (!fits)
        throw std::invalid_argument(std::string(name) + ": expected " + dtype_name<T>() + shape_text(shape) +
                                    ", got " + describe(a));
    return static_cast<const T*>(a.data());
}

}  // namespace beingh0
