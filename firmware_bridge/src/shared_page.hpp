// What a running loop shows and is told from outside: one block of plain memory, the process's own or a file that other
// processes map. They read it whole without the loop's help, and the e-stop word in it reaches the loop whatever its
// process is doing.
#pragma once

#include <memory>
#include <string>

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
  float current_a[kMaxJoints] = {};
};

// What the kernel granted; the loop runs without, and says so.
struct Grants {
  bool realtime = false;       // SCHED_FIFO
  bool memory_locked = false;  // mlockall, or at least the loop's own memory
  bool low_latency = false;    // ASYNC_LOW_LATENCY on the port
  std::int32_t thread = 0;     // kernel's number of the loop's thread
};

struct SharedPage {
  static constexpr std::uint64_t kMagic = 0x31444e4148304842;  // "BH0HAND1"
  static constexpr std::uint32_t kLayout = 1;                  // raised with every change of anything in here
  static constexpr std::size_t kCycles = 8192;

  std::uint64_t magic = kMagic;
  std::uint32_t layout = kLayout;
  std::uint32_t bytes = sizeof(SharedPage);
  std::int32_t joints = 0;
  std::int32_t process = 0;
  std::atomic<std::uint32_t> estop{0};  // anybody sets it by ask_estop, the loop takes it
  Seqlock<Snapshot> snapshot;
  Seqlock<Grants> grants;
  LatenessHistogram lateness;
  CycleRing<CycleRecord, kCycles> cycles;

  void ask_estop();  // wakes the loop
};
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

// The memory of a page. Raises PortError.
class MappedPage {
 public:
  static MappedPage own();                            // of this process alone
  static MappedPage create(const std::string& path);  // a new file; EEXIST if there is one
  static MappedPage open(const std::string& path);    // of another process; EPROTO if it is no such page

  SharedPage& operator*() const { return *page_; }
  SharedPage* operator->() const { return page_.get(); }

 private:
  struct Unmap {
    void operator()(SharedPage* page) const;
  };
  explicit MappedPage(SharedPage* page) : page_(page) {}
  std::unique_ptr<SharedPage, Unmap> page_;
};

}  // namespace bridge
