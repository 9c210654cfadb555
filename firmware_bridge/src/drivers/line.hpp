// Requests and their answers on a line that carries bytes: deadlines, silence after an error, and what went wrong.
#pragma once

#include <algorithm>
#include <memory>

#include "codecs/parser_counts.hpp"
#include "drivers/driver.hpp"
#include "io/stream.hpp"

namespace bridge {

// What a parser counted, beside what the line counted itself.
inline BusCounts with(BusCounts counts, const ParserCounts& parser) {
  counts.checksum += parser.checksum;
  counts.length += parser.length;
  counts.garbage += parser.garbage;
  counts.echo += parser.echo;
  counts.foreign += parser.foreign;
  counts.truncated += parser.truncated;
  return counts;
}

inline std::uint64_t cycles_between(double rate_hz, double wanted_hz) {
  const double cycles = rate_hz / wanted_hz;
  return cycles < 1.0 ? 1 : static_cast<std::uint64_t>(cycles + 0.5);
}

class Line {
 public:
  // `silence`: after an error the line must have been silent this long before the next request, since a device that
  // missed a byte listens again only then. `gap`: least time from the end of an answer to the next request, where there
  // is one. Both are at least four characters, which slow lines take longer for.
  Line(std::unique_ptr<ByteStream> stream, double reply_timeout_s, Nanos silence = 3'000'000, Nanos gap = 0)
      : stream_(std::move(stream)), timeout_(nanos(reply_timeout_s)), silence_(std::max(silence, wire_time(4))),
        gap_(gap == 0 ? 0 : std::max(gap, wire_time(4))) {}

  void open() {
    stream_->open();
    unsettled_ = false;
    free_at_ = 0;
  }
  void close() { stream_->close(); }
  bool is_open() const { return stream_->is_open(); }
  std::string name() const { return stream_->name(); }
  bool low_latency() const { return stream_->low_latency(); }
  Nanos wire_time(std::size_t bytes) const { return stream_->wire_time(bytes); }
  Nanos gap() const { return gap_; }

  // Sends a request and waits for `reply_bytes`. `take(bytes, count)` is fed what arrives and returns
  // Outcome::nothing until the answer is complete; then the outcome. On a timeout the caller clears its parser.
  template <class Take>
  Outcome transact(const std::uint8_t* request, std::size_t size, std::size_t reply_bytes, Take&& take) {
    const Nanos deadline = monotonic_now() + gap_ + wire_time(size + reply_bytes) + timeout_;
    Outcome outcome = send(request, size, deadline);
    const Nanos undisturbed_until = monotonic_now() + wire_time(size + reply_bytes) + kTurnaround;
    while (outcome == Outcome::done) {
      std::uint8_t bytes[512];
      std::size_t got = 0;
      const IoStatus status = stream_->read_some(bytes, sizeof bytes, got, deadline, undisturbed_until);
      if (status != IoStatus::ok) return give_up(status);
      const Outcome taken = take(static_cast<const std::uint8_t*>(bytes), got);
      if (taken == Outcome::nothing) continue;
      free_at_ = monotonic_now() + gap_;
      if (taken == Outcome::refused) ++counts_.refused;
      return taken;
    }
    return outcome;
  }
  // A request that nobody answers.
  Outcome send(const std::uint8_t* request, std::size_t size) {
    return send(request, size, monotonic_now() + gap_ + wire_time(size) + timeout_);
  }
  // The answer to what was sent is of no use: the line is silent again before the next request.
  void want_silence() { unsettled_ = true; }

  const BusCounts& counts() const { return counts_; }
  BusCounts& counts() { return counts_; }

 private:
  Outcome send(const std::uint8_t* request, std::size_t size, Nanos deadline);
  Outcome give_up(IoStatus status);
  IoStatus settle();

  std::unique_ptr<ByteStream> stream_;
  const Nanos timeout_, silence_, gap_;
  bool unsettled_ = false;
  Nanos free_at_ = 0;
  BusCounts counts_;
};

}  // namespace bridge
