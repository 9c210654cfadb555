#include "io/socketcan.hpp"

#include <fcntl.h>
#include <linux/can.h>
#include <linux/can/error.h>
#include <linux/can/raw.h>
#include <net/if.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace bridge {
namespace {

constexpr int kMostDiscarded = 1000;

}  // namespace

void SocketCanBus::open() {
  close();
  const int fd = socket(PF_CAN, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, CAN_RAW);
  if (fd < 0) {
    const int error = errno;
    throw PortError(error, interface_ + ": " +
                               (error == EAFNOSUPPORT ? "this kernel has no CAN; use slcan" : std::strerror(error)));
  }
  auto fail = [&](int error, const std::string& text) {
    ::close(fd);
    throw PortError(error, interface_ + ": " + text);
  };
  ifreq request{};
  if (interface_.size() >= sizeof request.ifr_name) fail(ENODEV, "no such CAN interface");
  std::memcpy(request.ifr_name, interface_.c_str(), interface_.size());
  if (ioctl(fd, SIOCGIFINDEX, &request) != 0) fail(ENODEV, "no such CAN interface");
  sockaddr_can address{};
  address.can_family = AF_CAN;
  address.can_ifindex = request.ifr_ifindex;
  if (ioctl(fd, SIOCGIFFLAGS, &request) != 0) fail(errno, std::strerror(errno));
  if (!(request.ifr_flags & IFF_UP)) fail(ENETDOWN, "the interface is down (ip link set up)");
  const can_err_mask_t errors = CAN_ERR_BUSOFF | CAN_ERR_ACK | CAN_ERR_CRTL | CAN_ERR_TX_TIMEOUT;
  setsockopt(fd, SOL_CAN_RAW, CAN_RAW_ERR_FILTER, &errors, sizeof errors);
  const int on = 1;
  // The socket takes the option on any interface; whether CAN-FD frames fit through this one is told by its MTU.
  if (fd_frames_ && (setsockopt(fd, SOL_CAN_RAW, CAN_RAW_FD_FRAMES, &on, sizeof on) != 0 ||
                     ioctl(fd, SIOCGIFMTU, &request) != 0 || request.ifr_mtu < static_cast<int>(CANFD_MTU)))
    fail(EPROTONOSUPPORT, "the interface does not do CAN-FD (ip link set ... dbitrate 5000000 fd on)");
  if (bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) fail(errno, std::strerror(errno));
  fd_ = fd;
  bus_off_ = false;
}

void SocketCanBus::close() {
  if (fd_ < 0) return;
  ::close(fd_);
  fd_ = -1;
}

void SocketCanBus::note_error(std::uint32_t kind) {
  ++errors_;
  bus_off_ |= (kind & CAN_ERR_BUSOFF) != 0;
}

IoStatus SocketCanBus::send(const CanFrame& frame, Nanos deadline) {
  if (bus_off_) return IoStatus::hung_up;
  canfd_frame raw{};  // starts like a can_frame
  raw.can_id = frame.id | (frame.extended ? CAN_EFF_FLAG : 0) | (frame.remote ? CAN_RTR_FLAG : 0);
  raw.len = frame.size;
  raw.flags = frame.fd ? CANFD_BRS : 0;
  if (frame.size > (frame.fd ? CANFD_MAX_DLEN : CAN_MAX_DLEN)) return IoStatus::timeout;
  std::memcpy(raw.data, frame.data.data(), frame.size);
  const std::size_t size = frame.fd ? CANFD_MTU : CAN_MTU;
  for (;;) {
    if (::write(fd_, &raw, size) == static_cast<ssize_t>(size)) return IoStatus::ok;
    if (errno == EINTR) continue;
    if (errno == ENODEV || errno == ENXIO || errno == EBADF) return IoStatus::hung_up;
    if (errno == ENETDOWN) return IoStatus::hung_up;
    if (errno != EAGAIN && errno != ENOBUFS) return IoStatus::timeout;
    // ENOBUFS: the interface's queue is full and poll does not tell when it is not.
    if (errno == ENOBUFS) {
      pollfd nothing{-1, 0, 0};
      const timespec pause{0, 200'000};
      ppoll(&nothing, 0, &pause, nullptr);
      if (interruption.asked()) return IoStatus::interrupted;
      if (monotonic_now() > deadline) return IoStatus::timeout;
      continue;
    }
    const IoStatus status = wait_for(fd_, POLLOUT, deadline);
    if (status != IoStatus::ok) return status;
  }
}

IoStatus SocketCanBus::receive(CanFrame& frame, Nanos deadline, Nanos undisturbed_until) {
  for (;;) {
    if (bus_off_) return IoStatus::hung_up;
    canfd_frame raw{};
    const ssize_t count = ::read(fd_, &raw, sizeof raw);
    if (count == CAN_MTU || count == CANFD_MTU) {
      if (raw.can_id & CAN_ERR_FLAG) {
        note_error(raw.can_id);
        continue;
      }
      frame = CanFrame{};
      frame.extended = raw.can_id & CAN_EFF_FLAG;
      frame.remote = raw.can_id & CAN_RTR_FLAG;
      frame.id = raw.can_id & (frame.extended ? CAN_EFF_MASK : CAN_SFF_MASK);
      frame.fd = count == CANFD_MTU;
      frame.size = std::min<std::uint8_t>(raw.len, frame.fd ? CANFD_MAX_DLEN : CAN_MAX_DLEN);
      std::memcpy(frame.data.data(), raw.data, frame.size);
      return IoStatus::ok;
    }
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno != EAGAIN) return IoStatus::hung_up;
    const IoStatus status = wait_for(fd_, POLLIN, deadline, undisturbed_until);
    if (status != IoStatus::ok) return status;
  }
}

std::size_t SocketCanBus::discard_input() {
  std::size_t frames = 0;
  canfd_frame raw{};
  for (int i = 0; i < kMostDiscarded && ::read(fd_, &raw, sizeof raw) > 0; ++i) {
    if (raw.can_id & CAN_ERR_FLAG) note_error(raw.can_id);  // a bus-off may come between two transactions
    else ++frames;
  }
  return frames;
}

}  // namespace bridge
