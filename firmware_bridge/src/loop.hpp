// The fixed-rate loop: one thread per hand, absolute deadlines, no Python, no lock, no allocation, no logging.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "core/controller.hpp"
#include "core/shared.hpp"
#include "drivers/driver.hpp"

namespace bridge {

struct Snapshot {
  Nanos t = 0;
  std::uint64_t cycle = 0;
  std::uint64_t missed_deadlines = 0;
  State state = State::disconnected;
  Reason reason = Reason::none;
  bool settled = true;
  bool stop_delivered = true;
  Nanos measured_at = 0;
  Joints measured_rad{};
  Joints commanded_rad{};
  Telemetry telemetry{};
  BusCounts counts{};
};

struct CycleRecord {
  Nanos t = 0;
  Nanos late = 0;
  State state = State::disconnected;
  Reason reason = Reason::none;
  Outcome read = Outcome::nothing;
  Outcome written = Outcome::nothing;
  Joints measured_rad{};
  Joints commanded_rad{};
  float force_g[kMaxJoints] = {};
};

// What the kernel granted; the loop runs without, and says so.
struct Grants {
  bool realtime = false;       // SCHED_FIFO
  bool memory_locked = false;  // mlockall, or at least the loop's own memory
  bool low_latency = false;    // ASYNC_LOW_LATENCY on the port
};

class Loop {
 public:
  Loop(std::unique_ptr<Driver> driver, const std::array<JointLimits, kMaxJoints>& limits, const Safety& safety,
       double rate_hz, int realtime_priority);
  ~Loop();
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  // Connects in the caller's thread (raises what Driver::connect raises), then starts the thread.
  void start();
  // Stops the hand, ends the thread, closes the port. Safe to call twice.
  void close();
  bool running() const { return thread_.joinable(); }

  // Requests answer at the end of the cycle that took them, after its transactions and its snapshot; `answered` is
  // false if the loop did not come round in time.
  struct Answer {
    bool answered = false;
    Verdict verdict = Verdict::accepted;
  };
  Answer arm() { return ask({Kind::arm, 0, nullptr, 0.0, 0}); }
  Answer follow(std::unique_ptr<Trajectory> trajectory, double elapsed_s) {
    return ask({Kind::follow, 0, trajectory.release(), elapsed_s, 0});
  }
  Answer stop(Reason reason) {
    return ask({reason == Reason::command_refused ? Kind::refuse : Kind::stop, 0, nullptr, 0.0, 0});
  }
  Answer reset() { return ask({Kind::reset, 0, nullptr, 0.0, 0}); }
  // Wait-free, safe from any thread and from a signal handler; acts in the next cycle, before the next write.
  void estop() { estop_.store(true, std::memory_order_release); }

  Snapshot snapshot() const { return snapshot_.load(); }
  Grants grants() const { return grants_.load(); }
  std::vector<CycleRecord> recent(std::size_t count) const { return ring_.last(count); }
  const LatenessHistogram& lateness() const { return lateness_; }
  int joints() const { return joints_; }

 private:
  enum class Kind : std::uint8_t { arm, follow, stop, refuse, reset };
  struct Request {
    Kind kind = Kind::stop;
    std::uint64_t id = 0;
    Trajectory* trajectory = nullptr;
    double elapsed_s = 0.0;
    Nanos expires = 0;
  };
  static constexpr std::size_t kRequests = 16;

  Answer ask(Request request);
  void collect_retired();
  void run();
  void prepare_thread();
  void cycle(Nanos deadline, Nanos late);
  void handle_requests(Nanos now);
  void take_estop(Nanos now);
  void account(Outcome outcome, Nanos now);
  void try_reconnect(Nanos now);
  void publish(Nanos now, Nanos late);

  std::unique_ptr<Driver> driver_;
  int joints_;
  Controller controller_;
  Nanos period_;
  int realtime_priority_;
  bool locked_all_ = false;
  int owner_ = 0;  // process id: a forked child has this object but not its thread

  // the loop's own
  std::uint64_t cycle_ = 0;
  std::uint64_t missed_ = 0;
  bool linked_ = false;
  Nanos retry_at_ = 0;
  Nanos retry_wait_ = 0;
  Telemetry telemetry_{};
  std::uint64_t handled_ = 0;  // newest request taken this cycle; answered when its effect is on the wire
  Outcome read_ = Outcome::nothing;
  Outcome written_ = Outcome::nothing;

  // shared
  Mailbox<Request, kRequests> requests_;
  Mailbox<Trajectory*, 2 * kRequests> retired_;
  std::atomic<std::uint64_t> answered_{0};
  std::atomic<Verdict> verdicts_[kRequests] = {};
  std::atomic<bool> estop_{false};
  std::atomic<bool> closing_{false};
  std::atomic<bool> ready_{false};
  Seqlock<Snapshot> snapshot_;
  Seqlock<Grants> grants_;
  CycleRing<CycleRecord> ring_;
  LatenessHistogram lateness_;

  std::mutex asking_;  // among user threads only
  std::uint64_t asked_ = 0;
  std::thread thread_;
};

}  // namespace bridge
