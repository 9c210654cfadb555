// Checks shared by the bindings. An array must be exactly what the kernel reads: no silent cast, no silent copy.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cmath>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "simd.hpp"

// An argument is a numpy array, or anything in CPU memory that speaks DLPack (a torch tensor), seen without a copy.
template <>
struct pybind11::detail::type_caster<pybind11::array> {
    PYBIND11_TYPE_CASTER(pybind11::array, const_name("numpy.ndarray"));
    bool load(handle from, bool) {
        if (isinstance<array>(from)) {
            value = reinterpret_borrow<array>(from);
            return true;
        }
        if (!hasattr(from, "__dlpack__")) return false;
        value = module_::import("numpy").attr("from_dlpack")(from);
        return true;
    }
    static handle cast(const array& from, return_value_policy, handle) { return from.inc_ref(); }
};

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

// As checked, and every value finite.
template <typename T>
const T* finite(const char* name, const py::array& a, std::initializer_list<py::ssize_t> shape) {
    const T* const data = checked<T>(name, a, shape);
    const py::ssize_t size = a.size();
    T sum = 0;
    for (py::ssize_t i = 0; i < size; ++i) sum += data[i] * T(0);
    if (sum == T(0)) return data;
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

// Scratch memory of callers: each takes one for a call, a new one is made only when more call at once than ever before.
template <typename T>
class Pool {
 public:
    class Lease {
     public:
        Lease(Pool& pool, std::unique_ptr<T> item) : pool_(pool), item_(std::move(item)) {}
        Lease(const Lease&) = delete;
        Lease& operator=(const Lease&) = delete;
        ~Lease() {
            const std::lock_guard<std::mutex> lock(pool_.mutex_);
            pool_.free_.push_back(std::move(item_));
        }
        T& operator*() const noexcept { return *item_; }

     private:
        Pool& pool_;
        std::unique_ptr<T> item_;
    };

    template <typename Source>
    Lease take(const Source& source) {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            if (!free_.empty()) {
                std::unique_ptr<T> item = std::move(free_.back());
                free_.pop_back();
                return Lease(*this, std::move(item));
            }
            free_.reserve(++made_);
        }
        return Lease(*this, std::make_unique<T>(source));
    }

 private:
    std::mutex mutex_;
    std::vector<std::unique_ptr<T>> free_;
    std::size_t made_ = 0;
};

}  // namespace beingh0
