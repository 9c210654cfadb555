// Checks shared by the bindings. An array must be exactly what the kernel reads: no silent cast, no silent copy.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cmath>
#include <initializer_list>
#include <limits>
#include <stdexcept>
#include <string>

#include "pool.hpp"
#include "simd.hpp"

// An argument is a numpy array, or anything in CPU memory that speaks DLPack (a torch tensor), seen without a copy.
template <>
struct pybind11::detail::type_caster<pybind11::array> {
    static constexpr auto name = const_name("numpy.ndarray");
    template <typename T>
    using cast_op_type = movable_cast_op_type<T>;
    bool load(handle from, bool) {
        if (isinstance<array>(from)) {
            value_ = reinterpret_borrow<array>(from);
            return true;
        }
        if (!hasattr(from, "__dlpack__")) return false;
        value_ = module_::import("beingh0_edge.arrays").attr("as_array")(from);
        return true;
    }
    static handle cast(const array& from, return_value_policy, handle) { return from.inc_ref(); }
    operator array*() { return &value_; }
    operator array&() { return value_; }
    operator array&&() && { return std::move(value_); }

 private:
    array value_ = reinterpret_steal<array>(handle());  // a default one would be an empty numpy array, made every time
};

namespace beingh0 {

namespace py = pybind11;

constexpr py::ssize_t kAny = -1;  // an axis of any length
constexpr int kAligned = py::detail::npy_api::NPY_ARRAY_ALIGNED_;

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
    if (!(a.flags() & kAligned)) text += " not aligned";
    return text;
}

// The array's data if dtype, shape, contiguity and alignment fit; raises ValueError saying expected and got.
template <typename T>
const T* checked(const char* name, const py::array& a, std::initializer_list<py::ssize_t> shape) {
    bool fits = a.dtype().is(py::dtype::of<T>()) || py::dtype::of<T>().equal(a.dtype());
    fits = fits && a.ndim() == static_cast<py::ssize_t>(shape.size());
    fits = fits && (a.flags() & py::array::c_style) && (a.flags() & kAligned);
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

// One word for all of them, where a sum would wait for each term: the compiler makes vectors of it.
template <typename T>
bool all_finite(const T* data, py::ssize_t size, T most = std::numeric_limits<T>::max()) {
    int bad = 0;
    for (py::ssize_t i = 0; i < size; ++i) bad |= !(std::fabs(data[i]) <= most);
    return bad == 0;
}

// As checked, and every value finite.
template <typename T>
const T* finite(const char* name, const py::array& a, std::initializer_list<py::ssize_t> shape) {
    const T* const data = checked<T>(name, a, shape);
    const py::ssize_t size = a.size();
    if (all_finite(data, size)) return data;
    py::ssize_t bad = 0;
    for (py::ssize_t i = 0; i < size; ++i) bad += !std::isfinite(data[i]);
    throw std::invalid_argument(std::string(name) + ": expected finite values, got " + std::to_string(bad) +
                                " that are not");
}

// As checked, and writable.
template <typename T>
T* writable(const char* name, py::array& a, std::initializer_list<py::ssize_t> shape) {
    checked<T>(name, a, shape);
    if (!a.writeable()) throw std::invalid_argument(std::string(name) + ": expected an array that is writeable");
    return static_cast<T*>(a.mutable_data());
}

inline Storage storage_of(const std::string& name) {
    if (name == "float32") return Storage::f32;
    if (name == "bfloat16") return Storage::bf16;
    if (name == "int8") return Storage::int8;
    throw std::invalid_argument("weights: expected float32, bfloat16 or int8, got " + name);
}

}  // namespace beingh0
