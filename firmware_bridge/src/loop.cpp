#include "loop.hpp"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <stdexcept>
#include <string>

#include "io/stream.hpp"

namespace bridge {
namespace {

constexpr std::size_t kRememberedCycles = 8192;
constexpr Nanos kFirstRetry = kNanosPerSecond / 10;
constexpr Nanos kLongestRetry = 2 * kNanosPerSecond;
constexpr int kClosingCycles = 10;  // to deliver the last stop before the port is closed
constexpr Nanos kAnswerTimeout = 2 * kNanosPerSecond;
constexpr std::size_t kStackToTouch = 64 * 1024;

void sleep_until(Nanos deadline) {
  const timespec at{deadline / kNanosPerSecond, deadline % kNanosPerSecond};
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, nullptr) == EINTR) {
  }
}

// Makes the stack resident before the first deadline.
__attribute__((noinline)) void touch_stack() {
  std::uint8_t stack[kStackToTouch];
  std::memset(stack, 0, sizeof stack);
  asm volatile("" : : "r"(stack) : "memory");
}

std::atomic<int> g_lockers{0};  // loops that rely on mlockall

bool lock_memory() {
  // What is mapped now, as it is touched; never MCL_FUTURE, which would bind every later allocation of the user.
  if (mlockall(MCL_CURRENT | MCL_ONFAULT) != 0) return false;
  ++g_lockers;
  return true;
}

}  // namespace

Loop::Loop(std::unique_ptr<Driver> driver, const std::array<JointLimits, kMaxJoints>& limits, const Safety& safety,
           double rate_hz, int realtime_priority)
    : driver_(std::move(driver)), joints_(driver_->joints()),
      controller_(joints_, limits, safety, 1.0 / rate_hz), period_(nanos(1.0 / rate_hz)),
      realtime_priority_(realtime_priority), ring_(kRememberedCycles) {
  const int averaged = Limiter::averaged_poses(joints_, limits, 1.0 / rate_hz);
  if (averaged > kMostAveraged)
    throw std::invalid_argument("rate_hz: at this rate the jerk bounds need the mean of " + std::to_string(averaged) +
                                " poses; expected at most " + std::to_string(kMostAveraged));
}

Loop::~Loop() {
  close();
  Request request;
  while (requests_.pop(request)) delete request.trajectory;
  collect_retired();
}

void Loop::start() {
  driver_->connect();
  linked_ = true;
  controller_.link_up(monotonic_now());
  publish(monotonic_now(), 0);
  closing_.store(false);
  ready_.store(false);
  owner_ = getpid();
  thread_ = std::thread([this] { run(); });
  while (!ready_.load(std::memory_order_acquire)) std::this_thread::sleep_for(std::chrono::microseconds(100));
}

void Loop::close() {
  if (!thread_.joinable()) return;
  if (getpid() != owner_) {  // the hand belongs to the parent
    thread_.detach();
    return;
  }
  closing_.store(true, std::memory_order_release);
  thread_.join();
  driver_->disconnect();
  if (locked_all_ && --g_lockers == 0) munlockall();
  locked_all_ = false;
}

Loop::Answer Loop::ask(Request request) {
  std::lock_guard<std::mutex> lock(asking_);
  collect_retired();
  request.id = ++asked_;
  request.expires = monotonic_now() + kAnswerTimeout;
  if (!thread_.joinable() || !requests_.push(request)) {
    delete request.trajectory;
    --asked_;
    return {};
  }
  while (answered_.load(std::memory_order_acquire) < request.id) {
    if (monotonic_now() > request.expires) return {};
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  return {true, verdicts_[request.id % kRequests].load(std::memory_order_relaxed)};
}

void Loop::collect_retired() {
  Trajectory* done = nullptr;
  while (retired_.pop(done)) delete done;
}

void Loop::prepare_thread() {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, nullptr);
  pthread_setname_np(pthread_self(), "hand-bridge");
  prctl(PR_SET_TIMERSLACK, 1UL);
  touch_stack();
  Grants grants;
  if (realtime_priority_ > 0) {
    sched_param parameter{};
    parameter.sched_priority = realtime_priority_;
    grants.realtime = pthread_setschedparam(pthread_self(), SCHED_FIFO, &parameter) == 0;
    locked_all_ = lock_memory();
    grants.memory_locked = locked_all_ || mlock(this, sizeof *this) == 0;
  }
  grants.low_latency = driver_->low_latency();
  grants_.store(grants);
  ready_.store(true, std::memory_order_release);
}

void Loop::run() {
  prepare_thread();
  Nanos deadline = monotonic_now() + period_;
  int closing_cycles = 0;
  for (;;) {
    const bool in_time = monotonic_now() < deadline;  // else the cycle before took too long: a missed deadline
    sleep_until(deadline);
    const Nanos late = monotonic_now() - deadline;
    if (in_time) lateness_.add(late);
    if (closing_.load(std::memory_order_acquire)) {
      if (closing_cycles == 0) controller_.retire(deadline);
      if (!linked_ || controller_.stop_delivered() || ++closing_cycles > kClosingCycles) break;
    }
    cycle(deadline, late);
    deadline += period_;
    const Nanos now = monotonic_now();
    if (now > deadline) {  // skipped, never made up for by running twice
      const Nanos skipped = (now - deadline) / period_ + 1;
      missed_ += static_cast<std::uint64_t>(skipped);
      if (skipped > 1) deadline += (skipped - 1) * period_;
    }
  }
  publish(monotonic_now(), 0);
}

