// CAN through an slcan adapter on a serial port: needs no kernel support for CAN.
#pragma once

#include <memory>

#include "codecs/slcan.hpp"
#include "io/can.hpp"
#include "io/serial.hpp"

namespace bridge {

class SlcanBus final : public CanBus {
 public:
  // `bitrate_code`: the digit of the S command; 8 is 1 Mbit/s. `fd`: CAN-FD with data at 5 Mbit/s (CANable's Y5).
  SlcanBus(std::string path, int baud, char bitrate_code, bool fd = false)
      : port_(std::move(path), baud), code_(bitrate_code), fd_(fd) {}
  ~SlcanBus() override { close(); }

  void open() override;
  void close() override;
  std::string name() const override { return port_.name(); }
  IoStatus send(const CanFrame& frame, Nanos deadline) override;
  IoStatus receive(CanFrame& frame, Nanos deadline, Nanos undisturbed_until = 0) override;
  std::size_t discard_input() override;
  std::uint64_t damaged() const override { return lines_.damaged() + lines_.refused(); }
  bool low_latency() const override { return port_.low_latency(); }

 private:
  SerialPort port_;
  const char code_;
  const bool fd_;
  std::uint64_t refused_before_ = 0;
  int refused_in_a_row_ = 0;  // frames we sent that the adapter did not take
  bool torn_ = false;         // the last line may not have left whole
  slcan::LineStream lines_;
};

}  // namespace bridge
