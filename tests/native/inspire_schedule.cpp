// What an Inspire hand's driver reads per second, on a virtual clock and a wire that takes its bytes' time: the default
// schedule keeps its promise, also when cycles now and then have no room, and at the wire's limit the pose goes first.
#include <cstdio>
#include <cstring>
#include <map>

#include "drivers/inspire_driver.hpp"
#include "io/stream.hpp"
#include "session.hpp"

namespace {

using namespace bridge;

Nanos g_now = kNanosPerSecond;

class PacedWire final : public InspireWire {
 public:
  PacedWire(Nanos exchange, std::map<std::uint16_t, int>& counts) : exchange_(exchange), counts_(counts) {}
  void open() override {}
  void close() override {}
  std::string name() const override { return "paced"; }
  Outcome read(std::uint16_t address, std::size_t size, std::uint8_t* out) override {
    std::memset(out, 0, size);
    if (const auto at = kept_.find(address); at != kept_.end()) std::memcpy(out, at->second.data(), size);
    else if (address == inspire::map_a::angle_actual)
      for (std::size_t i = 0; i < size; i += 2) out[i] = 100;
    return took(address);
  }
  Outcome write(std::uint16_t address, const std::uint8_t* data, std::size_t size) override {
    if (address != inspire::map_a::angle_set) kept_[address].assign(data, data + size);
    return took(address);
  }
  Outcome write_byte(std::uint16_t address, std::uint8_t value) override { return write(address, &value, 1); }
  Nanos exchange_time() const override { return exchange_; }
  BusCounts counts() const override { return {}; }

 private:
  Outcome took(std::uint16_t address) {
    ++counts_[address];
    g_now += exchange_ + 60'000;  // and a little for everybody's reaction
    return Outcome::done;
  }
  const Nanos exchange_;
  std::map<std::uint16_t, int>& counts_;
  std::map<std::uint16_t, std::vector<std::uint8_t>> kept_;
};

class ArmsOnce final : public Requests {
 public:
  bool take_estop() override { return false; }
  void take(Nanos now, Controller& controller) override {
    if (controller.state() == State::idle) controller.arm(now);
  }
};

// `busy_every`: so many cycles the machine keeps the loop from running for 3 ms; 0: never.
void run(double rate_hz, int busy_every, double seconds_) {
  std::map<std::uint16_t, int> counts;
  std::array<JointLimits, kMaxJoints> limits{};
  for (auto& limit : limits) limit = {0.0, 1.5, 1.8, 18.0, 450.0};
  InspireSettings settings;
  settings.rate_hz = rate_hz;
  auto wire = std::make_unique<PacedWire>(nanos(290.0 / 115200), counts);
  Session session(std::make_unique<InspireDriver>(std::move(wire), settings, limits), limits, Safety(), rate_hz);
  ArmsOnce requests;
  session.connect();
  const Nanos period = nanos(1.0 / rate_hz);
  Nanos deadline = g_now + period;
  while (session.controller().state() != State::active) {
    g_now = std::max(g_now, deadline);
    session.cycle(deadline, requests, true);
    deadline = std::max(deadline + period, g_now);
  }
  counts.clear();
  const Nanos begin = g_now;
  for (int cycle = 0; g_now - begin < nanos(seconds_); ++cycle) {
    g_now = std::max(g_now, deadline);
    if (busy_every != 0 && cycle % busy_every == 0) g_now += 3'000'000;
    session.cycle(deadline, requests, true);
    deadline = std::max(deadline + period, g_now);
  }
  const double elapsed_s = seconds(g_now - begin);
  using namespace inspire;
  for (const auto& [name, address] :
       {std::pair{"write_angle", map_a::angle_set}, {"angle", map_a::angle_actual}, {"force", map_a::force_actual},
        {"error", map_a::error}, {"current", map_a::current}, {"temperature", map_a::temperature}})
    std::printf("%g %d %s %.2f\n", rate_hz, busy_every, name, counts[address] / elapsed_s);
}

}  // namespace

namespace bridge {
Nanos monotonic_now() { return g_now; }
}  // namespace bridge

int main() {
  run(100.0, 0, 60.0);
  run(100.0, 4, 60.0);
  run(198.0, 0, 60.0);
}