void Loop::cycle(Nanos deadline, Nanos late) {
  ++cycle_;
  read_ = written_ = Outcome::nothing;
  if (!linked_) try_reconnect(deadline);
  take_estop(deadline);
  if (!linked_) {
    handle_requests(deadline);
    controller_.tick(deadline);
    publish(deadline, late);
    return;
  }

  Joints pose{};
  read_ = driver_->read_pose(cycle_, pose);
  account(read_, monotonic_now());
  if (read_ == Outcome::done) controller_.on_feedback(monotonic_now(), pose);

  // As late as possible, so that a command asked for during the reading is sent in this very cycle.
  handle_requests(deadline);
  take_estop(monotonic_now());
  const Command command = controller_.tick(deadline);
  if (linked_ && command.write) {
    written_ = driver_->write_pose(command.q_rad);
    if (written_ == Outcome::not_representable) controller_.on_conversion_error(monotonic_now());
    else account(written_, monotonic_now());
    if (written_ == Outcome::done) controller_.on_write_accepted();
  }
  if (linked_ && command.release) {
    const Outcome outcome = driver_->release();
    account(outcome, monotonic_now());
    if (!failed(outcome)) controller_.on_released();
  }
  if (linked_ && command.clear_errors) account(driver_->clear_errors(), monotonic_now());
  if (linked_) {
    News news = News::none;
    account(driver_->read_news(cycle_, deadline + period_, telemetry_, news), monotonic_now());
    const Nanos now = monotonic_now();
    if (news == News::health) controller_.on_health(now, telemetry_.error_bits);
    double values[kMaxJoints];
    if (news == News::temperature) {
      for (int j = 0; j < joints_; ++j) values[j] = telemetry_.temperature_c[j];
      controller_.on_temperature(values, now);
    }
    if (news == News::current) {
      for (int j = 0; j < joints_; ++j) values[j] = telemetry_.current_a[j];
      controller_.on_current(values, now);
    }
  }
  publish(deadline, late);
}

void Loop::account(Outcome outcome, Nanos now) {
  if (outcome == Outcome::nothing) return;
  controller_.on_transaction(now, outcome == Outcome::done);
  if (outcome != Outcome::hung_up) return;
  driver_->disconnect();  // at once, so that the port can come back under its own name
  linked_ = false;
  retry_wait_ = kFirstRetry;
  retry_at_ = now + retry_wait_;
  controller_.link_down(now);
}

void Loop::try_reconnect(Nanos now) {
  if (now < retry_at_ || closing_.load(std::memory_order_relaxed)) return;
  try {
    driver_->connect();
    linked_ = true;
    controller_.link_up(monotonic_now());
  } catch (const std::runtime_error&) {  // no port yet, no answer yet, or another hand: try again later
    retry_wait_ = std::min(2 * retry_wait_, kLongestRetry);
    retry_at_ = monotonic_now() + retry_wait_;
  }
}

void Loop::take_estop(Nanos now) {
  if (estop_.exchange(false, std::memory_order_acq_rel)) controller_.estop(now);
}

void Loop::handle_requests(Nanos now) {
  Request request;
  while (requests_.pop(request)) {
    Verdict verdict = Verdict::not_connected;
    // Nobody waits for an expired request any more, and it must not move the hand by surprise.
    const bool expired = monotonic_now() > request.expires;
    if (expired) retired_.push(request.trajectory);
    else switch (request.kind) {
      case Kind::arm: verdict = controller_.arm(now); break;
      case Kind::stop:
      case Kind::refuse:
        controller_.stop(now, request.kind == Kind::stop ? Reason::stop_requested : Reason::command_refused);
        verdict = Verdict::accepted;
        break;
      case Kind::reset: verdict = controller_.reset(now); break;
      case Kind::follow: {
        std::unique_ptr<Trajectory> trajectory(request.trajectory);
        verdict = controller_.follow(now, trajectory, request.elapsed_s);
        retired_.push(trajectory.release());  // freed by a user's thread; never full, see collect_retired
        break;
      }
    }
    verdicts_[request.id % kRequests].store(verdict, std::memory_order_relaxed);
    handled_ = request.id;
  }
}

void Loop::publish(Nanos now, Nanos late) {
  Snapshot snapshot;
  snapshot.t = now;
  snapshot.cycle = cycle_;
  snapshot.missed_deadlines = missed_;
  snapshot.state = controller_.state();
  snapshot.reason = controller_.reason();
  snapshot.settled = controller_.settled(now);
  snapshot.stop_delivered = controller_.stop_delivered();
  snapshot.measured_at = controller_.measured_at();
  snapshot.measured_rad = controller_.measured_rad();
  snapshot.commanded_rad = controller_.commanded_rad();
  snapshot.telemetry = telemetry_;
  snapshot.counts = driver_->counts();
  snapshot_.store(snapshot);

  CycleRecord record;
  record.t = now;
  record.late = late;
  record.state = snapshot.state;
  record.reason = snapshot.reason;
  record.read = read_;
  record.written = written_;
  record.measured_rad = snapshot.measured_rad;
  record.commanded_rad = snapshot.commanded_rad;
  std::memcpy(record.force_g, telemetry_.force_g, sizeof record.force_g);
  ring_.push(record);
  answered_.store(handled_, std::memory_order_release);
}

}  // namespace bridge
