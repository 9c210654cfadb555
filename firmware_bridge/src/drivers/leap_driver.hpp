// LEAP hand: sixteen Dynamixel servos on one half-duplex line, current-based position control in the servos.
#pragma once

#include <memory>

#include "codecs/dynamixel.hpp"
#include "core/limiter.hpp"
#include "drivers/line.hpp"

namespace bridge {

struct LeapSettings {
  double rate_hz = 100.0;
  double reply_timeout_s = 0.030;
  int current_ma = 350;    // goal current: how hard a joint may push
  int p_gain = 600;
  int d_gain = 200;
  bool fast_read = true;   // one joint answer instead of sixteen; older firmware lacks it
};

class LeapDriver final : public Driver {
 public:
  static constexpr int kServos = 16;

  LeapDriver(std::unique_ptr<ByteStream> stream, const LeapSettings& settings,
             const std::array<JointLimits, kMaxJoints>& limits);

  void connect() override;
  void disconnect() override { line_.close(); }
  Outcome read_pose(std::uint64_t cycle, Joints& q_rad) override;
  Outcome write_pose(const Joints& q_rad) override;
  Outcome read_news(std::uint64_t cycle, Nanos until, Telemetry& telemetry, News& news) override;
  Outcome clear_errors() override;
  Outcome release() override;
  int joints() const override { return kServos; }
  BusCounts counts() const override { return with(line_.counts(), statuses_.counts()); }
  bool low_latency() const override { return line_.low_latency(); }

 private:
  using Answers = std::array<std::array<std::uint8_t, 16>, kServos>;  // data of each servo

  // The same registers of all servos. Missing or refusing servos make it fail; `answered` says which did answer.
  Outcome read_all(std::uint16_t address, std::uint16_t count, Answers& out, std::uint32_t* answered = nullptr);
  Outcome write_all(std::uint16_t address, std::uint16_t count, const std::uint8_t* data);
  Outcome write_same(std::uint16_t address, std::uint16_t count, std::uint32_t value);
  bool take_part(std::uint8_t id, std::uint8_t error, const std::uint8_t* data, std::uint16_t count, Answers& out,
                 std::uint32_t& answered);
  void identify();
  void configure();
  Outcome configure_ram();

  Line line_;
  const LeapSettings settings_;
  const std::array<JointLimits, kMaxJoints> limits_;
  dynamixel::StatusStream statuses_;
  dynamixel::Status status_;
  Answers answers_{};
  SpareTime spare_;
  bool fast_ = true;
  bool torque_on_ = false;
  bool alert_ = false;             // a servo raised its alert bit: look at its error register now
  std::uint32_t faulty_ = 0;       // servos with a hardware error
  std::array<float, kServos> current_a_{};
  std::array<std::uint8_t, kServos> hardware_error_{};
  Nanos rebooted_until_ = 0;
  const std::uint64_t health_every_, current_every_, temperature_every_;
  std::uint64_t next_health_ = 0, next_current_ = 0, next_temperature_ = 0;
};

}  // namespace bridge
