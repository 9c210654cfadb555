#include "drivers/line.hpp"

namespace bridge {
namespace {

constexpr Nanos kLongestSilenceWait = 10'000'000;

}  // namespace

// Counts what came too late.
IoStatus Line::settle() {
  if (interruption.asked()) return IoStatus::interrupted;
  std::uint8_t scratch[128];
  std::size_t got = 0;
  if (unsettled_) {
    const Nanos give_up = monotonic_now() + kLongestSilenceWait + silence_;
    while (monotonic_now() < give_up) {
      const IoStatus status = stream_->read_some(scratch, sizeof scratch, got, monotonic_now() + silence_);
      if (status == IoStatus::hung_up || status == IoStatus::interrupted) return status;
      if (status == IoStatus::timeout) break;
      counts_.late += got;
    }
    unsettled_ = false;
  }
  while (monotonic_now() < free_at_) {
    const IoStatus status = stream_->read_some(scratch, sizeof scratch, got, free_at_);
    if (status == IoStatus::hung_up || status == IoStatus::interrupted) return status;
    counts_.late += got;
  }
  counts_.late += stream_->discard_input();
  return IoStatus::ok;
}

Outcome Line::send(const std::uint8_t* request, std::size_t size, Nanos deadline) {
  if (size == 0) return Outcome::not_representable;
  const IoStatus silent = settle();
  if (silent != IoStatus::ok) return silent == IoStatus::interrupted ? Outcome::interrupted : Outcome::hung_up;
  ++counts_.transactions;
  const IoStatus status = stream_->write_all(request, size, deadline);
  return status == IoStatus::ok ? Outcome::done : give_up(status);
}

Outcome Line::give_up(IoStatus status) {
  unsettled_ = true;
  if (status == IoStatus::hung_up) return Outcome::hung_up;
  stream_->discard_output();  // of a port that hangs: an old target must not leave when it goes on
  if (status == IoStatus::interrupted) return Outcome::interrupted;
  ++counts_.timeouts;
  return Outcome::timeout;
}

}  // namespace bridge
