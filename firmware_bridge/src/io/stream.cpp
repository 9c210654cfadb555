#include "io/stream.hpp"

#include <poll.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace bridge {
namespace {

// A babbling line must not hold the loop.
constexpr std::size_t kMostDiscarded = 65536;
// How often a wait looks whether it shall end. A descriptor would wake it, but the word must work from any process.
constexpr Nanos kGlance = 500'000;

bool gone(int error) {
  return error == EIO || error == ENODEV || error == ENXIO || error == EBADF || error == EPIPE ||
         error == ECONNRESET || error == ETIMEDOUT || error == ENOTCONN;
}

}  // namespace

Nanos monotonic_now() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<Nanos>(now.tv_sec) * kNanosPerSecond + now.tv_nsec;
}

IoStatus wait_for(int fd, short events, Nanos deadline, Nanos undisturbed_until) {
  for (;;) {
    const Nanos now = monotonic_now();
    if (now >= deadline) return IoStatus::timeout;
    const bool ends = now >= undisturbed_until && interruption.asked();
    Nanos left = deadline - now;
    if (ends) left = 0;  // what is there already is still taken
    else if (interruption.possible()) left = std::min(left, std::max(undisturbed_until - now, kGlance));
    const timespec limit{left / kNanosPerSecond, left % kNanosPerSecond};
    pollfd waiting{fd, events, 0};
    const int ready = ppoll(&waiting, 1, &limit, nullptr);
    if (ready < 0 && errno == EINTR) continue;
    if (ready < 0) return IoStatus::hung_up;
    if (ready == 0 && ends) return IoStatus::interrupted;
    if (ready == 0) continue;
    if (waiting.revents & events) return IoStatus::ok;
    return IoStatus::hung_up;  // POLLHUP, POLLERR or POLLNVAL alone
  }
}

void ByteStream::close() {
  if (fd_ < 0) return;
  ::close(fd_);
  fd_ = -1;
}

IoStatus ByteStream::write_all(const std::uint8_t* data, std::size_t size, Nanos deadline) {
  while (size > 0) {
    const ssize_t sent = ::write(fd_, data, size);
    if (sent > 0) {
      data += sent;
      size -= static_cast<std::size_t>(sent);
      continue;
    }
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && errno != EAGAIN) return IoStatus::hung_up;
    const IoStatus status = wait_for(fd_, POLLOUT, deadline);
    if (status != IoStatus::ok) return status;
  }
  return IoStatus::ok;
}

IoStatus ByteStream::read_some(std::uint8_t* data, std::size_t capacity, std::size_t& got, Nanos deadline,
                               Nanos undisturbed_until) {
  got = 0;
  const IoStatus status = wait_for(fd_, POLLIN, deadline, undisturbed_until);
  if (status != IoStatus::ok) return status;
  const ssize_t count = ::read(fd_, data, capacity);
  if (count > 0) {
    got = static_cast<std::size_t>(count);
    return IoStatus::ok;
  }
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return IoStatus::ok;
  if (count < 0 && !gone(errno)) return IoStatus::timeout;
  return IoStatus::hung_up;  // readable yet empty: the other end is gone
}

std::size_t ByteStream::read_now(std::uint8_t* data, std::size_t capacity) {
  const ssize_t count = ::read(fd_, data, capacity);
  return count > 0 ? static_cast<std::size_t>(count) : 0;
}

std::size_t ByteStream::discard_input() {
  std::uint8_t scratch[256];
  std::size_t total = 0;
  while (total < kMostDiscarded) {
    const std::size_t count = read_now(scratch, sizeof scratch);
    if (count == 0) break;
    total += count;
  }
  return total;
}

}  // namespace bridge
