// Limits, limiter, trajectories and the state machine on a virtual clock: checks arguments and calls. No logic.
#include <cmath>

#include "bind_support.hpp"

namespace bridge {
namespace {

Limits make_limits(const Vector& lower, const Vector& upper, const Vector& speed, const Vector& accel,
                   const Vector& jerk) {
  Limits limits;
  limits.joints = static_cast<int>(lower.shape(0));
  if (limits.joints < 1 || limits.joints > kMaxJoints)
    throw std::invalid_argument("expected 1 to " + std::to_string(kMaxJoints) + " joints, got " +
                                std::to_string(limits.joints));
  const Joints low = joints_of(lower, limits.joints), high = joints_of(upper, limits.joints);
  const Joints fast = joints_of(speed, limits.joints), hard = joints_of(accel, limits.joints);
  const Joints sudden = joints_of(jerk, limits.joints);
  for (int j = 0; j < limits.joints; ++j) {
    if (!(low[j] < high[j]) || !(fast[j] > 0.0) || !(hard[j] > 0.0) || !(sudden[j] > 0.0) ||
        !std::isfinite(low[j] + high[j]) || !std::isfinite(fast[j] + hard[j] + sudden[j]))
      throw std::invalid_argument("limits of joint " + std::to_string(j) +
                                  ": expected finite lower < upper and positive speed, acceleration and jerk");
    limits.values[j] = {low[j], high[j], fast[j], hard[j], sudden[j]};
  }
  return limits;
}

void check_step(const Limits& limits, double dt_s, const char* name) {
  if (!(dt_s > 0.0)) throw std::invalid_argument(std::string(name) + ": expected a positive number");
  const int averaged = Limiter::averaged_poses(limits.joints, limits.values, dt_s);
  if (averaged > kMostAveraged)
    throw std::invalid_argument(std::string(name) + ": the jerk bounds need the mean of " + std::to_string(averaged) +
                                " poses at this step; expected at most " + std::to_string(kMostAveraged));
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

struct VirtualController {  // a Controller with the names and units Python likes
  int joints;
  Controller controller;
};

}  // namespace

void bind_core(nb::module_& m) {
  nb::class_<Limits>(m, "Limits")
      .def("__init__",
           [](Limits* self, const Vector& lower_rad, const Vector& upper_rad, const Vector& max_speed_rad_s,
              const Vector& max_accel_rad_s2, const Vector& max_jerk_rad_s3) {
             new (self)
                 Limits(make_limits(lower_rad, upper_rad, max_speed_rad_s, max_accel_rad_s2, max_jerk_rad_s3));
           },
           "lower_rad"_a, "upper_rad"_a, "max_speed_rad_s"_a, "max_accel_rad_s2"_a, "max_jerk_rad_s3"_a)
      .def_ro("joints", &Limits::joints);

  nb::class_<Safety>(m, "Safety")
      .def(nb::init<>())
      .def_rw("hold_after_s", &Safety::hold_after_s)
      .def_rw("freeze_after_s", &Safety::freeze_after_s)
      .def_rw("release_after_s", &Safety::release_after_s)
      .def_rw("release_on_fault", &Safety::release_on_fault)
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
             check_step(limits, dt_s, "dt_s");
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
      .def("brake", [](Limiter& self) { self.brake(); return array_of(self.q_rad(), self.joints()); })
      .def_prop_ro("stands", &Limiter::stands)
      .def_prop_ro("lead_s", &Limiter::lead_s)
      .def_static("stoppable_speed", &Limiter::stoppable_speed, "distance_rad"_a, "accel_rad_s2"_a, "dt_s"_a);

  nb::class_<Prepared>(m, "PreparedTrajectory")
      .def_prop_ro("end_s",
                   [](const Prepared& self) {
                     if (!self.trajectory) throw std::invalid_argument("this prepared trajectory has been used");
                     return self.trajectory->end_s();
                   })
      .def_prop_ro("brake_s",
                   [](const Prepared& self) {
                     if (!self.trajectory) throw std::invalid_argument("this prepared trajectory has been used");
                     return self.trajectory->brake_s();
                   })
      .def("points",
           [](const Prepared& self) {
             if (!self.trajectory) throw std::invalid_argument("this prepared trajectory has been used");
             const std::size_t n = self.trajectory->times().size();
             return nb::make_tuple(own(std::vector<double>(self.trajectory->times()), {n}),
                                   own(std::vector<double>(self.trajectory->points()),
                                       {n, self.trajectory->points().size() / n}));
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

void bind_controller(nb::module_& m) {
  using Self = VirtualController;
  nb::class_<Self>(m, "Controller")
      .def("__init__",
           [](Self* self, const Limits& limits, const Safety& safety, double period_s) {
             check_step(limits, period_s, "period_s");
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
      .def("on_released", [](Self& s) { s.controller.on_released(); })
      .def("retire", [](Self& s, double t) { s.controller.retire(nanos(t)); }, "t_s"_a)
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
             if (command.release) return nb::str("release");
             if (!command.write) return nb::none();
             return nb::cast(array_of(command.q_rad, s.joints));
           },
           "t_s"_a, "The pose to send, 'release', or None if nothing may be sent.")
      .def("settled", [](Self& s, double t) { return s.controller.settled(nanos(t)); }, "t_s"_a)
      .def_prop_ro("state", [](Self& s) { return name(s.controller.state()); })
      .def_prop_ro("reason", [](Self& s) { return name(s.controller.reason()); })
      .def_prop_ro("q_cmd_rad", [](Self& s) { return array_of(s.controller.commanded_rad(), s.joints); },
                   nb::rv_policy::move);
}

}  // namespace bridge
