// SocketCAN as the bridge uses it, against a kernel that has it: run by check_socketcan.sh in a virtual machine with
// vcan0 (CAN-FD, up), vcan1 (CAN 2.0, up) and vcan2 (down). Prints a line per check; exits with the number that failed.
#include <linux/can.h>
#include <linux/can/error.h>
#include <linux/can/raw.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <thread>

#include "drivers/linkerhand_driver.hpp"
#include "io/socketcan.hpp"
#include "loop.hpp"

namespace {

using namespace bridge;

int g_failed = 0;

void check(bool holds, const char* what) {
  std::printf("%s  %s\n", holds ? "ok    " : "FAILED", what);
  g_failed += !holds;
}

Nanos in(double s) { return monotonic_now() + nanos(s); }

template <class Condition>
bool eventually(Condition condition) {
  const Nanos give_up = in(20.0);
  while (!condition()) {
    if (monotonic_now() > give_up) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

int error_of_opening(const char* interface, bool fd) {
  try {
    SocketCanBus bus(interface, fd);
    bus.open();
  } catch (const PortError& error) {
    std::printf("        %s\n", error.what());
    return error.error;
  }
  return 0;
}

// A socket of our own, to play the rest of the bus with.
class Other {
 public:
  explicit Other(const char* interface) {
    fd_ = socket(PF_CAN, SOCK_RAW | SOCK_CLOEXEC, CAN_RAW);
    const int on = 1;
    setsockopt(fd_, SOL_CAN_RAW, CAN_RAW_FD_FRAMES, &on, sizeof on);
    sockaddr_can address{};
    address.can_family = AF_CAN;
    address.can_ifindex = static_cast<int>(if_nametoindex(interface));
    if (bind(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) std::perror(interface);
    const timeval patience{0, 100'000};
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  }
  ~Other() { close(fd_); }
  Other(const Other&) = delete;
  Other& operator=(const Other&) = delete;

  bool send(canid_t id, const std::uint8_t* data, std::uint8_t size) {
    can_frame frame{};
    frame.can_id = id;
    frame.can_dlc = size;
    if (data) std::memcpy(frame.data, data, size);
    return write(fd_, &frame, sizeof frame) == sizeof frame;
  }
  bool send_error(canid_t kind) {
    const std::uint8_t nothing[CAN_ERR_DLC] = {};
    return send(CAN_ERR_FLAG | kind, nothing, CAN_ERR_DLC);
  }
  // Bytes read; 0: nothing came.
  ssize_t receive(canfd_frame& frame) { return std::max<ssize_t>(0, read(fd_, &frame, sizeof frame)); }

 private:
  int fd_;
};

void bring(const char* interface, bool up) {
  const int fd = socket(PF_CAN, SOCK_RAW, CAN_RAW);
  ifreq request{};
  std::strncpy(request.ifr_name, interface, sizeof request.ifr_name - 1);
  ioctl(fd, SIOCGIFFLAGS, &request);
  request.ifr_flags = static_cast<short>(up ? request.ifr_flags | IFF_UP : request.ifr_flags & ~IFF_UP);
  if (ioctl(fd, SIOCSIFFLAGS, &request) != 0) std::perror(interface);
  close(fd);
}

void opening() {
  check(error_of_opening("vcan0", true) == 0, "an interface with CAN-FD opens");
  check(error_of_opening("vcan1", false) == 0, "an interface without CAN-FD opens for CAN 2.0");
  check(error_of_opening("vcan1", true) == EPROTONOSUPPORT, "but not for CAN-FD");
  check(error_of_opening("vcan2", false) == ENETDOWN, "an interface that is down says so");
  check(error_of_opening("can9", false) == ENODEV, "an interface that is not there says so");
  check(error_of_opening("a_name_longer_than_interfaces_have", false) == ENODEV, "so does a name no interface can have");
}

void frames() {
  SocketCanBus bus("vcan0", true);
  bus.open();
  Other other("vcan0");
  bool same = true, back = true;
  const auto exchange = [&](const CanFrame& out, canid_t id_on_the_bus) {
    canfd_frame raw{};
    same &= bus.send(out, in(1.0)) == IoStatus::ok;
    const ssize_t size = other.receive(raw);
    same &= size == static_cast<ssize_t>(out.fd ? CANFD_MTU : CAN_MTU) && raw.can_id == id_on_the_bus &&
            raw.len == out.size && std::memcmp(raw.data, out.data.data(), out.size) == 0;
    SocketCanBus reader("vcan0", true);
    reader.open();
    CanFrame got;
    back &= bus.send(out, in(1.0)) == IoStatus::ok && reader.receive(got, in(1.0)) == IoStatus::ok &&
            got.id == out.id && got.extended == out.extended && got.remote == out.remote && got.fd == out.fd &&
            got.size == out.size && got.data == out.data;
    other.receive(raw);
  };
  CanFrame frame;
  for (std::uint8_t size = 0; size <= 8; ++size) {
    frame.size = size;
    for (int i = 0; i < size; ++i) frame.data[i] = static_cast<std::uint8_t>(17 * i + size);
    frame.extended = false;
    frame.id = 0x123u + size;
    exchange(frame, frame.id);
    frame.extended = true;
    frame.id = 0x1ABCDE0u + size;
    exchange(frame, frame.id | CAN_EFF_FLAG);
  }
  check(same, "standard and extended frames of 0 to 8 bytes arrive as they were sent");
  frame = CanFrame{};
  frame.remote = true;
  frame.id = 0x80;
  exchange(frame, 0x80 | CAN_RTR_FLAG);
  check(same, "a remote request arrives as one");
  for (const std::uint8_t size : kFdSizes) {
    frame = CanFrame{};
    frame.fd = true;
    frame.extended = size % 2 == 0;
    frame.id = 0x321;
    frame.size = size;
    for (int i = 0; i < size; ++i) frame.data[i] = static_cast<std::uint8_t>(3 * i + 1);
    exchange(frame, frame.id | (frame.extended ? CAN_EFF_FLAG : 0));
  }
  check(same, "CAN-FD frames of every length up to 64 bytes arrive as they were sent");
  check(back, "all of them are read back as they were sent");
  frame = CanFrame{};
  frame.size = 9;
  check(bus.send(frame, in(0.1)) == IoStatus::timeout, "nine bytes in a CAN 2.0 frame are refused");

  const std::uint8_t data[] = {1, 2, 3};
  for (int i = 0; i < 5; ++i) other.send(0x55, data, 3);
  check(eventually([&] { return bus.discard_input() > 0; }), "what has arrived can be thrown away");
  const Nanos begin = monotonic_now();
  CanFrame nothing;
  const IoStatus status = bus.receive(nothing, in(0.05));
  check(status == IoStatus::timeout && monotonic_now() - begin >= nanos(0.05), "silence is a timeout at its deadline");
}

void errors() {
  SocketCanBus bus("vcan0");
  bus.open();
  Other other("vcan0");
  const std::uint8_t data[] = {7};
  other.send_error(CAN_ERR_ACK);
  other.send(0x42, data, 1);
  CanFrame frame;
  check(bus.receive(frame, in(1.0)) == IoStatus::ok && frame.id == 0x42 && bus.damaged() == 1,
        "a missing acknowledgement is counted and the next frame is read");
  other.send_error(CAN_ERR_BUSOFF);
  check(bus.receive(frame, in(1.0)) == IoStatus::hung_up, "bus-off is a lost line");
  bus.open();
  other.send_error(CAN_ERR_BUSOFF);
  bus.discard_input();
  check(bus.send(frame, in(1.0)) == IoStatus::hung_up, "also when it came before the next request");
  bus.open();
  bring("vcan0", false);
  frame = CanFrame{};
  check(bus.receive(frame, in(1.0)) == IoStatus::hung_up, "an interface that goes down while it is read is a lost line");
  bus.close();
  check(error_of_opening("vcan0", false) == ENETDOWN, "and does not open again until it is up");
  bring("vcan0", true);
  bus.open();
  bring("vcan0", false);
  check(bus.send(frame, in(1.0)) == IoStatus::hung_up, "nor can be written to");
  bring("vcan0", true);
}

// A LinkerHand O6, as far as this test needs one: six joints that are where they were told to be.
class Hand {
 public:
  std::atomic<bool> silent{false};
  explicit Hand(const char* interface) : bus_(interface), thread_([this] { run(); }) {}
  ~Hand() {
    ends_ = true;
    thread_.join();
  }
  Hand(const Hand&) = delete;
  Hand& operator=(const Hand&) = delete;
  int position(int joint) const { return positions_[joint]; }
  int most_change() const { return most_change_; }

 private:
  void run() {
    std::uint8_t speeds[6] = {}, torques[6] = {};
    while (!ends_) {
      canfd_frame in{};
      if (bus_.receive(in) != CAN_MTU || in.can_id != 0x27 || in.len == 0 || silent) continue;
      const std::uint8_t tag = in.data[0];
      std::uint8_t out[8] = {tag};
      std::uint8_t size = 7;
      if (in.len == 7 && tag == 0x01)
        for (int j = 0; j < 6; ++j) {
          most_change_ = std::max<int>(most_change_, std::abs(positions_[j] - in.data[1 + j]));
          positions_[j] = in.data[1 + j];
        }
      if (in.len == 7 && tag == 0x02) std::memcpy(torques, &in.data[1], 6);
      if (in.len == 7 && tag == 0x05) std::memcpy(speeds, &in.data[1], 6);
      if (tag == 0x01) for (int j = 0; j < 6; ++j) out[1 + j] = static_cast<std::uint8_t>(positions_[j]);
      else if (tag == 0x02) std::memcpy(&out[1], torques, 6);
      else if (tag == 0x05) std::memcpy(&out[1], speeds, 6);
      else if (tag == 0x33) std::memset(&out[1], 30, 6);
      else if (tag == 0x64) {
        const std::uint8_t version[] = {6, 1, 1, 'R', 0x12, 0x10, 0};
        std::memcpy(&out[1], version, sizeof version);
        size = 8;
      }
      bus_.send(0x27, out, size);
    }
  }
  Other bus_;
  std::atomic<bool> ends_{false};
  std::atomic<int> positions_[6] = {255, 255, 255, 255, 255, 255};
  std::atomic<int> most_change_{0};
  std::thread thread_;
};

void hand() {
  Hand hand("vcan0");
  Other other("vcan0");
  std::array<JointLimits, kMaxJoints> limits{};
  for (int j = 0; j < 6; ++j) limits[j] = {0.0, 1.5, 2.5, 25.0, 625.0};
  LinkerhandSettings settings;
  settings.rate_hz = 50.0;  // an emulated machine is slow
  settings.reply_timeout_s = 0.2;
  for (int j = 0; j < kMaxJoints; ++j) settings.wire[j] = j;
  Safety safety;
  safety.feedback_stale_s = 0.5;
  safety.consecutive_errors = 20;
  auto driver = std::make_unique<LinkerhandDriver>(std::make_unique<SocketCanBus>("vcan0"), settings, 6, limits);
  Loop loop(std::move(driver), limits, safety, settings.rate_hz, 70, MappedPage::own());
  loop.start();
  const auto snapshot = [&] {
    Snapshot now;
    loop.page().snapshot.load(now);
    return now;
  };
  const auto is = [&](State state) { return eventually([&] { return snapshot().state == state; }); };
  check(is(State::idle), "a hand on SocketCAN is recognised and reports");
  check(loop.arm().verdict == Verdict::accepted, "it can be armed");
  const double t[] = {0.0, 1.0};
  double q[12] = {};
  for (int j = 0; j < 6; ++j) q[6 + j] = 0.75;
  std::string problem;
  check(loop.follow(Trajectory::make(t, q, 2, 6, limits, problem), 0.0).verdict == Verdict::accepted, "and follows");
  check(eventually([&] { return hand.position(0) == 128 || hand.position(0) == 127; }), "a trajectory to its end");
  check(hand.most_change() <= 10, "in steps within its speed: 255 * 2.5 / 1.5 / 50 is 8.5");
  check(hand.position(5) == hand.position(0), "with all joints");
  loop.estop();
  check(is(State::estop), "an e-stop stops it");
  check(loop.reset().verdict == Verdict::accepted && is(State::idle), "and a reset brings it back");
  other.send_error(CAN_ERR_BUSOFF);
  check(eventually([&] { return snapshot().state == State::disconnected; }), "bus-off disconnects it");
  check(is(State::idle), "and it comes back by itself, idle");
  hand.silent = true;
  check(loop.arm().verdict == Verdict::accepted && is(State::disconnected), "a hand that falls silent is given up");
  hand.silent = false;
  check(is(State::idle), "and found again when it speaks");
  const auto counts = snapshot().counts;
  std::printf("        %llu transactions, %llu timeouts, %llu cycles\n",
              static_cast<unsigned long long>(counts.transactions), static_cast<unsigned long long>(counts.timeouts),
              static_cast<unsigned long long>(snapshot().cycle));
  loop.close();
}

}  // namespace

int main() {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  opening();
  frames();
  errors();
  hand();
  std::printf("%s\n", g_failed == 0 ? "SocketCAN: all checks passed" : "SocketCAN: some checks FAILED");
  return g_failed;
}
