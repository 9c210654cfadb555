// A CAN bus, whatever carries it.
#pragma once

#include "codecs/can_frame.hpp"
#include "io/stream.hpp"

namespace bridge {

class CanBus {
 public:
  virtual ~CanBus() = default;
  virtual void open() = 0;  // raises PortError
  virtual void close() = 0;
  virtual std::string name() const = 0;
  virtual IoStatus send(const CanFrame& frame, Nanos deadline) = 0;
  // The next frame of anybody; damaged ones are counted and skipped. Waits as wait_for.
  virtual IoStatus receive(CanFrame& frame, Nanos deadline, Nanos undisturbed_until = 0) = 0;
  // Throws away what has arrived; returns how many frames that was.
  virtual std::size_t discard_input() = 0;
  virtual std::uint64_t damaged() const { return 0; }
  virtual bool low_latency() const { return false; }
};

}  // namespace bridge
