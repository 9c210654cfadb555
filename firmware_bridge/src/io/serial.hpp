// A serial port: raw 8N1, any baud the driver takes, exclusive.
#pragma once

#include "io/stream.hpp"

namespace bridge {

class SerialPort final : public ByteStream {
 public:
  SerialPort(std::string path, int baud) : path_(std::move(path)), baud_(baud) {}
  ~SerialPort() override { close(); }

  // PortError: ENOENT, EACCES, EBUSY (another process has it), ENOTTY, EINVAL (baud).
  void open() override;
  void close() override;
  void discard_output() override;
  std::string name() const override { return path_; }
  bool low_latency() const override { return low_latency_; }
  Nanos wire_time(std::size_t bytes) const override {
    return static_cast<Nanos>(bytes) * 10 * kNanosPerSecond / baud_;
  }

 private:
  const std::string path_;
  const int baud_;
  bool low_latency_ = false;
};

// For bauds without a termios constant (TCSETS2 and BOTHER). Returns 0 or errno.
int set_any_baud(int fd, int baud);

}  // namespace bridge
