// Random faults against random commands on a virtual clock: the bridge's own cycle, state machine and limiter, with a
// hand made of this file. Checked in every cycle:
//   - nothing is sent without arm, except the stop that fault and e-stop deliver
//   - what is sent is finite, within range, and within velocity, acceleration and jerk of what was sent before; the
//     exception is a stop, which makes the measured pose the target (or, at an e-stop without one, repeats the last)
//     and then stays there until arm
//   - never active while a fault's condition holds: no pose, no error report, errors in a row, error bits, heat, current
//   - e-stop wins at once and, like fault, stays until reset
//   - a torque-driven hand gets no pose after a fault, an e-stop or the loss of its pose, and is let go
//   - when the faults end, reset and arm bring it back
//
//   g++ -std=c++17 -O2 -I firmware_bridge/src tests/fuzz/fault_schedules.cpp firmware_bridge/src/session.cpp
//       firmware_bridge/src/core/*.cpp -o fault_schedules && ./fault_schedules 100000 1
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>
#include <string>

#include "io/stream.hpp"
#include "session.hpp"

namespace {

using namespace bridge;

constexpr int kJoints = 3;
constexpr double kPeriod_s = 0.01;
constexpr double kRounding = 1e-9;  // of sums over thousands of steps in double

Nanos g_now = 0;
long g_schedule = 0;
std::mt19937_64 rng;

double uniform(double low, double high) { return std::uniform_real_distribution<double>(low, high)(rng); }
bool chance(double probability) { return uniform(0.0, 1.0) < probability; }
int pick(int count) { return std::uniform_int_distribution<int>(0, count - 1)(rng); }

[[noreturn]] void violated(const char* what) {
  std::fprintf(stderr, "schedule %ld at %.3f s: %s\n", g_schedule, seconds(g_now), what);
  std::exit(1);
}
void require(bool held, const char* what) {
  if (!held) violated(what);
}

std::array<JointLimits, kMaxJoints> limits() {
  std::array<JointLimits, kMaxJoints> all{};
  all[0] = {0.0, 1.47, 1.8, 18.0, 450.0};
  all[1] = {-0.5, 0.7, 0.6, 3.0, 75.0};
  all[2] = {0.0, 1.3, 2.5, 40.0, 1000.0};
  return all;
}
const std::array<JointLimits, kMaxJoints> kLimits = limits();

struct Trouble {  // probabilities per transaction, drawn anew from time to time
  double timeout = 0.0, refused = 0.0, implausible = 0.0, hang_up = 0.0, slow = 0.0, no_connect = 0.0;
  double error_bit = 0.0, heat = 0.0, current = 0.0, not_a_number = 0.0;
};

Trouble draw_trouble() {
  Trouble t;
  const auto some = [](double most) { return chance(0.3) ? uniform(0.0, most) : 0.0; };
  t.timeout = chance(0.15) ? 1.0 : some(0.6);
  t.refused = some(0.3);
  t.implausible = some(0.3);
  t.hang_up = some(0.03);
  t.slow = some(0.3);
  t.no_connect = chance(0.2) ? 1.0 : some(0.5);
  t.error_bit = some(0.1);
  t.heat = some(0.1);
  t.current = some(0.1);
  t.not_a_number = some(0.05);
  return t;
}

class FakeHand final : public Driver {
 public:
  Trouble trouble;
  Joints pose{};      // where it is
  Joints target{};    // what it was last told
  Joints reported{};  // what it last said
  Joints attempted{};
  bool tried_to_write = false, accepted = false, release_tried = false, released = false;
  Nanos said_at = INT64_MIN / 2, healthy_at = INT64_MIN / 2;
  bool up = false, bad_bits = false, told_hot = false, told_current = false;
  int failures = 0;
  bool* estop_wanted = nullptr;  // somebody asks for it while a transaction runs

