#include "loop.hpp"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <chrono>
#include <cstring>

#include "io/stream.hpp"

namespace bridge {
namespace {

constexpr int kClosingCycles = 10;  // to deliver the last stop before the port is closed
constexpr Nanos kAnswerTimeout = 2 * kNanosPerSecond;
constexpr std::size_t kStackToTouch = 64 * 1024;

// Returns at the deadline, or as soon as the word is not 0. By the kernel as punctual as clock_nanosleep.
void sleep_until(Nanos deadline, const std::atomic<std::uint32_t>& word) {
  const timespec at{deadline / kNanosPerSecond, deadline % kNanosPerSecond};
  while (word.load(std::memory_order_acquire) == 0 && monotonic_now() < deadline) {
    // Not private: the word may be in a page that other processes map.
    syscall(SYS_futex, &word, FUTEX_WAIT_BITSET, 0, &at, nullptr, FUTEX_BITSET_MATCH_ANY);
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
           double rate_hz, int realtime_priority, MappedPage page)
    : page_(std::move(page)), session_(std::move(driver), limits, safety, rate_hz), period_(nanos(1.0 / rate_hz)),
      realtime_priority_(realtime_priority) {
  page_->joints = session_.driver().joints();
  page_->process = getpid();
}

Loop::~Loop() {
  close();
  Request request;
  while (requests_.pop(request)) delete request.trajectory;
  collect_retired();
}

void Loop::start() {
  session_.connect();
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
  session_.disconnect();
  show(monotonic_now());
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
  interruption.word = &page_->estop;
  touch_stack();
  Grants grants;
  if (realtime_priority_ > 0) {
    sched_param parameter{};
    parameter.sched_priority = realtime_priority_;
    grants.realtime = pthread_setschedparam(pthread_self(), SCHED_FIFO, &parameter) == 0;
    locked_all_ = lock_memory();
    grants.memory_locked = locked_all_ || mlock(this, sizeof *this) == 0;
    if (!locked_all_) grants.memory_locked &= mlock(&*page_, sizeof *page_) == 0;
  }
  grants.low_latency = session_.driver().low_latency();
  grants.thread = static_cast<std::int32_t>(syscall(SYS_gettid));
  page_->grants.store(grants);
  ready_.store(true, std::memory_order_release);
}

void Loop::run() {
  prepare_thread();
  Nanos deadline = monotonic_now() + period_;
  int closing_cycles = 0;
  for (;;) {
    const bool in_time = monotonic_now() < deadline;  // else the cycle before took too long: a missed deadline
    sleep_until(deadline, page_->estop);
    Nanos late = monotonic_now() - deadline;
    if (late < 0) {  // an e-stop between two cycles
      session_.interrupt(*this);
      publish(monotonic_now(), 0);
      late = monotonic_now() - deadline;
      if (late < 0) continue;
    } else if (in_time) {
      page_->lateness.add(late);
    }
    const bool closing = closing_.load(std::memory_order_acquire);
    if (closing) {
      Controller& controller = session_.controller();
      if (closing_cycles == 0) controller.retire(deadline);
      if (!session_.linked() || controller.stop_delivered() || ++closing_cycles > kClosingCycles) break;
    }
    session_.cycle(deadline, *this, !closing);
    publish(deadline, late);
    deadline += period_;
    const Nanos now = monotonic_now();
    if (now > deadline) {  // the next one begins at once, and those after it are late by as much: never two in one period
      missed_ += static_cast<std::uint64_t>((now - deadline) / period_ + 1);
      deadline = now;
    }
  }
  publish(monotonic_now(), 0);
}

void Loop::take(Nanos now, Controller& controller) {
  Request request;
  while (requests_.pop(request)) {
    Verdict verdict = Verdict::not_connected;
    // Nobody waits for an expired request any more, and it must not move the hand by surprise.
    const bool expired = monotonic_now() > request.expires;
    if (expired) retired_.push(request.trajectory);
    else switch (request.kind) {
      case Kind::arm: verdict = controller.arm(now); break;
      case Kind::stop:
      case Kind::refuse:
        controller.stop(now, request.kind == Kind::stop ? Reason::stop_requested : Reason::command_refused);
        verdict = Verdict::accepted;
        break;
      case Kind::reset: verdict = controller.reset(now); break;
      case Kind::calibrate: verdict = controller.calibrate(); break;
      case Kind::follow: {
        std::unique_ptr<Trajectory> trajectory(request.trajectory);
        verdict = controller.follow(now, trajectory, request.elapsed_s);
        retired_.push(trajectory.release());  // freed by a user's thread; never full, see collect_retired
        break;
      }
    }
    verdicts_[request.id % kRequests].store(verdict, std::memory_order_relaxed);
    handled_ = request.id;
  }
}

Snapshot Loop::show(Nanos now) {
  const Controller& controller = session_.controller();
  Snapshot snapshot;
  snapshot.t = now;
  snapshot.cycle = session_.cycles();
  snapshot.missed_deadlines = missed_;
  snapshot.state = controller.state();
  snapshot.reason = controller.reason();
  snapshot.settled = controller.settled(now);
  snapshot.stop_delivered = controller.stop_delivered();
  snapshot.measured_at = controller.measured_at();
  snapshot.measured_rad = controller.measured_rad();
  snapshot.commanded_rad = controller.commanded_rad();
  snapshot.telemetry = session_.telemetry();
  snapshot.counts = session_.driver().counts();
  page_->snapshot.store(snapshot);
  return snapshot;
}

void Loop::publish(Nanos now, Nanos late) {
  const Snapshot snapshot = show(now);
  CycleRecord record;
  record.t = now;
  record.late = late;
  record.state = snapshot.state;
  record.reason = snapshot.reason;
  record.read = session_.read();
  record.written = session_.written();
  record.measured_rad = snapshot.measured_rad;
  record.commanded_rad = snapshot.commanded_rad;
  std::memcpy(record.force_g, snapshot.telemetry.force_g, sizeof record.force_g);
  std::memcpy(record.current_a, snapshot.telemetry.current_a, sizeof record.current_a);
  page_->cycles.push(record);
  answered_.store(handled_, std::memory_order_release);
}

}  // namespace bridge
