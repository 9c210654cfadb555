#include "drivers/line.hpp"

namespace bridge {
namespace {

constexpr Nanos kLongestSilenceWait = 10'000'000;

}  // namespace

// Counts what came too late.
IoStatus Line::settle() {
  std::uint8_t scratch[128];
  std::size_t got = 0;
  if (unsettled_) {
    const Nanos give_up = monotonic_now() + kLongestSilenceWait;
    while (monotonic_now() < give_up) {
      const IoStatus status = stream_->read_some(scratch, sizeof scratch, got, monotonic_now() + silence_);
      if (status == IoStatus::hung_up) return status;
      if (status == IoStatus::timeout) break;
      counts_.late += got;
    }
    unsettled_ = false;
  }
  while (monotonic_now() < free_at_) {
    if (stream_->read_some(scratch, sizeof scratch, got, free_at_) == IoStatus::hung_up) return IoStatus::hung_up;
    counts_.late += got;
  }
  counts_.late += stream_->discard_input();
  return IoStatus::ok;
}

Outcome Line::send(const std::uint8_t* request, std::size_t size, Nanos deadline) {
  if (size == 0) return Outcome::not_representable;
  if (settle() != IoStatus::ok) return Outcome::hung_up;
  ++counts_.transactions;
  const IoStatus status = stream_->write_all(request, size, deadline);
  return status == IoStatus::ok ? Outcome::done : give_up(status);
}

Outcome Line::give_up(IoStatus status) {
  unsettled_ = true;
  if (status == IoStatus::hung_up) return Outcome::hung_up;
  ++counts_.timeouts;
  return Outcome::timeout;
}

}  // namespace bridge
