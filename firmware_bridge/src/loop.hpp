// The fixed-rate loop: one thread per hand, absolute deadlines, no Python, no lock, no allocation, no logging.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "io/stream.hpp"
#include "session.hpp"
#include "shared_page.hpp"

namespace bridge {

class Loop final : private Requests {
 public:
  Loop(std::unique_ptr<Driver> driver, const std::array<JointLimits, kMaxJoints>& limits, const Safety& safety,
       double rate_hz, int realtime_priority, MappedPage page);
  ~Loop() override;
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
  Answer calibrate() { return ask({Kind::calibrate, 0, nullptr, 0.0, 0}); }
  // Never waits, safe from any thread and from a signal handler; acts as soon as the line is free.
  void estop() { page_->ask_estop(); }

  const SharedPage& page() const { return *page_; }

 private:
  enum class Kind : std::uint8_t { arm, follow, stop, refuse, reset, calibrate };
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
  bool take_estop() override { return page_->estop.exchange(0, std::memory_order_acq_rel) != 0; }
  void estop_taken() override { show(monotonic_now()); }
  void take(Nanos now, Controller& controller) override;
  Snapshot show(Nanos now);
  void publish(Nanos now, Nanos late);

  MappedPage page_;
  Session session_;
  Nanos period_;
  int realtime_priority_;
  bool locked_all_ = false;
  int owner_ = 0;  // process id: a forked child has this object but not its thread

  // the loop's own
  std::uint64_t missed_ = 0;
  std::uint64_t handled_ = 0;  // newest request taken this cycle; answered when its effect is on the wire

  // shared
  Mailbox<Request, kRequests> requests_;
  Mailbox<Trajectory*, 2 * kRequests> retired_;
  std::atomic<std::uint64_t> answered_{0};
  std::atomic<Verdict> verdicts_[kRequests] = {};
  std::atomic<bool> closing_{false};
  std::atomic<bool> ready_{false};

  std::mutex asking_;  // among user threads only
  std::uint64_t asked_ = 0;
  std::thread thread_;
};

}  // namespace bridge
