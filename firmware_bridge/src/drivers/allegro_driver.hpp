// Wonik Allegro Hand V4 and V5 over CAN: a hand that takes torques. The position loop is here, one turn per cycle.
#pragma once

#include <memory>

#include "codecs/allegro.hpp"
#include "core/limiter.hpp"
#include "drivers/can_line.hpp"

namespace bridge {

struct AllegroSettings {
  allegro::Version version = allegro::Version::v5;
  std::uint8_t device = 0;
  bool left = false;
  double rate_hz = 333.0;
  double reply_timeout_s = 0.030;
  double stiffness_nm_rad = 0.6;
  double damping_nm_s_rad = 0.03;
  double max_torque_nm = 0.15;
  double supply_v = 12.0;      // V4: 12, or 8 for the older hands
  bool trust_version = false;  // the user vouches for version and side
  char hardware = 0;           // V5: 'A', 'B' (another gear at joints 1, 5 and 9), or 0: as the serial number says
  int first_motor = 0;         // whether the hand's error frames count motors from 0 or from 1
};

// The board keeps the last torque until it gets another. So: torques go out only in cycles that command a pose, with a
// pose of the hand that is fresh; in any other cycle zeros go out.
class AllegroDriver final : public Driver {
 public:
  static constexpr int kJoints = 16;
  static constexpr double kLowestRate_hz = 200.0;

  AllegroDriver(std::unique_ptr<CanBus> bus, const AllegroSettings& settings,
                const std::array<JointLimits, kMaxJoints>& limits);
  ~AllegroDriver() override { disconnect(); }

  void connect() override;
  void disconnect() override;
  Outcome read_pose(std::uint64_t cycle, Joints& q_rad) override;
  Outcome write_pose(const Joints& q_rad) override;
  Outcome read_news(std::uint64_t cycle, Nanos until, Telemetry& telemetry, News& news) override;
  Outcome clear_errors() override;
  Outcome release() override;
  int joints() const override { return kJoints; }
  BusCounts counts() const override;
  bool low_latency() const override { return line_.low_latency(); }

 private:
  using Units = std::array<std::int16_t, kJoints>;

  void identify();
  bool hear(const CanFrame& frame);
  void take_set(Nanos now);
  Outcome listen(Nanos deadline, bool (AllegroDriver::*enough)() const);
  bool has_new_set() const { return new_set_; }
  bool has_said_all() const { return info_told_ && serial_told_; }
  Outcome say(std::uint8_t what);
  Outcome ask(std::uint8_t what);
  Outcome set_periods();
  Outcome send_torques(const Units& units);
  Outcome send_zeros();
  Outcome start();
  bool fresh(Nanos now) const { return last_set_ != 0 && now - last_set_ <= kStale; }

  static constexpr Nanos kStale = 20'000'000;

  CanLine line_;
  const AllegroSettings settings_;
  const std::array<JointLimits, kMaxJoints> limits_;
  const int period_ms_;
  const double filter_;  // share of the old velocity that stays, per set
  bool open_ = false;
  bool type_b_ = false;

  // what was heard
  std::array<std::int16_t, kJoints> counts_{};
  std::uint32_t fingers_ = 0;  // of the set that is coming in
  bool new_set_ = false;
  Nanos last_set_ = 0, complained_ = 0;
  Joints q_rad_{}, v_rad_s_{};
  bool moved_once_ = false;
  std::array<std::uint8_t, kJoints> temperature_c_{}, error_bits_{};
  std::uint32_t temperatures_ = 0;
  bool info_told_ = false, serial_told_ = false;
  std::array<std::int32_t, 8> info_{}, serial_{};

  // what was said
  bool wrote_ = false, torque_on_ = false;
  Joints target_{};
  bool has_target_ = false;

  const std::uint64_t health_every_, info_every_;
  std::uint64_t next_health_ = 0, next_info_ = 0;
};

}  // namespace bridge
