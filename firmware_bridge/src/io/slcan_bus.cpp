#include "io/slcan_bus.hpp"

#include <cerrno>
#include <cstring>

namespace bridge {
namespace {

constexpr Nanos kCommandTimeout = kNanosPerSecond / 2;
constexpr std::size_t kMostDiscarded = 1000;
constexpr int kRefusedIsBusOff = 3;
constexpr Nanos kSettle = kNanosPerSecond / 50;  // for the answers to the opening commands, which are not needed

}  // namespace

void SlcanBus::open() {
  port_.open();
  lines_.clear();
  refused_before_ = lines_.refused();
  refused_in_a_row_ = 0;
  torn_ = false;
  // Close (it may have been left open), bitrate, open.
  char commands[12] = {'\r', 'C', '\r', 'S', code_, '\r'};
  std::size_t size = 6;
  if (fd_)
    for (const char c : {'Y', '5', '\r'}) commands[size++] = c;
  for (const char c : {'O', '\r'}) commands[size++] = c;
  const Nanos deadline = monotonic_now() + kCommandTimeout;
  if (port_.write_all(reinterpret_cast<const std::uint8_t*>(commands), size, deadline) != IoStatus::ok) {
    port_.close();
    throw PortError(EIO, port_.name() + ": the CAN adapter does not take commands");
  }
  std::uint8_t scratch[64];
  std::size_t got = 0;
  const Nanos quiet = monotonic_now() + kSettle;
  while (port_.read_some(scratch, sizeof scratch, got, quiet) == IoStatus::ok) {
  }
}

void SlcanBus::close() {
  if (!port_.is_open()) return;
  const std::uint8_t command[] = {'C', '\r'};
  port_.write_all(command, sizeof command, monotonic_now() + kCommandTimeout);
  port_.close();
}

IoStatus SlcanBus::send(const CanFrame& frame, Nanos deadline) {
  // An adapter that refuses frame after frame is off the bus: only closing and opening it again helps.
  refused_in_a_row_ = lines_.refused() > refused_before_ ? refused_in_a_row_ + 1 : 0;
  refused_before_ = lines_.refused();
  if (refused_in_a_row_ >= kRefusedIsBusOff) return IoStatus::hung_up;
  slcan::Text text;
  const std::size_t size = slcan::encode(frame, text);
  if (size == 0) return IoStatus::timeout;
  IoStatus status = IoStatus::ok;
  if (torn_) {  // ends what may lie half in the adapter: that line is lost, this one must not be
    const std::uint8_t end[] = {'\r'};
    status = port_.write_all(end, sizeof end, deadline);
  }
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(text.data());
  if (status == IoStatus::ok) status = port_.write_all(bytes, size, deadline);
  torn_ = status != IoStatus::ok;
  if (torn_) port_.discard_output();
  return status;
}

IoStatus SlcanBus::receive(CanFrame& frame, Nanos deadline, Nanos undisturbed_until) {
  while (!lines_.take(frame)) {
    std::uint8_t bytes[256];
    std::size_t got = 0;
    const IoStatus status = port_.read_some(bytes, sizeof bytes, got, deadline, undisturbed_until);
    if (status != IoStatus::ok) return status;
    lines_.feed(bytes, got);
  }
  return IoStatus::ok;
}

std::size_t SlcanBus::discard_input() {
  std::size_t frames = 0;
  CanFrame frame;
  std::uint8_t bytes[256];
  while (frames < kMostDiscarded) {
    while (lines_.take(frame)) ++frames;
    const std::size_t got = port_.read_now(bytes, sizeof bytes);
    if (got == 0) break;
    lines_.feed(bytes, got);
  }
  return frames;
}

}  // namespace bridge
