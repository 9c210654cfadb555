// What the loop's thread and the user's threads share: no locks, no allocation, no waiting on the loop's side.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <thread>
#include <type_traits>
#include <vector>

#include "core/types.hpp"

namespace bridge {

// One writer publishes a plain value; readers get a whole one or try again. The words are atomics, so there is no
// data race by the letter either.
template <class T>
class Seqlock {
  static_assert(std::is_trivially_copyable_v<T>);
  static constexpr std::size_t kWords = (sizeof(T) + 7) / 8;
  static constexpr int kTries = 64 * 500;

 public:
  void store(const T& value) {
    std::uint64_t words[kWords] = {};
    std::memcpy(words, &value, sizeof(T));
    const std::uint64_t sequence = sequence_.load(std::memory_order_relaxed);
    sequence_.store(sequence + 1, std::memory_order_relaxed);
    for (std::size_t i = 0; i < kWords; ++i) words_[i].store(words[i], std::memory_order_release);
    sequence_.store(sequence + 2, std::memory_order_release);
  }

  bool try_load(T& value) const {
    const std::uint64_t before = sequence_.load(std::memory_order_acquire);
    if (before & 1) return false;
    std::uint64_t words[kWords];
    for (std::size_t i = 0; i < kWords; ++i) words[i] = words_[i].load(std::memory_order_acquire);
    if (sequence_.load(std::memory_order_relaxed) != before) return false;
    std::memcpy(&value, words, sizeof(T));
    return true;
  }

  // False if no whole value was found in many tries: the writer died in the middle of one.
  bool load(T& value) const {
    for (int i = 0; i < kTries; ++i) {
      if (try_load(value)) return true;
      if (i % 64 == 63) std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
    return false;
  }

 private:
  std::atomic<std::uint64_t> sequence_{0};
  std::atomic<std::uint64_t> words_[kWords] = {};
};

// The last cycles. One writer; a reader skips what is overwritten while it reads.
template <class T, std::size_t N>
class CycleRing {
 public:
  void push(const T& value) {
    const std::uint64_t at = written_.load(std::memory_order_relaxed);
    slots_[at % N].store(Slot{at, value});
    written_.store(at + 1, std::memory_order_release);
  }

  std::vector<T> last(std::size_t count) const {
    const std::uint64_t end = written_.load(std::memory_order_acquire);
    std::uint64_t begin = end > N ? end - N : 0;
    if (end - begin > count) begin = end - count;
    std::vector<T> out;
    out.reserve(end - begin);
    for (std::uint64_t at = begin; at < end; ++at) {
      Slot slot;
      if (slots_[at % N].try_load(slot) && slot.index == at) out.push_back(slot.value);
    }
    return out;
  }

 private:
  struct Slot {
    std::uint64_t index;
    T value;
  };
  Seqlock<Slot> slots_[N];
  std::atomic<std::uint64_t> written_{0};
};

// Single producer (callers hold a lock among themselves), single consumer.
template <class T, std::size_t N>
class Mailbox {
 public:
  bool push(T value) {
    const std::size_t tail = tail_.load(std::memory_order_relaxed);
    if (tail - head_.load(std::memory_order_acquire) == N) return false;
    slots_[tail % N] = value;
    tail_.store(tail + 1, std::memory_order_release);
    return true;
  }
  bool pop(T& value) {
    const std::size_t head = head_.load(std::memory_order_relaxed);
    if (head == tail_.load(std::memory_order_acquire)) return false;
    value = slots_[head % N];
    head_.store(head + 1, std::memory_order_release);
    return true;
  }

 private:
  T slots_[N] = {};
  std::atomic<std::size_t> head_{0};
  std::atomic<std::size_t> tail_{0};
};

// Counts of how late the loop was woken: sixteen steps per power of two, about 4 % wide, from 1 us to minutes.
class LatenessHistogram {
 public:
  void add(Nanos late) {
    const std::uint64_t us = late > 0 ? static_cast<std::uint64_t>(late) / 1000 : 0;
    std::atomic<std::uint64_t>& count = counts_[index(us)];
    count.store(count.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    if (late > worst_.load(std::memory_order_relaxed)) worst_.store(late, std::memory_order_relaxed);
  }

  // Upper edge of the bucket that holds the share-th value; milliseconds.
  double percentile_ms(double share) const {
    std::uint64_t total = 0;
    for (const auto& count : counts_) total += count.load(std::memory_order_relaxed);
    if (total == 0) return 0.0;
    const double wanted = share * static_cast<double>(total);
    std::uint64_t seen = 0;
    for (std::size_t i = 0; i < kBuckets; ++i) {
      seen += counts_[i].load(std::memory_order_relaxed);
      if (static_cast<double>(seen) >= wanted) return static_cast<double>(upper_us(i)) * 1e-3;
    }
    return worst_ms();
  }
  double worst_ms() const { return static_cast<double>(worst_.load(std::memory_order_relaxed)) * 1e-6; }

 private:
  static constexpr std::size_t kBuckets = 16 * 28;
  static std::size_t index(std::uint64_t us) {
    if (us < 16) return us;
    int power = 63 - __builtin_clzll(us);
    const std::size_t i = 16 * (power - 3) + ((us >> (power - 4)) & 15);
    return i < kBuckets ? i : kBuckets - 1;
  }
  static std::uint64_t upper_us(std::size_t i) {
    if (i < 16) return i + 1;
    const int power = static_cast<int>(i / 16) + 3;
    return (16 + i % 16 + 1) << (power - 4);
  }
  std::atomic<std::uint64_t> counts_[kBuckets] = {};
  std::atomic<Nanos> worst_{0};
};

}  // namespace bridge
