// The running loop: releases the GIL and calls. No logic.
#include "bind_support.hpp"
#include "io/stream.hpp"
#include "loop.hpp"

namespace bridge {
namespace {

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

// Connects and starts; raises what Driver::connect raises. The driver belongs to the loop from now on.
std::unique_ptr<Loop> start_loop(DriverHandle& handle, const Limits& limits, const Safety& safety, double rate_hz,
                                 int realtime_priority) {
  if (!handle.driver) throw std::invalid_argument("this driver has been used");
  if (handle.driver->joints() != limits.joints)
    throw std::invalid_argument("this hand has " + std::to_string(handle.driver->joints()) + " joints, got limits of " +
                                std::to_string(limits.joints));
  nb::gil_scoped_release unlocked;
  auto loop = std::make_unique<Loop>(std::move(handle.driver), limits.values, safety, rate_hz, realtime_priority);
  loop->start();
  return loop;
}

}  // namespace

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

  m.def("start_loop", &start_loop, "driver"_a, "limits"_a, "safety"_a, "rate_hz"_a, "realtime_priority"_a);
  m.def("monotonic_s", [] { return seconds(monotonic_now()); });
}

}  // namespace bridge
