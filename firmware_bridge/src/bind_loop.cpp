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

nb::dict snapshot_dict(const SharedPage& page) {
  Snapshot s;
  Grants grants;
  if (!page.snapshot.load(s) || !page.grants.load(grants)) throw std::runtime_error("the bridge died while it wrote");
  const int n = page.joints;
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
  out["late_p50_ms"] = page.lateness.percentile_ms(0.50);
  out["late_p99_ms"] = page.lateness.percentile_ms(0.99);
  out["late_p999_ms"] = page.lateness.percentile_ms(0.999);
  out["late_max_ms"] = page.lateness.worst_ms();
  out["realtime"] = grants.realtime;
  out["memory_locked"] = grants.memory_locked;
  out["low_latency"] = grants.low_latency;
  out["thread"] = grants.thread;
  return out;
}

nb::dict recent_dict(const SharedPage& page, std::size_t count) {
  const std::vector<CycleRecord> records = page.cycles.last(count);
  const std::size_t n = records.size(), joints = static_cast<std::size_t>(page.joints);
  std::vector<double> t(n), late(n), measured(n * joints), commanded(n * joints), force(n * joints), current(n * joints);
  nb::list states, reasons, reads, writes;
  for (std::size_t i = 0; i < n; ++i) {
    const CycleRecord& record = records[i];
    t[i] = seconds(record.t);
    late[i] = static_cast<double>(record.late) * 1e-6;
    for (std::size_t j = 0; j < joints; ++j) {
      measured[i * joints + j] = record.measured_rad[j];
      commanded[i * joints + j] = record.commanded_rad[j];
      force[i * joints + j] = record.force_g[j];
      current[i * joints + j] = record.current_a[j];
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
  out["current_a"] = own(std::move(current), {n, joints});
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
                                 int realtime_priority, const std::string& page) {
  if (!handle.driver) throw std::invalid_argument("this driver has been used");
  if (handle.driver->joints() != limits.joints)
    throw std::invalid_argument("this hand has " + std::to_string(handle.driver->joints()) + " joints, got limits of " +
                                std::to_string(limits.joints));
  nb::gil_scoped_release unlocked;
  auto loop = std::make_unique<Loop>(std::move(handle.driver), limits.values, safety, rate_hz, realtime_priority,
                                     page.empty() ? MappedPage::own() : MappedPage::create(page));
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
      .def("calibrate", [](Loop& loop) {
        Loop::Answer given;
        { nb::gil_scoped_release unlocked; given = loop.calibrate(); }
        return answer(given);
      })
      .def("estop", &Loop::estop)
      .def("snapshot", [](const Loop& loop) { return snapshot_dict(loop.page()); })
      .def("recent", [](const Loop& loop, std::size_t count) { return recent_dict(loop.page(), count); }, "count"_a);

  nb::class_<MappedPage>(m, "SharedPage")
      .def("__init__", [](MappedPage* self, const std::string& path) { new (self) MappedPage(MappedPage::open(path)); },
           "path"_a)
      .def("estop", [](MappedPage& self) { self->ask_estop(); })
      .def_prop_ro("estop_taken", [](const MappedPage& self) { return self->estop.load() == 0; })
      .def("snapshot", [](const MappedPage& self) { return snapshot_dict(*self); })
      .def("recent", [](const MappedPage& self, std::size_t count) { return recent_dict(*self, count); }, "count"_a)
      .def_prop_ro("process", [](const MappedPage& self) { return self->process; });

  m.def("start_loop", &start_loop, "driver"_a, "limits"_a, "safety"_a, "rate_hz"_a, "realtime_priority"_a,
        "page"_a = "");
  m.def("monotonic_s", [] { return seconds(monotonic_now()); });
}

}  // namespace bridge
