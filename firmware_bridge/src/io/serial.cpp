#include "io/serial.hpp"

#include <fcntl.h>
#include <linux/serial.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace bridge {
namespace {

speed_t termios_speed(int baud) {
  switch (baud) {
    case 9600: return B9600;
    case 19200: return B19200;
    case 38400: return B38400;
    case 57600: return B57600;
    case 115200: return B115200;
    case 230400: return B230400;
    case 460800: return B460800;
    case 500000: return B500000;
    case 576000: return B576000;
    case 921600: return B921600;
    case 1000000: return B1000000;
    case 1152000: return B1152000;
    case 1500000: return B1500000;
    case 2000000: return B2000000;
    case 2500000: return B2500000;
    case 3000000: return B3000000;
    case 3500000: return B3500000;
    case 4000000: return B4000000;
    default: return B0;
  }
}

bool gone(int error) { return error == EIO || error == ENODEV || error == ENXIO || error == EBADF || error == EPIPE; }

// Waits for `events`; timeout also when interrupted with no time left.
IoStatus wait_for(int fd, short events, Nanos deadline) {
  for (;;) {
    const Nanos left = deadline - monotonic_now();
    if (left <= 0) return IoStatus::timeout;
    const timespec limit{left / kNanosPerSecond, left % kNanosPerSecond};
    pollfd waiting{fd, events, 0};
    const int ready = ppoll(&waiting, 1, &limit, nullptr);
    if (ready < 0 && errno == EINTR) continue;
    if (ready < 0) return IoStatus::hung_up;
    if (ready == 0) return IoStatus::timeout;
    if (waiting.revents & events) return IoStatus::ok;
    return IoStatus::hung_up;  // POLLHUP, POLLERR or POLLNVAL alone
  }
}

}  // namespace

Nanos monotonic_now() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<Nanos>(now.tv_sec) * kNanosPerSecond + now.tv_nsec;
}

void SerialPort::open(const std::string& path, int baud) {
  close();
  const int fd = ::open(path.c_str(), O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) {
    const int error = errno;
    throw PortError(error, path + ": " + std::strerror(error));
  }
  auto fail = [&](int error, const std::string& text) {
    ::close(fd);
    throw PortError(error, path + ": " + text);
  };
  if (!isatty(fd)) fail(ENOTTY, "is not a serial port");
  if (flock(fd, LOCK_EX | LOCK_NB) != 0) fail(EBUSY, "is in use by another process");
  if (ioctl(fd, TIOCEXCL) != 0) fail(errno, "cannot be made exclusive");

  termios settings{};
  if (tcgetattr(fd, &settings) != 0) fail(errno, std::strerror(errno));
  cfmakeraw(&settings);
  settings.c_cflag &= ~(CSTOPB | PARENB | CRTSCTS);
  settings.c_cflag |= CS8 | CLOCAL | CREAD;
  settings.c_cc[VMIN] = 1;  // an empty read then means hang-up, never 'nothing yet'
  settings.c_cc[VTIME] = 0;
  const speed_t speed = termios_speed(baud);
  if (speed != B0) {
    cfsetispeed(&settings, speed);
    cfsetospeed(&settings, speed);
  }
  if (tcsetattr(fd, TCSANOW, &settings) != 0) fail(errno, std::strerror(errno));
  if (speed == B0) {
    const int error = set_any_baud(fd, baud);
    if (error != 0) fail(error, "does not take " + std::to_string(baud) + " baud");
  }

  low_latency_ = false;
  serial_struct info{};
  if (ioctl(fd, TIOCGSERIAL, &info) == 0) {
    info.flags |= ASYNC_LOW_LATENCY;
    low_latency_ = ioctl(fd, TIOCSSERIAL, &info) == 0;
  }
  tcflush(fd, TCIOFLUSH);
  fd_ = fd;
}

void SerialPort::close() {
  if (fd_ < 0) return;
  ioctl(fd_, TIOCNXCL);
  ::close(fd_);
  fd_ = -1;
}

IoStatus SerialPort::write_all(const std::uint8_t* data, std::size_t size, Nanos deadline) {
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

IoStatus SerialPort::read_some(std::uint8_t* data, std::size_t capacity, std::size_t& got, Nanos deadline) {
  got = 0;
  const IoStatus status = wait_for(fd_, POLLIN, deadline);
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

std::size_t SerialPort::discard_input() {
  std::uint8_t scratch[256];
  std::size_t total = 0;
  for (;;) {
    const ssize_t count = ::read(fd_, scratch, sizeof scratch);
    if (count <= 0) return total;
    total += static_cast<std::size_t>(count);
    if (total > 65536) return total;  // a babbling line must not hold the loop
  }
}

}  // namespace bridge
