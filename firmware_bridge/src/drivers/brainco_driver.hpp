// BrainCo Revo2 over Modbus RTU, over the same frames inside CAN-FD, and over CAN 2.0.
#pragma once

#include <memory>

#include "core/limiter.hpp"
#include "drivers/modbus_line.hpp"

namespace bridge {

constexpr int kRevo2Fingers = 6;
using Revo2Values = std::array<std::uint16_t, kRevo2Fingers>;

// What the driver needs of a wire. Positions are 0 (open) to 1000 (closed).
class Revo2Wire {
 public:
  virtual ~Revo2Wire() = default;
  virtual void open() = 0;  // raises PortError
  virtual void close() = 0;
  virtual std::string name() const = 0;
  virtual bool low_latency() const = 0;
  virtual BusCounts counts() const = 0;

  // Reads what tells a Revo2 from other hands; `problem` says what is strange. Writes nothing.
  virtual Outcome identify(bool left, std::string& problem) = 0;
  // Makes positions per mille, if they are not.
  virtual Outcome prepare() = 0;
  virtual Outcome read(Revo2Values& positions) = 0;
  virtual Outcome read_states(Revo2Values& states) = 0;
  virtual Outcome write(const Revo2Values& positions) = 0;
};

class Revo2RegisterWire final : public Revo2Wire {
 public:
  Revo2RegisterWire(std::unique_ptr<ModbusLine> line, int speed) : line_(std::move(line)), speed_(speed) {}

  void open() override { line_->open(); }
  void close() override { line_->close(); }
  std::string name() const override { return line_->name(); }
  bool low_latency() const override { return line_->low_latency(); }
  BusCounts counts() const override { return line_->counts(); }
  Outcome identify(bool left, std::string& problem) override;
  Outcome prepare() override;
  Outcome read(Revo2Values& positions) override;
  Outcome read_states(Revo2Values& states) override;
  Outcome write(const Revo2Values& positions) override;

 private:
  std::unique_ptr<ModbusLine> line_;
  const int speed_;
};

// Standard frames, whole percents, and sets that are not answered: what arrived shows in the next positions.
class Revo2CanWire final : public Revo2Wire {
 public:
  Revo2CanWire(std::unique_ptr<CanBus> bus, std::uint8_t slave, double reply_timeout_s)
      : line_(std::move(bus), reply_timeout_s), slave_(slave) {}

  void open() override { line_.open(); }
  void close() override { line_.close(); }
  std::string name() const override { return line_.name(); }
  bool low_latency() const override { return line_.low_latency(); }
  BusCounts counts() const override { return line_.with_damage(); }
  Outcome identify(bool left, std::string& problem) override;
  Outcome prepare() override;
  Outcome read(Revo2Values& positions) override { return ask(kPositions, positions); }
  Outcome read_states(Revo2Values& states) override { return ask(kStates, states); }
  Outcome write(const Revo2Values& positions) override;

 private:
  static constexpr std::uint8_t kPositions = 5, kStates = 8;  // commands; speeds and currents lie between
  Outcome ask(std::uint8_t command, Revo2Values& values);
  Outcome unit_mode(int& mode);
  CanFrame frame(std::uint8_t command, const std::uint8_t* data, std::size_t size) const;

  CanLine line_;
  const std::uint8_t slave_;
};

struct Revo2Settings {
  double rate_hz = 100.0;
  bool left = false;
  bool stall_is_fault = false;  // a finger that meets something stalls: a grasp as well as a blocked joint
  bool trust_family = false;    // the user vouches for a Revo2
};

class Revo2Driver final : public Driver {
 public:
  Revo2Driver(std::unique_ptr<Revo2Wire> wire, const Revo2Settings& settings,
              const std::array<JointLimits, kMaxJoints>& limits);

  void connect() override;
  void disconnect() override { wire_->close(); }
  Outcome read_pose(std::uint64_t cycle, Joints& q_rad) override;
  Outcome write_pose(const Joints& q_rad) override;
  Outcome read_news(std::uint64_t cycle, Nanos until, Telemetry& telemetry, News& news) override;
  Outcome clear_errors() override { return Outcome::nothing; }  // the hand has no such command
  int joints() const override { return kRevo2Fingers; }
  BusCounts counts() const override;
  bool low_latency() const override { return wire_->low_latency(); }

 private:
  std::unique_ptr<Revo2Wire> wire_;
  const Revo2Settings settings_;
  const std::array<JointLimits, kMaxJoints> limits_;
  std::uint64_t implausible_ = 0;
  SpareTime spare_;
  const std::uint64_t states_every_;
  std::uint64_t next_states_ = 0;
};

}  // namespace bridge
