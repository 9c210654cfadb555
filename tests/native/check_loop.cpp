// The real-time loop and the threads around it, for ThreadSanitizer: commands, e-stops, readers and a second mapping of
// the shared page, all at once against a hand that is only memory. Prints what happened; exits with 1 if a promise broke.
// Built by check_loop.sh.
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "io/stream.hpp"
#include "loop.hpp"

namespace {

using namespace bridge;

constexpr int kJoints = 6;
constexpr double kRate_hz = 500.0;

class Memory final : public Driver {  // called by the loop's thread only
 public:
  void connect() override {}
  void disconnect() override {}
  Outcome read_pose(std::uint64_t, Joints& q_rad) override {
    q_rad = pose_;
    return Outcome::done;
  }
  Outcome write_pose(const Joints& q_rad) override {
    pose_ = q_rad;
    return Outcome::done;
  }
  Outcome read_news(std::uint64_t cycle, Nanos, Telemetry& telemetry, News& news) override {
    if (cycle % 10 != 0) return Outcome::nothing;
    std::fill(telemetry.error_bits, telemetry.error_bits + kJoints, 0u);
    news = News::health;
    return Outcome::done;
  }
  Outcome clear_errors() override { return Outcome::done; }
  int joints() const override { return kJoints; }
  BusCounts counts() const override { return {}; }
  bool low_latency() const override { return false; }

 private:
  Joints pose_{};
};

void rest(int milliseconds) { std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds)); }

}  // namespace

int main(int count, char** arguments) {
  const double seconds_ = count > 1 ? std::atof(arguments[1]) : 3.0;
  std::array<JointLimits, kMaxJoints> limits{};
  for (auto& limit : limits) limit = {0.0, 1.5, 2.0, 20.0, 500.0};
  const std::string path = "/tmp/beingh0-check-loop." + std::to_string(getpid());
  Loop loop(std::make_unique<Memory>(), limits, Safety(), kRate_hz, 70, MappedPage::create(path));
  MappedPage outside = MappedPage::open(path);
  unlink(path.c_str());
  loop.start();

  std::atomic<bool> ends{false};
  std::atomic<long> followed{0}, stopped{0}, unanswered{0}, read{0}, torn{0};
  const auto asked = [&](const Loop::Answer& answer) {
    if (!answer.answered) ++unanswered;
    return answer.answered && answer.verdict == Verdict::accepted;
  };
  std::thread policy([&] {
    for (int i = 0; !ends; ++i) {
      asked(loop.arm());
      const double t[] = {0.0, 0.2}, goal = 0.1 + 0.05 * (i % 20);
      double q[2 * kJoints];
      for (int j = 0; j < kJoints; ++j) q[j] = q[kJoints + j] = goal;
      std::string problem;
      followed += asked(loop.follow(Trajectory::make(t, q, 2, kJoints, limits, problem), 0.0));
      rest(3);
    }
  });
  std::thread supervisor([&] {
    while (!ends) {
      rest(450);  // after a reset the hand has to report for a quarter of a second
      outside->ask_estop();
      const Nanos give_up = monotonic_now() + 2 * kNanosPerSecond;
      Snapshot now;
      while (outside->snapshot.load(now) && now.state != State::estop && monotonic_now() < give_up) rest(1);
      stopped += now.state == State::estop;
      rest(10);
      asked(loop.reset());
    }
  });
  std::thread reader([&] {
    while (!ends) {
      Snapshot now;
      if (outside->snapshot.load(now)) ++read;
      for (int j = 1; j < kJoints; ++j) torn += std::abs(now.commanded_rad[j] - now.commanded_rad[0]) > 1e-9;
      for (const CycleRecord& record : outside->cycles.last(50))
        for (int j = 1; j < kJoints; ++j) torn += std::abs(record.commanded_rad[j] - record.commanded_rad[0]) > 1e-9;
      outside->lateness.percentile_ms(0.99);
      rest(1);
    }
  });
  rest(static_cast<int>(1e3 * seconds_));
  ends = true;
  policy.join();
  supervisor.join();
  reader.join();
  loop.close();
  std::printf("%ld trajectories, %ld e-stops, %ld snapshots; %ld unanswered, %ld torn\n", followed.load(), stopped.load(),
              read.load(), unanswered.load(), torn.load());
  return followed > 0 && stopped > 0 && read > 0 && unanswered == 0 && torn == 0 ? 0 : 1;
}
