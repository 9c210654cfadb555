// A line that carries bytes: a serial port or a TCP connection. Deadlines everywhere, never blocking, never draining.
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

class ByteStream {
 public:
  ByteStream() = default;
  virtual ~ByteStream() = default;
  ByteStream(const ByteStream&) = delete;
  ByteStream& operator=(const ByteStream&) = delete;

  virtual void open() = 0;  // raises PortError
  virtual void close();
  bool is_open() const { return fd_ >= 0; }
  virtual std::string name() const = 0;
  virtual bool low_latency() const { return false; }
  // How long this many bytes occupy the line; 0 where that is not known.
  virtual Nanos wire_time(std::size_t) const { return 0; }

  IoStatus write_all(const std::uint8_t* data, std::size_t size, Nanos deadline);
  // Waits until at least one byte is there, the deadline has passed, or the line is gone.
  IoStatus read_some(std::uint8_t* data, std::size_t capacity, std::size_t& got, Nanos deadline);
  // What has arrived already, without waiting; 0 if nothing has.
  std::size_t read_now(std::uint8_t* data, std::size_t capacity);
  // Throws away what has arrived; returns how many bytes that was.
  std::size_t discard_input();

 protected:
  int fd_ = -1;
};

// Waits for poll `events` on a descriptor; hung_up when it reports nothing but an error or a hang-up.
IoStatus wait_for(int fd, short events, Nanos deadline);

}  // namespace bridge
