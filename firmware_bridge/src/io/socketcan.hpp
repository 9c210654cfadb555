// CAN through the kernel. The interface and its bitrate are the administrator's business (`ip link`).
#pragma once

#include "io/can.hpp"

namespace bridge {

class SocketCanBus final : public CanBus {
 public:
  explicit SocketCanBus(std::string interface, bool fd = false) : interface_(std::move(interface)), fd_frames_(fd) {}
  ~SocketCanBus() override { close(); }

  // PortError: ENODEV (no such interface), ENETDOWN, EAFNOSUPPORT (kernel without CAN), EPROTONOSUPPORT (no CAN-FD).
  // A bus-off counts as hung up: reopened once the interface is back (give it restart-ms).
  void open() override;
  void close() override;
  std::string name() const override { return interface_; }
  IoStatus send(const CanFrame& frame, Nanos deadline) override;
  IoStatus receive(CanFrame& frame, Nanos deadline, Nanos undisturbed_until = 0) override;
  std::size_t discard_input() override;
  std::uint64_t damaged() const override { return errors_; }

 private:
  const std::string interface_;
  const bool fd_frames_;
  void note_error(std::uint32_t kind);

  int fd_ = -1;
  bool bus_off_ = false;
  std::uint64_t errors_ = 0;  // error frames: bus-off, no acknowledgement, ...
};

}  // namespace bridge