  FakeHand() {
    for (int j = 0; j < kJoints; ++j) pose[j] = target[j] = uniform(kLimits[j].lower_rad, kLimits[j].upper_rad);
  }
  void move(double dt_s) {
    for (int j = 0; j < kJoints; ++j) pose[j] += std::min(1.0, dt_s / 0.05) * (target[j] - pose[j]);
  }
  void connect() override {
    g_now += nanos(uniform(0.001, 0.05));
    if (chance(trouble.no_connect)) throw NoReply("nobody");
    up = true;
    failures = 0;
  }
  void disconnect() override { up = false; }
  Outcome read_pose(std::uint64_t, Joints& q_rad) override {
    Outcome outcome = transact();
    if (outcome == Outcome::done && chance(trouble.implausible)) outcome = failed_one(Outcome::implausible);
    if (outcome != Outcome::done) return outcome;
    q_rad = pose;
    if (chance(trouble.not_a_number)) {
      q_rad[pick(kJoints)] = std::numeric_limits<double>::quiet_NaN();
      return outcome;
    }
    reported = pose;
    said_at = g_now;
    return outcome;
  }
  Outcome write_pose(const Joints& q_rad) override {
    require(up, "something is sent on a closed line");
    tried_to_write = true;
    attempted = q_rad;
    const Outcome outcome = transact();
    if (outcome == Outcome::done) {
      accepted = true;
      target = q_rad;
    }
    return outcome;
  }
  Outcome read_news(std::uint64_t cycle, Nanos, Telemetry& telemetry, News& news) override {
    if (cycle % 3 != 0) return Outcome::nothing;
    const Outcome outcome = transact();
    if (outcome != Outcome::done) return outcome;
    switch (cycle / 3 % 3) {
      case 0:
        bad_bits = chance(trouble.error_bit);
        healthy_at = g_now;
        telemetry.error_bits[1] = bad_bits ? 1u << pick(5) : 0;
        news = News::health;
        break;
      case 1:
        told_hot = chance(trouble.heat);
        telemetry.temperature_c[2] = told_hot ? 80.0f : 40.0f;
        news = News::temperature;
        break;
      default:
        told_current = chance(trouble.current);
        telemetry.current_a[0] = told_current ? -2.5f : 0.3f;
        news = News::current;
    }
    return outcome;
  }
  Outcome clear_errors() override { return transact(); }
  Outcome release() override {
    release_tried = true;
    const Outcome outcome = transact();
    released |= outcome == Outcome::done;
    return outcome;
  }
  int joints() const override { return kJoints; }
  BusCounts counts() const override { return {}; }
  bool low_latency() const override { return false; }

 private:
  Outcome failed_one(Outcome outcome) {
    ++failures;
    return outcome;
  }
  Outcome transact() {
    require(up, "a transaction on a closed line");
    g_now += nanos(0.002);
    if (chance(0.0005)) *estop_wanted = true;
    if (*estop_wanted && interruption.on && chance(0.8)) return Outcome::interrupted;  // the wait was not over yet
    if (chance(trouble.slow)) g_now += nanos(uniform(0.0, 0.03));
    if (chance(trouble.hang_up)) return failed_one(Outcome::hung_up);
    if (chance(trouble.timeout)) {
      g_now += nanos(0.02);
      return failed_one(Outcome::timeout);
    }
    if (chance(trouble.refused)) return failed_one(Outcome::refused);
    failures = 0;
    return Outcome::done;
  }
};

// What a user may ask between two cycles.
class User final : public Requests {
 public:
  bool estop_wanted = false;
  int wanted = 0;  // 0 nothing, 1 arm, 2 follow, 3 stop, 4 reset, 5 refused command
  bool armed = false, stopped = false, estopped = false, was_reset = false;

