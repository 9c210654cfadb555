// LinkerHand O6, L6, L7, L10 and L20 over CAN.
#pragma once

#include <memory>

#include "codecs/linkerhand.hpp"
#include "core/limiter.hpp"
#include "drivers/can_line.hpp"

namespace bridge {

struct LinkerhandSettings {
  linkerhand::Model model = linkerhand::Model::o6;
  std::uint32_t can_id = 0x27;  // 0x27 right, 0x28 left
  char side = 'R';
  int degrees = 6;              // what the hand says about itself when asked for its version
  double rate_hz = 100.0;
  double reply_timeout_s = 0.030;
  double frame_gap_s = 0.0015;  // least time between our frames; the maker's libraries pause 1.5 to 5 ms
  int speed = 255;
  int torque = 180;
  bool trust_model = false;     // the user vouches for the model
  // Where each joint of ours stands in the hand's own order; what is left out keeps its place.
  std::array<int, kMaxJoints> wire{};
};

class LinkerhandDriver final : public Driver {
 public:
  LinkerhandDriver(std::unique_ptr<CanBus> bus, const LinkerhandSettings& settings, int joints,
                   const std::array<JointLimits, kMaxJoints>& limits);

  void connect() override;
  void disconnect() override { line_.close(); }
  Outcome read_pose(std::uint64_t cycle, Joints& q_rad) override;
  Outcome write_pose(const Joints& q_rad) override;
  Outcome read_news(std::uint64_t cycle, Nanos until, Telemetry& telemetry, News& news) override;
  Outcome clear_errors() override;
  int joints() const override { return joints_; }
  BusCounts counts() const override { return line_.with_damage(); }
  bool low_latency() const override { return line_.low_latency(); }

 private:
  using Values = std::array<std::uint8_t, linkerhand::kMostJoints>;

  // A frame out, the frame of the same tag back; its values go to `out` from joint `first` on.
  Outcome exchange(const CanFrame& request, std::size_t values, std::uint8_t* out);
  Outcome read(linkerhand::Quantity quantity, Values& out);
  Outcome write(linkerhand::Quantity quantity, const Values& values);
  void identify();
  void set_and_verify(linkerhand::Quantity quantity, int value, const char* name);

  CanLine line_;
  const LinkerhandSettings settings_;
  const int joints_;
  const std::array<JointLimits, kMaxJoints> limits_;
  Values measured_{};  // in the hand's order; what we do not drive is sent back as it is
  SpareTime spare_;
  const std::uint64_t faults_every_, temperature_every_;
  std::uint64_t next_faults_ = 0, next_temperature_ = 0;
};

}  // namespace bridge
