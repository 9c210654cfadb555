// Inspire RH56 (map A) over any of its wires.
#pragma once

#include "core/limiter.hpp"
#include "drivers/inspire_wires.hpp"

namespace bridge {

struct InspireSettings {
  double rate_hz = 100.0;
  int speed = 1000;           // SPEED_SET, 0..1000
  int force_g = 500;          // FORCE_SET: closing stops there
  bool trust_family = false;  // the user vouches for register map A
};

class InspireDriver final : public Driver {
 public:
  InspireDriver(std::unique_ptr<InspireWire> wire, const InspireSettings& settings,
                const std::array<JointLimits, kMaxJoints>& limits);

  void connect() override;
  void disconnect() override { wire_->close(); }
  Outcome read_pose(std::uint64_t cycle, Joints& q_rad) override;
  Outcome write_pose(const Joints& q_rad) override;
  Outcome read_news(std::uint64_t cycle, Nanos until, Telemetry& telemetry, News& news) override;
  Outcome clear_errors() override;
  Outcome calibrate() override;
  int joints() const override { return inspire::kJoints; }
  BusCounts counts() const override;
  bool low_latency() const override { return wire_->low_latency(); }

 private:
  struct Errand {  // something read now and then
    News news;
    std::uint16_t address;
    std::size_t bytes;
    std::uint64_t every_cycles;
    std::uint64_t next_cycle;
  };

  Outcome read_words(std::uint16_t address, std::int16_t* words);
  Outcome write_words(std::uint16_t address, const std::int16_t* words);
  bool errand_due(std::uint64_t cycle) const;
  void identify();
  void set_and_verify(std::uint16_t address, int value, const char* name);

  std::unique_ptr<InspireWire> wire_;
  const InspireSettings settings_;
  const std::array<JointLimits, kMaxJoints> limits_;
  std::uint64_t implausible_ = 0;
  // At high rates a cycle has no room for a third transaction: an errand then replaces the pose reading.
  const bool tight_;
  bool instead_ = false;  // of the pose an errand, in this cycle
  SpareTime spare_;
  std::array<Errand, 4> errands_;
};

}  // namespace bridge
