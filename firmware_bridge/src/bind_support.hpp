// What the bindings share: arrays in and out, names of states, and the handles that Python passes around.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "bindings.hpp"
#include "core/controller.hpp"
#include "drivers/driver.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace bridge {

using Vector = nb::ndarray<const double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Matrix = nb::ndarray<const double, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

struct Limits {
  int joints = 0;
  std::array<JointLimits, kMaxJoints> values{};
};

struct Prepared {  // a trajectory on its way to the loop
  std::unique_ptr<Trajectory> trajectory;
};

template <class T>
nb::ndarray<nb::numpy, T> own(std::vector<T>&& values, std::initializer_list<std::size_t> shape) {
  auto* kept = new std::vector<T>(std::move(values));
  nb::capsule owner(kept, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
  return nb::ndarray<nb::numpy, T>(kept->data(), shape, owner);
}

inline nb::ndarray<nb::numpy, double> array_of(const Joints& joints, int count) {
  return own(std::vector<double>(joints.begin(), joints.begin() + count), {static_cast<std::size_t>(count)});
}

template <class To, class From>
nb::ndarray<nb::numpy, To> array_of(const From* values, int count) {
  return own(std::vector<To>(values, values + count), {static_cast<std::size_t>(count)});
}

inline Joints joints_of(const Vector& values, int count) {
  if (static_cast<int>(values.shape(0)) != count)
    throw std::invalid_argument("expected " + std::to_string(count) + " joints, got " +
                                std::to_string(values.shape(0)));
  Joints joints{};
  for (int j = 0; j < count; ++j) joints[j] = values(j);
  return joints;
}

inline std::unique_ptr<Trajectory> taken(Prepared& prepared) {
  if (!prepared.trajectory) throw std::invalid_argument("this prepared trajectory has been used");
  return std::move(prepared.trajectory);
}

struct DriverHandle {  // a driver on its way to the loop
  std::unique_ptr<Driver> driver;
};

inline const char* name(State state) {
  constexpr const char* names[] = {"disconnected", "connected", "idle", "active", "hold", "fault", "estop"};
  return names[static_cast<int>(state)];
}

inline const char* name(Reason reason) {
  constexpr const char* names[] = {
      "none",         "stop_requested", "command_refused", "command_stale",    "command_frozen",   "released",
      "feedback_stale", "transaction_errors", "error_rate", "hand_error",      "over_temperature",
      "over_current", "conversion_range", "link_lost",     "estop_requested"};
  return names[static_cast<int>(reason)];
}

inline const char* name(Verdict verdict) {
  constexpr const char* names[] = {"accepted",      "not_armed",         "needs_rearm",        "latched",
                                   "not_connected", "no_fresh_feedback", "hand_reports_error", "nothing_to_reset",
                                   "not_idle",
                                   "outside_range"};
  return names[static_cast<int>(verdict)];
}

inline const char* name(Outcome outcome) {
  constexpr const char* names[] = {"done",        "nothing",           "timeout", "refused",
                                   "implausible", "not_representable", "hung_up", "interrupted"};
  return names[static_cast<int>(outcome)];
}

}  // namespace bridge
