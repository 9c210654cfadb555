// A serial port for hard deadlines: raw 8N1, any baud the driver takes, exclusive, never blocking, never draining.
#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>

#include "core/types.hpp"

namespace bridge {

Nanos monotonic_now();

struct PortError : std::runtime_error {
  PortError(int number, const std::string& text) : std::runtime_error(text), error(number) {}
  int error;
};

enum class IoStatus : std::uint8_t { ok, timeout, hung_up };

class SerialPort {
 public:
  SerialPort() = default;
  ~SerialPort() { close(); }
  SerialPort(const SerialPort&) = delete;
  SerialPort& operator=(const SerialPort&) = delete;

  // Raises PortError: ENOENT, EACCES, EBUSY (another process has it), ENOTTY, EINVAL (baud).
  void open(const std::string& path, int baud);
  void close();
  bool is_open() const { return fd_ >= 0; }
  bool low_latency() const { return low_latency_; }

  IoStatus write_all(const std::uint8_t* data, std::size_t size, Nanos deadline);
  // Waits until at least one byte is there, the deadline has passed, or the port is gone.
  IoStatus read_some(std::uint8_t* data, std::size_t capacity, std::size_t& got, Nanos deadline);
  // Throws away what has arrived; returns how many bytes that was.
  std::size_t discard_input();

 private:
  int fd_ = -1;
  bool low_latency_ = false;
};

// For bauds without a termios constant (TCSETS2 and BOTHER). Returns 0 or errno.
int set_any_baud(int fd, int baud);

}  // namespace bridge
