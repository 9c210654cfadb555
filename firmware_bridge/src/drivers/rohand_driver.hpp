// OYMotion ROHand, generations 1 and 2, over Modbus RTU.
#pragma once

#include <memory>

#include "core/limiter.hpp"
#include "drivers/modbus_line.hpp"

namespace bridge {

struct RohandSettings {
  double rate_hz = 60.0;
  int speed = 65535;           // units of position per second
  int current_ma = 600;        // limit of every motor
  bool stall_is_fault = false; // a finger that meets something stops: a grasp as well as a blocked joint
};

class RohandDriver final : public Driver {
 public:
  static constexpr int kFingers = 6;

  RohandDriver(std::unique_ptr<ModbusLine> line, const RohandSettings& settings,
               const std::array<JointLimits, kMaxJoints>& limits);

  void connect() override;
  void disconnect() override { line_->close(); }
  Outcome read_pose(std::uint64_t cycle, Joints& q_rad) override;
  Outcome write_pose(const Joints& q_rad) override;
  Outcome read_news(std::uint64_t cycle, Nanos until, Telemetry& telemetry, News& news) override;
  Outcome clear_errors() override { return Outcome::nothing; }  // errors end with their cause
  int joints() const override { return kFingers; }
  BusCounts counts() const override { return line_->counts(); }
  bool low_latency() const override { return line_->low_latency(); }

 private:
  using Words = std::array<std::uint16_t, kFingers>;

  Outcome read(std::uint16_t address, std::size_t count, std::uint16_t* words) {
    return line_->read(modbus::Function::read_holding, address, count, words);
  }
  void identify();
  void set_and_verify(std::uint16_t address, int value, const char* name);
  std::string why_refused();

  std::unique_ptr<ModbusLine> line_;
  const RohandSettings settings_;
  const std::array<JointLimits, kMaxJoints> limits_;
  int generation_ = 0;
  Words sent_{};       // the target the hand has acknowledged last
  Nanos sent_at_ = 0;  // 0: none
  SpareTime spare_;
  const std::uint64_t status_every_, current_every_, force_every_;
  std::uint64_t next_status_ = 0, next_current_ = 0, next_force_ = 0;
};

}  // namespace bridge
