// The Python face of the bridge: checks arguments, releases the GIL, calls. No logic.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>

#include "bindings.hpp"
#include "core/controller.hpp"
#include "drivers/inspire_driver.hpp"
#include "drivers/leap_driver.hpp"
#include "io/serial.hpp"
#include "io/slcan_bus.hpp"
#include "io/socketcan.hpp"
#include "io/tcp.hpp"
#include "loop.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace bridge {
namespace {

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

nb::ndarray<nb::numpy, double> array_of(const Joints& joints, int count) {
  return own(std::vector<double>(joints.begin(), joints.begin() + count), {static_cast<std::size_t>(count)});
}

template <class To, class From>
nb::ndarray<nb::numpy, To> array_of(const From* values, int count) {
  return own(std::vector<To>(values, values + count), {static_cast<std::size_t>(count)});
}

Joints joints_of(const Vector& values, int count) {
  if (static_cast<int>(values.shape(0)) != count)
    throw std::invalid_argument("expected " + std::to_string(count) + " joints, got " +
                                std::to_string(values.shape(0)));
  Joints joints{};
  for (int j = 0; j < count; ++j) joints[j] = values(j);
  return joints;
}

const char* name(State state) {
  constexpr const char* names[] = {"disconnected", "connected", "idle", "active", "hold", "fault", "estop"};
  return names[static_cast<int>(state)];
}

const char* name(Reason reason) {
  constexpr const char* names[] = {
      "none",         "stop_requested", "command_refused", "command_stale",    "command_frozen",   "released",
      "feedback_stale", "transaction_errors", "error_rate", "hand_error",      "over_temperature",
      "over_current", "conversion_range", "link_lost",     "estop_requested"};
  return names[static_cast<int>(reason)];
}

const char* name(Verdict verdict) {
  constexpr const char* names[] = {"accepted",      "not_armed",         "needs_rearm",        "latched",
                                   "not_connected", "no_fresh_feedback", "hand_reports_error", "nothing_to_reset",
                                   "outside_range"};
  return names[static_cast<int>(verdict)];
}

const char* name(Outcome outcome) {
  constexpr const char* names[] = {"done",        "nothing",           "timeout", "refused",
                                   "implausible", "not_representable", "hung_up"};
  return names[static_cast<int>(outcome)];
}

Limits make_limits(const Vector& lower, const Vector& upper, const Vector& speed, const Vector& accel) {
  Limits limits;
  limits.joints = static_cast<int>(lower.shape(0));
  if (limits.joints < 1 || limits.joints > kMaxJoints)
    throw std::invalid_argument("expected 1 to " + std::to_string(kMaxJoints) + " joints, got " +
                                std::to_string(limits.joints));
  const Joints low = joints_of(lower, limits.joints), high = joints_of(upper, limits.joints);
  const Joints fast = joints_of(speed, limits.joints), hard = joints_of(accel, limits.joints);
  for (int j = 0; j < limits.joints; ++j) {
    if (!(low[j] < high[j]) || !(fast[j] > 0.0) || !(hard[j] > 0.0) || !std::isfinite(low[j] + high[j]) ||
        !std::isfinite(fast[j] + hard[j]))
      throw std::invalid_argument("limits of joint " + std::to_string(j) +
                                  ": expected finite lower < upper and positive speed and acceleration");
    limits.values[j] = {low[j], high[j], fast[j], hard[j]};
  }
  return limits;
}

std::unique_ptr<Prepared> prepare(const Vector& t_s, const Matrix& q_rad, const Limits& limits) {
  if (q_rad.shape(0) != t_s.shape(0) || static_cast<int>(q_rad.shape(1)) != limits.joints)
    throw std::invalid_argument("q_rad: expected float64[" + std::to_string(t_s.shape(0)) + ", " +
                                std::to_string(limits.joints) + "], got float64[" +
                                std::to_string(q_rad.shape(0)) + ", " + std::to_string(q_rad.shape(1)) + "]");
  std::string problem;
  auto made = std::make_unique<Prepared>();
  made->trajectory =
      Trajectory::make(t_s.data(), q_rad.data(), t_s.shape(0), limits.joints, limits.values, problem);
  if (!made->trajectory) throw std::invalid_argument(problem);
  return made;
}

std::unique_ptr<Trajectory> taken(Prepared& prepared) {
  if (!prepared.trajectory) throw std::invalid_argument("this prepared trajectory has been used");
  return std::move(prepared.trajectory);
}

nb::dict as_dict(const BusCounts& counts) {
  nb::dict out;
  out["transactions"] = counts.transactions;
  out["timeout"] = counts.timeouts;
  out["refused"] = counts.refused;
  out["implausible"] = counts.implausible;
  out["checksum"] = counts.checksum;
  out["length"] = counts.length;
  out["garbage"] = counts.garbage;
  out["echo"] = counts.echo;
  out["foreign"] = counts.foreign;
  out["truncated"] = counts.truncated;
  out["late"] = counts.late;
  return out;
}

nb::dict snapshot_dict(const Loop& loop) {
  const Snapshot s = loop.snapshot();
  const Grants grants = loop.grants();
  const int n = loop.joints();
  nb::dict out;
  out["t_s"] = seconds(s.t);
  out["cycle"] = s.cycle;
  out["missed_deadlines"] = s.missed_deadlines;
  out["state"] = name(s.state);
  out["reason"] = name(s.reason);
  out["settled"] = s.settled;
  out["stop_delivered"] = s.stop_delivered;
  out["measured_t_s"] = seconds(s.measured_at);
  out["q_rad"] = array_of(s.measured_rad, n);
  out["q_cmd_rad"] = array_of(s.commanded_rad, n);
  out["force_g"] = array_of<double>(s.telemetry.force_g, n);
  out["current_a"] = array_of<double>(s.telemetry.current_a, n);
  out["temperature_c"] = array_of<double>(s.telemetry.temperature_c, n);
  out["error_bits"] = array_of<std::uint32_t>(s.telemetry.error_bits, n);
  out["status"] = array_of<std::uint8_t>(s.telemetry.status, n);
  out["counts"] = as_dict(s.counts);
  out["late_p50_ms"] = loop.lateness().percentile_ms(0.50);
  out["late_p99_ms"] = loop.lateness().percentile_ms(0.99);
  out["late_p999_ms"] = loop.lateness().percentile_ms(0.999);
  out["late_max_ms"] = loop.lateness().worst_ms();
  out["realtime"] = grants.realtime;
  out["memory_locked"] = grants.memory_locked;
  out["low_latency"] = grants.low_latency;
  return out;
}

nb::dict recent_dict(const Loop& loop, std::size_t count) {
  const std::vector<CycleRecord> records = loop.recent(count);
  const std::size_t n = records.size(), joints = static_cast<std::size_t>(loop.joints());
  std::vector<double> t(n), late(n), measured(n * joints), commanded(n * joints), force(n * joints);
  nb::list states, reasons, reads, writes;
  for (std::size_t i = 0; i < n; ++i) {
    const CycleRecord& record = records[i];
    t[i] = seconds(record.t);
    late[i] = static_cast<double>(record.late) * 1e-6;
    for (std::size_t j = 0; j < joints; ++j) {
      measured[i * joints + j] = record.measured_rad[j];
      commanded[i * joints + j] = record.commanded_rad[j];
      force[i * joints + j] = record.force_g[j];
    }
    states.append(name(record.state));
    reasons.append(name(record.reason));
    reads.append(name(record.read));
    writes.append(name(record.written));
  }
  nb::dict out;
  out["t_s"] = own(std::move(t), {n});
  out["late_ms"] = own(std::move(late), {n});
  out["q_rad"] = own(std::move(measured), {n, joints});
  out["q_cmd_rad"] = own(std::move(commanded), {n, joints});
  out["force_g"] = own(std::move(force), {n, joints});
  out["state"] = states;
  out["reason"] = reasons;
  out["read"] = reads;
  out["written"] = writes;
  return out;
}

// (answered, verdict)
nb::tuple answer(const Loop::Answer& given) { return nb::make_tuple(given.answered, name(given.verdict)); }

std::unique_ptr<InspireWire> inspire_wire(const std::string& wire, const std::string& port, int baud,
                                          std::uint8_t device_id, double reply_timeout_s, bool high_byte_first,
                                          bool echoes) {
  if (wire == "rs485")
    return std::make_unique<InspireRs485Wire>(std::make_unique<SerialPort>(port, baud), device_id, reply_timeout_s);
  if (wire == "modbus")
    return std::make_unique<InspireModbusWire>(std::make_unique<SerialPort>(port, baud), modbus::Wire::rtu, device_id,
                                               reply_timeout_s, high_byte_first, echoes);
  if (wire == "tcp")  // `baud` is the TCP port
    return std::make_unique<InspireModbusWire>(std::make_unique<TcpSocket>(port, baud), modbus::Wire::tcp, device_id,
                                               reply_timeout_s, high_byte_first, false);
  if (wire == "can")
    return std::make_unique<InspireCanWire>(std::make_unique<SocketCanBus>(port), device_id, reply_timeout_s);
  if (wire == "slcan")
    return std::make_unique<InspireCanWire>(std::make_unique<SlcanBus>(port, baud, '8'), device_id, reply_timeout_s);
  throw std::invalid_argument("unknown wire '" + wire + "'");
}

std::unique_ptr<Loop> open_inspire(const std::string& wire, const std::string& port, int baud, int device_id,
                                   double rate_hz, double reply_timeout_s, int speed, int force_g, bool trust_family,
                                   bool high_byte_first, bool echoes, const Limits& limits, const Safety& safety,
                                   int realtime_priority) {
  if (limits.joints != inspire::kJoints) throw std::invalid_argument("this hand has 6 joints");
  InspireSettings settings;
  settings.rate_hz = rate_hz;
  settings.speed = speed;
  settings.force_g = force_g;
  settings.trust_family = trust_family;
  auto carrier = inspire_wire(wire, port, baud, static_cast<std::uint8_t>(device_id), reply_timeout_s,
                              high_byte_first, echoes);
  nb::gil_scoped_release unlocked;
  auto loop = std::make_unique<Loop>(
      std::make_unique<InspireDriver>(std::move(carrier), settings, limits.values), limits.values, safety, rate_hz,
      realtime_priority);
  loop->start();
  return loop;
}

std::unique_ptr<Loop> open_leap(const std::string& port, int baud, double rate_hz, double reply_timeout_s,
                                int current_ma, int p_gain, int d_gain, bool fast_read, const Limits& limits,
                                const Safety& safety, int realtime_priority) {
  if (limits.joints != LeapDriver::kServos) throw std::invalid_argument("this hand has 16 joints");
  LeapSettings settings;
  settings.rate_hz = rate_hz;
  settings.reply_timeout_s = reply_timeout_s;
  settings.current_ma = current_ma;
  settings.p_gain = p_gain;
  settings.d_gain = d_gain;
  settings.fast_read = fast_read;
  nb::gil_scoped_release unlocked;
  auto driver = std::make_unique<LeapDriver>(std::make_unique<SerialPort>(port, baud), settings, limits.values);
  auto loop = std::make_unique<Loop>(std::move(driver), limits.values, safety, rate_hz, realtime_priority);
  loop->start();
  return loop;
}

void bind_core(nb::module_& m) {
  nb::class_<Limits>(m, "Limits")
      .def("__init__",
           [](Limits* self, const Vector& lower_rad, const Vector& upper_rad, const Vector& max_speed_rad_s,
              const Vector& max_accel_rad_s2) {
             new (self) Limits(make_limits(lower_rad, upper_rad, max_speed_rad_s, max_accel_rad_s2));
           },
           "lower_rad"_a, "upper_rad"_a, "max_speed_rad_s"_a, "max_accel_rad_s2"_a)
      .def_ro("joints", &Limits::joints);

  nb::class_<Safety>(m, "Safety")
      .def(nb::init<>())
      .def_rw("hold_after_s", &Safety::hold_after_s)
      .def_rw("freeze_after_s", &Safety::freeze_after_s)
      .def_rw("release_after_s", &Safety::release_after_s)
      .def_rw("feedback_stale_s", &Safety::feedback_stale_s)
      .def_rw("consecutive_errors", &Safety::consecutive_errors)
      .def_rw("error_rate", &Safety::error_rate)
      .def_rw("resume_within_rad", &Safety::resume_within_rad)
      .def_rw("max_temperature_c", &Safety::max_temperature_c)
      .def_rw("max_current_a", &Safety::max_current_a)
      .def_rw("fault_mask", &Safety::fault_mask)
      .def_rw("blend_s", &Safety::blend_s);

  nb::class_<Limiter>(m, "Limiter")
      .def("__init__",
           [](Limiter* self, const Limits& limits, double dt_s) {
             if (!(dt_s > 0.0)) throw std::invalid_argument("dt_s: expected a positive number");
             new (self) Limiter(limits.joints, limits.values, dt_s);
           },
           "limits"_a, "dt_s"_a)
      .def("seed", [](Limiter& self, const Vector& q) { self.seed(joints_of(q, self.joints())); }, "q_rad"_a)
      .def("step",
           [](Limiter& self, const Vector& previous, const Vector& next) {
             self.step(joints_of(previous, self.joints()), joints_of(next, self.joints()));
             return array_of(self.q_rad(), self.joints());
           },
           "previous_rad"_a, "next_rad"_a)
      .def_prop_ro("q_rad", [](const Limiter& self) { return array_of(self.q_rad(), self.joints()); },
                   nb::rv_policy::move)
      .def_prop_ro("v_rad_s", [](const Limiter& self) { return array_of(self.v_rad_s(), self.joints()); },
                   nb::rv_policy::move)
      .def_static("stoppable_speed", &Limiter::stoppable_speed, "distance_rad"_a, "accel_rad_s2"_a, "dt_s"_a);

  nb::class_<Prepared>(m, "PreparedTrajectory")
      .def_prop_ro("end_s",
                   [](const Prepared& self) {
                     if (!self.trajectory) throw std::invalid_argument("this prepared trajectory has been used");
                     return self.trajectory->end_s();
                   })
      .def("sample",
           [](const Prepared& self, double t_s, int joints) {
             if (!self.trajectory) throw std::invalid_argument("this prepared trajectory has been used");
             Joints q{}, v{};
             self.trajectory->at(t_s, q, v);
             return nb::make_tuple(array_of(q, joints), array_of(v, joints));
           },
           "t_s"_a, "joints"_a);
  m.def("prepare", &prepare, "t_s"_a, "q_rad"_a, "limits"_a);
}

struct VirtualController {  // a Controller with the names and units Python likes
  int joints;
  Controller controller;
};

void bind_controller(nb::module_& m) {
  using Self = VirtualController;
  nb::class_<Self>(m, "Controller")
      .def("__init__",
           [](Self* self, const Limits& limits, const Safety& safety, double period_s) {
             if (!(period_s > 0.0)) throw std::invalid_argument("period_s: expected a positive number");
             new (self) Self{limits.joints, Controller(limits.joints, limits.values, safety, period_s)};
           },
           "limits"_a, "safety"_a, "period_s"_a)
      .def("link_up", [](Self& s, double t) { s.controller.link_up(nanos(t)); }, "t_s"_a)
      .def("link_down", [](Self& s, double t) { s.controller.link_down(nanos(t)); }, "t_s"_a)
      .def("on_feedback",
           [](Self& s, double t, const Vector& q) { s.controller.on_feedback(nanos(t), joints_of(q, s.joints)); },
           "t_s"_a, "q_rad"_a)
      .def("on_health",
           [](Self& s, double t, std::uint32_t bits) {
             std::uint32_t all[kMaxJoints] = {bits};
             s.controller.on_health(nanos(t), all);
           },
           "t_s"_a, "error_bits_of_first_joint"_a)
      .def("on_temperature",
           [](Self& s, double t, double value) {
             double all[kMaxJoints] = {value};
             s.controller.on_temperature(all, nanos(t));
           },
           "t_s"_a, "first_joint_c"_a)
      .def("on_current",
           [](Self& s, double t, double value) {
             double all[kMaxJoints] = {value};
             s.controller.on_current(all, nanos(t));
           },
           "t_s"_a, "first_joint_a"_a)
      .def("on_transaction", [](Self& s, double t, bool ok) { s.controller.on_transaction(nanos(t), ok); },
           "t_s"_a, "succeeded"_a)
      .def("on_write_accepted", [](Self& s) { s.controller.on_write_accepted(); })
      .def("arm", [](Self& s, double t) { return name(s.controller.arm(nanos(t))); }, "t_s"_a)
      .def("follow",
           [](Self& s, double t, Prepared& prepared, double elapsed_s) {
             std::unique_ptr<Trajectory> trajectory = taken(prepared);
             return name(s.controller.follow(nanos(t), trajectory, elapsed_s));
           },
           "t_s"_a, "trajectory"_a, "elapsed_s"_a = 0.0)
      .def("stop", [](Self& s, double t) { s.controller.stop(nanos(t), Reason::stop_requested); }, "t_s"_a)
      .def("estop", [](Self& s, double t) { s.controller.estop(nanos(t)); }, "t_s"_a)
      .def("reset", [](Self& s, double t) { return name(s.controller.reset(nanos(t))); }, "t_s"_a)
      .def("tick",
           [](Self& s, double t) -> nb::object {
             const Command command = s.controller.tick(nanos(t));
             if (!command.write) return nb::none();
             return nb::cast(array_of(command.q_rad, s.joints));
           },
           "t_s"_a, "The pose to send, or None if nothing may be sent.")
      .def("settled", [](Self& s, double t) { return s.controller.settled(nanos(t)); }, "t_s"_a)
      .def_prop_ro("state", [](Self& s) { return name(s.controller.state()); })
      .def_prop_ro("reason", [](Self& s) { return name(s.controller.reason()); })
      .def_prop_ro("q_cmd_rad", [](Self& s) { return array_of(s.controller.commanded_rad(), s.joints); },
                   nb::rv_policy::move);
}

void bind_loop(nb::module_& m) {
  nb::exception<NoReply>(m, "NoReply");
  nb::exception<WrongHand>(m, "WrongHand");
  nb::register_exception_translator([](const std::exception_ptr& p, void*) {
    try {
      std::rethrow_exception(p);
    } catch (const PortError& error) {
      nb::object args = nb::make_tuple(error.error, error.what());
      PyErr_SetObject(PyExc_OSError, args.ptr());
    }
  });

  nb::class_<Loop>(m, "Loop")
      .def("close", &Loop::close, nb::call_guard<nb::gil_scoped_release>())
      .def_prop_ro("running", &Loop::running)
      .def("arm", [](Loop& loop) {
        Loop::Answer given;
        { nb::gil_scoped_release unlocked; given = loop.arm(); }
        return answer(given);
      })
      .def("follow",
           [](Loop& loop, Prepared& prepared, double elapsed_s) {
             std::unique_ptr<Trajectory> trajectory = taken(prepared);
             Loop::Answer given;
             { nb::gil_scoped_release unlocked; given = loop.follow(std::move(trajectory), elapsed_s); }
             return answer(given);
           },
           "trajectory"_a, "elapsed_s"_a)
      .def("stop",
           [](Loop& loop, bool refused) {
             Loop::Answer given;
             {
               nb::gil_scoped_release unlocked;
               given = loop.stop(refused ? Reason::command_refused : Reason::stop_requested);
             }
             return answer(given);
           },
           "refused"_a = false)
      .def("reset", [](Loop& loop) {
        Loop::Answer given;
        { nb::gil_scoped_release unlocked; given = loop.reset(); }
        return answer(given);
      })
      .def("estop", &Loop::estop)
      .def("snapshot", &snapshot_dict)
      .def("recent", &recent_dict, "count"_a);

  m.def("open_inspire", &open_inspire, "wire"_a, "port"_a, "baud"_a, "device_id"_a, "rate_hz"_a,
        "reply_timeout_s"_a, "speed"_a, "force_g"_a, "trust_family"_a, "high_byte_first"_a, "echoes"_a, "limits"_a,
        "safety"_a, "realtime_priority"_a);
  m.def("open_leap", &open_leap, "port"_a, "baud"_a, "rate_hz"_a, "reply_timeout_s"_a, "current_ma"_a, "p_gain"_a,
        "d_gain"_a, "fast_read"_a, "limits"_a, "safety"_a, "realtime_priority"_a);
  m.def("monotonic_s", [] { return seconds(monotonic_now()); });
}

}  // namespace
}  // namespace bridge

NB_MODULE(_bridge, m) {
  m.doc() = "Codecs, limits, states and the real-time loop of the firmware bridge.";
  bridge::bind_core(m);
  bridge::bind_controller(m);
  bridge::bind_loop(m);
  bridge::bind_inspire(m);
  bridge::bind_brainco(m);
  bridge::bind_inspire_can(m);
  bridge::bind_modbus(m);
  bridge::bind_rohand(m);
  bridge::bind_slcan(m);
  bridge::bind_dynamixel(m);
  bridge::bind_ability(m);
  bridge::bind_linkerhand(m);
  bridge::bind_allegro(m);
}
