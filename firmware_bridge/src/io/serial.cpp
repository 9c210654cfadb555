#include "io/serial.hpp"

#include <fcntl.h>
#include <linux/serial.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <termios.h>
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

}  // namespace

void SerialPort::open() {
  close();
  const int fd = ::open(path_.c_str(), O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) {
    const int error = errno;
    throw PortError(error, path_ + ": " + std::strerror(error));
  }
  auto fail = [&](int error, const std::string& text) {
    ::close(fd);
    throw PortError(error, path_ + ": " + text);
  };
  if (!isatty(fd)) fail(ENOTTY, "not a serial port");
  if (flock(fd, LOCK_EX | LOCK_NB) != 0) fail(EBUSY, "in use by another process");
  if (ioctl(fd, TIOCEXCL) != 0) fail(errno, "cannot be made exclusive");

  termios settings{};
  if (tcgetattr(fd, &settings) != 0) fail(errno, std::strerror(errno));
  cfmakeraw(&settings);
  settings.c_cflag &= ~(CSTOPB | PARENB | CRTSCTS);
  settings.c_cflag |= CS8 | CLOCAL | CREAD;
  settings.c_cc[VMIN] = 1;  // an empty read then means hang-up, never 'nothing yet'
  settings.c_cc[VTIME] = 0;
  const speed_t speed = termios_speed(baud_);
  if (speed != B0) {
    cfsetispeed(&settings, speed);
    cfsetospeed(&settings, speed);
  }
  if (tcsetattr(fd, TCSANOW, &settings) != 0) fail(errno, std::strerror(errno));
  if (speed == B0) {
    const int error = set_any_baud(fd, baud_);
    if (error != 0) fail(error, "does not take " + std::to_string(baud_) + " baud");
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

void SerialPort::discard_output() { tcflush(fd_, TCOFLUSH); }

void SerialPort::close() {
  // A pseudo-terminal lives on with its other end, and would stay exclusive.
  if (fd_ >= 0) ioctl(fd_, TIOCNXCL);
  ByteStream::close();
}

}  // namespace bridge
