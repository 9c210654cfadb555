// PSYONIC Ability Hand over UART or RS-485, with byte stuffing.
#pragma once

#include <memory>

#include "codecs/ability.hpp"
#include "core/limiter.hpp"
#include "drivers/line.hpp"

namespace bridge {

struct AbilitySettings {
  double rate_hz = 100.0;
  double reply_timeout_s = 0.030;
  std::uint8_t address = ability::kDefaultAddress;
  double counts_per_ampere = 620.606;
  bool stall_is_fault = false;  // a finger that meets something is limited: a grasp as well as a blocked joint
};

// Every cycle asks for the state, also when nothing moves: 300 ms without a frame and the hand leaves the API and may
// move by itself. That is its own watchdog when the bridge has gone.
class AbilityDriver final : public Driver {
 public:
  AbilityDriver(std::unique_ptr<ByteStream> stream, const AbilitySettings& settings,
                const std::array<JointLimits, kMaxJoints>& limits)
      : line_(std::move(stream), settings.reply_timeout_s), settings_(settings), limits_(limits),
        status_every_(cycles_between(settings.rate_hz, 10)), current_every_(cycles_between(settings.rate_hz, 5)) {}

  void connect() override;
  void disconnect() override;
  Outcome read_pose(std::uint64_t cycle, Joints& q_rad) override;
  Outcome write_pose(const Joints& q_rad) override;
  Outcome read_news(std::uint64_t cycle, Nanos until, Telemetry& telemetry, News& news) override;
  Outcome clear_errors() override { return Outcome::nothing; }  // a limit ends with the next opening
  int joints() const override { return ability::kJoints; }
  BusCounts counts() const override { return with(line_.counts(), replies_.counts()); }
  bool low_latency() const override { return line_.low_latency(); }

 private:
  Outcome exchange(const ability::Frame& frame, std::size_t size, std::uint8_t header);
  Outcome ask();
  static double sign(int joint);

  Line line_;
  const AbilitySettings settings_;
  const std::array<JointLimits, kMaxJoints> limits_;
  ability::ReplyStream replies_;
  ability::Reply reply_;
  const std::uint64_t status_every_, current_every_;
  std::uint64_t next_status_ = 0, next_current_ = 0;
};

}  // namespace bridge
