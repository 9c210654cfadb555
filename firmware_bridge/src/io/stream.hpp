// A line that carries bytes: a serial port or a TCP connection. Deadlines everywhere, never blocking, never draining.
#pragma once

#include <atomic>
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

enum class IoStatus : std::uint8_t { ok, timeout, hung_up, interrupted };

// What ends the waits of this thread before their time, with IoStatus::interrupted: a word that is not 0 while somebody
// waits for an e-stop. Without a word nothing does.
struct Interruption {
  const std::atomic<std::uint32_t>* word = nullptr;
  bool on = true;  // off while the stop itself is on its way: a second e-stop must not cut it short

  bool possible() const { return on && word != nullptr; }
  bool asked() const { return possible() && word->load(std::memory_order_acquire) != 0; }
};
inline thread_local Interruption interruption;

// What must be said to the end, whoever asks for a stop: a farewell that takes the torque off.
class Undisturbed {
 public:
  Undisturbed() { interruption.on = false; }
  ~Undisturbed() { interruption.on = before_; }
  Undisturbed(const Undisturbed&) = delete;
  Undisturbed& operator=(const Undisturbed&) = delete;

 private:
  const bool before_ = interruption.on;
};

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
  // Waits until at least one byte is there, the deadline has passed, or the line is gone; as wait_for.
  IoStatus read_some(std::uint8_t* data, std::size_t capacity, std::size_t& got, Nanos deadline,
                     Nanos undisturbed_until = 0);
  // What has arrived already, without waiting; 0 if nothing has.
  std::size_t read_now(std::uint8_t* data, std::size_t capacity);
  // Throws away what has arrived; returns how many bytes that was.
  std::size_t discard_input();
  // Throws away what was written and has not left yet, where the port can do that.
  virtual void discard_output() {}

 protected:
  int fd_ = -1;
};

// Waits for poll `events` on a descriptor; hung_up when it reports nothing but an error or a hang-up, interrupted when
// the thread's Interruption is asked for and `undisturbed_until` has passed.
IoStatus wait_for(int fd, short events, Nanos deadline, Nanos undisturbed_until = 0);

}  // namespace bridge
