// Inspire RH56 (map A) over its private RS-485 frame.
#pragma once

#include "codecs/inspire_rs485.hpp"
#include "core/limiter.hpp"
#include "drivers/driver.hpp"
#include "io/serial.hpp"

namespace bridge {

struct InspireSettings {
  std::string port;
  int baud = 115200;
  int device_id = 1;
  double rate_hz = 100.0;
  double reply_timeout_s = 0.030;  // beyond the wire time; covers a USB adapter with a 16 ms latency timer
  int speed = 1000;                // SPEED_SET, 0..1000
  int force_g = 500;               // FORCE_SET: closing stops there
  bool trust_family = false;       // the user vouches for register map A
};

class InspireRs485Driver final : public Driver {
 public:
  InspireRs485Driver(const InspireSettings& settings, const std::array<JointLimits, kMaxJoints>& limits);

  void connect() override;
  void disconnect() override;
  Outcome read_pose(std::uint64_t cycle, Joints& q_rad) override;
  Outcome write_pose(const Joints& q_rad) override;
  Outcome read_news(std::uint64_t cycle, Telemetry& telemetry, News& news) override;
  Outcome clear_errors() override;
  int joints() const override { return inspire::kJoints; }
  BusCounts counts() const override;
  bool low_latency() const override { return port_.low_latency(); }

 private:
  struct Errand {  // something read now and then
    News news;
    std::uint16_t address;
    std::size_t bytes;
    std::uint64_t every_cycles;
    std::uint64_t next_cycle;
  };

  Outcome transact(const inspire::Frame& request, std::size_t size, const inspire::Expected& expected);
  Outcome read(std::uint16_t address, std::size_t bytes);
  Outcome write(std::uint16_t address, const std::uint8_t* data, std::size_t size);
  Outcome write_words(std::uint16_t address, const std::int16_t* words);
  bool errand_due(std::uint64_t cycle) const;
  void identify();
  void set_and_verify(std::uint16_t address, int value, const char* name);
  Nanos wire_time(std::size_t bytes) const;

  InspireSettings settings_;
  std::array<JointLimits, kMaxJoints> limits_;
  SerialPort port_;
  inspire::ReplyStream stream_;
  inspire::Reply reply_;
  BusCounts counts_;
  bool needs_silence_ = false;
  // At high rates a cycle has no room for a third transaction: an errand then replaces the pose reading.
  bool tight_ = false;
  std::array<Errand, 4> errands_;
};

}  // namespace bridge
