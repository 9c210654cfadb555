#include "io/tcp.hpp"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

namespace bridge {
namespace {

constexpr Nanos kConnectTimeout = 2 * kNanosPerSecond;
constexpr unsigned kUnacknowledgedTimeout_ms = 500;  // a pulled network cable is noticed after this

}  // namespace

void TcpSocket::open() {
  close();
  addrinfo wanted{};
  wanted.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int lookup = getaddrinfo(host_.c_str(), std::to_string(port_).c_str(), &wanted, &found);
  if (lookup != 0) throw PortError(ENOENT, name() + ": " + gai_strerror(lookup));
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owner(found, freeaddrinfo);

  int error = EHOSTUNREACH;
  for (const addrinfo* at = found; at; at = at->ai_next) {
    const int fd = socket(at->ai_family, at->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, at->ai_protocol);
    if (fd < 0) {
      error = errno;
      continue;
    }
    error = connect(fd, at->ai_addr, at->ai_addrlen) == 0 ? 0 : errno;
    if (error == EINPROGRESS) {
      const IoStatus ready = wait_for(fd, POLLOUT, monotonic_now() + kConnectTimeout);
      socklen_t size = sizeof error;
      if (ready == IoStatus::timeout || ready == IoStatus::interrupted) error = ETIMEDOUT;
      else if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0) error = errno;
    }
    if (error != 0) {
      ::close(fd);
      continue;
    }
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &kUnacknowledgedTimeout_ms, sizeof kUnacknowledgedTimeout_ms);
    fd_ = fd;
    return;
  }
  throw PortError(error, name() + ": " + std::strerror(error));
}

}  // namespace bridge