  bool take_estop() override {
    const bool taken = estop_wanted;
    estop_wanted = false;
    estopped |= taken;
    return taken;
  }
  void take(Nanos now, Controller& controller) override {
    const State before = controller.state();
    if (wanted == 1) armed |= controller.arm(now) == Verdict::accepted && before != State::active;
    if (wanted == 2) follow(now, controller);
    if (wanted == 3 || wanted == 5) {
      stopped |= before == State::active || before == State::hold;
      controller.stop(now, wanted == 3 ? Reason::stop_requested : Reason::command_refused);
    }
    if (wanted == 4) was_reset |= controller.reset(now) == Verdict::accepted;
    wanted = 0;
  }

 private:
  static void follow(Nanos now, Controller& controller) {
    const int points = 1 + pick(6);
    std::vector<double> t, q;
    double at = uniform(0.0, 0.3);
    for (int i = 0; i < points; ++i) {
      t.push_back(at);
      at += uniform(0.01, 0.4);
      for (int j = 0; j < kJoints; ++j) q.push_back(uniform(kLimits[j].lower_rad, kLimits[j].upper_rad));
    }
    std::string problem;
    auto made = Trajectory::make(t.data(), q.data(), t.size(), kJoints, kLimits, problem);
    require(made != nullptr, "a sound trajectory is taken");
    controller.follow(now, made, chance(0.3) ? uniform(0.0, t.back()) : 0.0);
  }
};

Safety draw_safety() {
  Safety safety;
  safety.hold_after_s = uniform(0.02, 0.3);
  safety.freeze_after_s = safety.hold_after_s + uniform(0.0, 1.0);
  if (chance(0.3)) safety.release_after_s = uniform(0.1, 2.0);
  safety.release_on_fault = chance(0.25);
  safety.feedback_stale_s = uniform(0.02, 0.3);
  safety.consecutive_errors = 1 + pick(20);
  safety.error_rate = uniform(0.01, 0.5);
  safety.blend_s = uniform(0.02, 0.4);
  return safety;
}

// Velocity, acceleration and jerk of the commands, step by step.
class Watch {
 public:
  bool started = false;
  Joints last{};

  void rest_at(const Joints& q) {
    last = q;
    v_.fill(0.0);
    a_.fill(0.0);
    started = true;
  }
  bool continues(const Joints& q) const {
    for (int j = 0; started && j < kJoints; ++j) {
      const double v = (q[j] - last[j]) / kPeriod_s, a = (v - v_[j]) / kPeriod_s, jerk = (a - a_[j]) / kPeriod_s;
      if (std::abs(v) > kLimits[j].max_speed_rad_s + kRounding / kPeriod_s) return false;
      if (std::abs(a) > kLimits[j].max_accel_rad_s2 + kRounding / kPeriod_s / kPeriod_s) return false;
      if (std::abs(jerk) > kLimits[j].max_jerk_rad_s3 + kRounding / kPeriod_s / kPeriod_s / kPeriod_s) return false;
    }
    return started;
  }
  void add(const Joints& q) {
    for (int j = 0; j < kJoints; ++j) {
      const double v = (q[j] - last[j]) / kPeriod_s;
      a_[j] = (v - v_[j]) / kPeriod_s;
      v_[j] = v;
    }
    last = q;
  }

 private:
  Joints v_{}, a_{};
};

Joints within(const Joints& q) {
  Joints out = q;
  for (int j = 0; j < kJoints; ++j) out[j] = std::min(std::max(q[j], kLimits[j].lower_rad), kLimits[j].upper_rad);
  return out;
}
bool same(const Joints& a, const Joints& b) {
  for (int j = 0; j < kJoints; ++j)
    if (std::abs(a[j] - b[j]) > kRounding) return false;
  return true;
}
bool latched(State state) { return state == State::fault || state == State::estop; }
bool driving(State state) { return state == State::active || state == State::hold; }

struct Totals {
  long cycles = 0, writes = 0, states[7] = {};
} totals;

void one_schedule() {
  g_now = kNanosPerSecond;
  const Safety safety = draw_safety();
  auto owned = std::make_unique<FakeHand>();
  FakeHand& hand = *owned;
  Session session(std::move(owned), kLimits, safety, 1.0 / kPeriod_s);
  User user;
  hand.estop_wanted = &user.estop_wanted;
  Watch watch;
  session.connect();
  Nanos deadline = g_now;
  bool may_write = false;      // armed, and not latched, lost or let go since
  bool standing = false;       // stopped: the target stays where it is until arm
  int to_let_go = 0;           // a torque-driven hand that must be told in each of the next cycles, until it took it
  const double fuss = uniform(0.003, 0.06);
  const int cycles = 100 + pick(300);
  const int quiet_from = cycles - 60;

  for (int i = 0; i < cycles; ++i) {
    ++totals.cycles;
    if (chance(fuss)) hand.trouble = draw_trouble();
    if (chance(fuss)) hand.trouble = {};
    if (chance(fuss)) {  // somebody moves the fingers
      for (int j = 0; j < kJoints; ++j)
        hand.pose[j] = uniform(kLimits[j].lower_rad - 0.3, kLimits[j].upper_rad + 0.3);
    }
    const State now = session.controller().state();
    if (chance(0.05)) user.wanted = 1 + pick(5);
    if (driving(now) ? chance(0.1) : chance(0.3)) user.wanted = driving(now) ? 2 : 1;
    if (latched(now) && chance(0.1)) user.wanted = 4;
    if (chance(0.003)) user.estop_wanted = true;
    if (i >= quiet_from && i < quiet_from + 5) hand.trouble = {};

    deadline += nanos(kPeriod_s);
    if (chance(0.03)) deadline += nanos(kPeriod_s) * pick(30);  // the kernel was busy
    if (g_now > deadline) deadline += ((g_now - deadline) / nanos(kPeriod_s) + 1) * nanos(kPeriod_s);
    hand.move(seconds(deadline - g_now));
    g_now = deadline;

    hand.tried_to_write = hand.accepted = hand.release_tried = hand.released = false;
    user.armed = user.stopped = user.estopped = user.was_reset = false;
    const State before = session.controller().state();
    const Joints last_report = hand.reported;
    const Reason reason_before = session.controller().reason();
    const bool was_linked = session.linked();
    if (user.estop_wanted && chance(0.5)) session.interrupt(user);  // it came between two cycles
    else session.cycle(deadline, user, true);
    const State after = session.controller().state();
    ++totals.states[static_cast<int>(after)];

    const Reason reason = session.controller().reason();
    const bool changed = after != before || reason != reason_before || user.stopped;
    const bool frozen = latched(after) || (after == State::hold && reason != Reason::command_stale);

    // states
    if (user.estopped) require(after == State::estop || user.was_reset, "an e-stop wins");
    if (latched(before)) require(after == before || after == State::estop || user.was_reset, "a latched state stays");
    if (after == State::active || (after == State::hold && before != State::hold && before != State::active))
      require(before == State::active || before == State::hold || user.armed, "active only by arm");
    if (after == State::active) {
      // Judged at the cycle's tick; the transactions after it may have taken a while.
      const Nanos slack = 8 * nanos(0.06);
      require(g_now - hand.said_at <= std::max(nanos(safety.feedback_stale_s), 5 * nanos(kPeriod_s)) + slack,
              "active without a pose");
      require(g_now - hand.healthy_at <= kNanosPerSecond + slack, "active without an error report");
      require(hand.failures < safety.consecutive_errors, "active with too many errors in a row");
      require(!hand.bad_bits, "active with an error of the hand");
    }

    // letting go
    if (to_let_go > 0 && was_linked && session.linked() && !user.armed) {
      require(hand.release_tried, "a torque-driven hand is let go");
      to_let_go = hand.released ? 0 : to_let_go - 1;
    } else if (!session.linked() || user.armed) {
      to_let_go = 0;
    }
    const bool blind = after == State::idle && reason == Reason::feedback_stale;
    if (safety.release_on_fault && driving(before) && (latched(after) || blind) && session.linked() && !hand.released)
      to_let_go = 40;

    // commands
    if (user.armed) {
      may_write = true;
      standing = false;
      if (!watch.started || before != State::hold) watch.rest_at(within(hand.reported));
    }
    if (hand.tried_to_write) {
      ++totals.writes;
      const Joints& q = hand.attempted;
      for (int j = 0; j < kJoints; ++j) {
        require(std::isfinite(q[j]), "a command is finite");
        require(q[j] >= kLimits[j].lower_rad && q[j] <= kLimits[j].upper_rad, "a command is within its range");
      }
      require(may_write || user.estopped || latched(before) || latched(after), "nothing is sent without arm");
      const bool at_measured = same(q, within(hand.reported)) || same(q, within(last_report));
      if (!may_write) require(at_measured || same(q, watch.last) || watch.continues(q), "only a stop is sent without arm");
      if (before == State::estop && !user.was_reset) require(same(q, watch.last), "an e-stop stays where it stopped");
      if (at_measured && (user.armed || (frozen && changed))) {  // by chance often within the limits too
        watch.rest_at(q);
        standing = !user.armed;
      } else if (watch.continues(q)) {
        if (standing && !same(q, watch.last)) {
          // Braking, or a frozen hand that freezes once more; never on towards a target.
          require(after != State::active, "a stopped hand does not move on");
        }
        watch.add(q);
      } else {
        const bool repeated = watch.started && same(q, watch.last);
        require(at_measured || repeated, "a command within its limits, or a stop");
        watch.rest_at(q);
        standing = !user.armed;
      }
      if (safety.release_on_fault) require(!latched(before), "a torque-driven hand gets no pose after a fault");
    }
    if (latched(after) || after == State::disconnected || after == State::connected || after == State::idle)
      may_write = false;
    if (!driving(after) && !latched(after)) watch.started = false;
  }

  // The faults are over: whatever happened, reset and arm bring it back.
  hand.trouble = {};
  hand.target = hand.pose = within(hand.pose);
  const Nanos give_up = g_now + 10 * kNanosPerSecond;
  bool back = false;
  while (!back && g_now < give_up) {
    user.wanted = latched(session.controller().state()) ? 4 : 1;
    deadline = std::max(deadline + nanos(kPeriod_s), g_now);
    g_now = deadline;
    hand.move(kPeriod_s);
    session.cycle(deadline, user, true);
    back = session.controller().state() == State::active;
  }
  require(back, "reset and arm bring a sound hand back");
}

}  // namespace

namespace bridge {
Nanos monotonic_now() { return g_now; }
}  // namespace bridge

int main(int count, char** arguments) {
  if (count != 3 && count != 4) return std::fprintf(stderr, "usage: %s schedules seed [first]\n", arguments[0]), 2;
  const long schedules = std::strtol(arguments[1], nullptr, 10);
  const std::uint64_t seed = std::strtoull(arguments[2], nullptr, 10);
  const long first = count == 4 ? std::strtol(arguments[3], nullptr, 10) : 0;
  for (g_schedule = first; g_schedule < first + schedules; ++g_schedule) {
    rng.seed(seed * 1'000'003 + static_cast<std::uint64_t>(g_schedule));  // any one can be repeated alone
    one_schedule();
  }
  std::printf("%ld schedules, %ld cycles, %ld poses sent, nothing violated\n", schedules, totals.cycles, totals.writes);
  constexpr const char* names[] = {"disconnected", "connected", "idle", "active", "hold", "fault", "estop"};
  for (int s = 0; s < 7; ++s) std::printf("  %-12s %5.1f %% of cycles\n", names[s], 100.0 * totals.states[s] / totals.cycles);
  return 0;
}
