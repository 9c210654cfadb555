// An e-stop ends the wait for an answer, and for a port that takes no more bytes, on every carrier; what answers the
// abandoned request does not pass for an answer to the stop. Reply timeouts are a thousand seconds: a wait that is not
// ended hangs, so nothing here depends on how fast this machine is. Prints what failed; exits with 1 then.
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <utility>

#include "drivers/inspire_wires.hpp"
#include "drivers/leap_driver.hpp"
#include "session.hpp"

namespace {

using namespace bridge;

constexpr double kForEver_s = 1000.0;
std::atomic<std::uint32_t> asked{0};  // the e-stop word
int failures = 0;

void check(bool held, const std::string& what) {
  if (held) return;
  std::fprintf(stderr, "not so: %s\n", what.c_str());
  ++failures;
}

class Pipe final : public ByteStream {  // one end of a pair; the other end is the hand's
 public:
  int hand = -1;
  std::size_t discarded = 0;
  Pipe() { open(); }
  ~Pipe() override { ::close(hand); ByteStream::close(); }
  void open() override {
    if (fd_ >= 0) return;
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) std::abort();
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    fd_ = ends[0];
    hand = ends[1];
  }
  void close() override {}
  std::string name() const override { return "pipe"; }
  void discard_output() override { ++discarded; }
  void fill() {
    const char zeros[4096] = {};
    while (::write(fd_, zeros, sizeof zeros) > 0) {
    }
  }
};

// Reads a request off the hand's end, then asks for the e-stop.
std::thread silent_hand(int hand) {
  return std::thread([hand] {
    char request[256];
    if (::read(hand, request, sizeof request) > 0) asked = 1;
  });
}

void say(int hand, std::initializer_list<int> bytes) {
  std::uint8_t out[64];
  std::size_t size = 0;
  for (const int byte : bytes) out[size++] = static_cast<std::uint8_t>(byte);
  if (::write(hand, out, size) != static_cast<ssize_t>(size)) std::abort();
}

// `start` begins a transaction that nobody answers.
template <class Start>
void ends_at_once(int hand, const char* what, Start&& start) {
  asked = 0;
  std::thread other = silent_hand(hand);
  check(start() == Outcome::interrupted, std::string(what) + ": the wait for an answer ends");
  other.join();
  check(start() == Outcome::interrupted, std::string(what) + ": nothing more is begun while the e-stop is not taken");
  asked = 0;
}

void on_a_serial_line() {
  auto owned = std::make_unique<Pipe>();
  Pipe& pipe = *owned;
  InspireRs485Wire wire(std::move(owned), 1, kForEver_s);
  std::uint8_t data[12] = {};
  ends_at_once(pipe.hand, "rs485", [&] { return wire.read(1546, 12, data); });
  // The answer to the abandoned reading comes before the stop has left: it is no answer to the stop.
  say(pipe.hand, {0x90, 0xEB, 0x01, 0x0F, 0x11, 0x0A, 0x06,
                  0x64, 0, 0x64, 0, 0x64, 0, 0x64, 0, 0xD0, 0x07, 0, 0, 0x98});
  {
    const Undisturbed stop;
    asked = 1;  // a second e-stop must not cut the first one's stop short
    std::thread other([&] {
      char request[64];
      ::read(pipe.hand, request, sizeof request);
      say(pipe.hand, {0x90, 0xEB, 0x01, 0x04, 0x12, 0xCE, 0x05, 0x01, 0xEB});
    });
    check(wire.write(1486, data, 12) == Outcome::done, "rs485: the stop is answered by its own answer");
    other.join();
    asked = 0;
  }
  check(wire.counts().late == 20, "rs485: the late answer is counted as late");
  check(wire.counts().timeouts == 0, "rs485: an interrupted wait is no timeout");

  pipe.fill();
  asked = 0;
  std::thread later([] { asked = 1; });
  check(wire.write(1486, data, 12) == Outcome::interrupted, "rs485: the wait for a port that hangs ends");
  later.join();
  check(pipe.discarded >= 2, "rs485: what has not left is thrown away");
  asked = 0;
}

void on_modbus(modbus::Wire kind, const char* what) {
  auto owned = std::make_unique<Pipe>();
  Pipe& pipe = *owned;
  ModbusStreamLine line(std::move(owned), kind, 2, kForEver_s, false);
  std::uint16_t words[6] = {};
  ends_at_once(pipe.hand, what, [&] { return line.read(modbus::Function::read_holding, 1145, 6, words); });
}

void on_dynamixel() {
  auto owned = std::make_unique<Pipe>();
  Pipe& pipe = *owned;
  std::array<JointLimits, kMaxJoints> limits{};
  for (auto& limit : limits) limit = {-1.0, 1.0, 1.0, 10.0, 250.0};
  LeapSettings settings;
  settings.reply_timeout_s = kForEver_s;
  LeapDriver leap(std::move(owned), settings, limits);
  Joints q{};
  ends_at_once(pipe.hand, "dynamixel", [&] { return leap.read_pose(1, q); });
}

class MemoryBus final : public CanBus {  // nobody answers
 public:
  std::atomic<int> sent{0};
  void open() override {}
  void close() override {}
  std::string name() const override { return "bus"; }
  IoStatus send(const CanFrame&, Nanos) override {
    ++sent;
    return IoStatus::ok;
  }
  IoStatus receive(CanFrame&, Nanos deadline, Nanos undisturbed_until) override {
    return wait_for(-1, 0, deadline, undisturbed_until);
  }
  std::size_t discard_input() override { return 0; }
};

void on_can() {
  auto owned = std::make_unique<MemoryBus>();
  MemoryBus& bus = *owned;
  InspireCanWire wire(std::move(owned), 1, kForEver_s);
  std::uint8_t data[12] = {};
  asked = 0;
  std::thread other([&] {
    while (bus.sent == 0) std::this_thread::yield();
    asked = 1;
  });
  check(wire.read(1546, 12, data) == Outcome::interrupted, "can: the wait for an answer ends");
  other.join();
  check(wire.write(1486, data, 12) == Outcome::interrupted && bus.sent == 1, "can: nothing more is begun");
  asked = 0;
}

// A hand whose outcomes are told, for what a session makes of them.
class Told final : public Driver {
 public:
  Outcome read = Outcome::done, written = Outcome::done;
  int writes = 0;
  void connect() override {}
  void disconnect() override {}
  bool* estop = nullptr;  // somebody asks for it while the pose is read
  Outcome read_pose(std::uint64_t, Joints& q) override {
    q.fill(0.1);
    if (read == Outcome::interrupted) *estop = true;
    return read;
  }
  Outcome write_pose(const Joints&) override {
    ++writes;
    return written;
  }
  Outcome read_news(std::uint64_t, Nanos, Telemetry&, News& news) override {
    news = News::health;
    return Outcome::done;
  }
  Outcome clear_errors() override { return Outcome::done; }
  int joints() const override { return 2; }
  BusCounts counts() const override { return {}; }
  bool low_latency() const override { return false; }
};

class Asker final : public Requests {
 public:
  bool estop = false;
  bool take_estop() override { return std::exchange(estop, false); }
  void take(Nanos now, Controller& controller) override {
    if (controller.state() == State::idle) controller.arm(now);
  }
};

void a_late_acknowledgement_does_not_count() {
  std::array<JointLimits, kMaxJoints> limits{};
  for (auto& limit : limits) limit = {0.0, 1.0, 1.0, 10.0, 250.0};
  auto owned = std::make_unique<Told>();
  Told& hand = *owned;
  Session session(std::move(owned), limits, Safety(), 100.0);
  Asker user;
  hand.estop = &user.estop;
  session.connect();
  Nanos deadline = monotonic_now();
  const auto cycle = [&] { session.cycle(deadline += 10'000'000, user, true); };
  for (int i = 0; i < 5; ++i) cycle();
  check(session.controller().state() == State::active, "session: the hand is armed");
  hand.read = Outcome::interrupted;
  cycle();
  check(session.controller().state() == State::estop, "session: an interrupted reading ends in the e-stop");
  hand.read = Outcome::nothing;
  const int before = hand.writes;  // the stop right after the interruption: its answer may be the reading's
  int more = 0;
  while (!session.controller().stop_delivered() && more < 20) {
    cycle();
    ++more;
  }
  check(hand.writes - before == 3, "session: three answers count after that one, counted " +
                                       std::to_string(hand.writes - before));
  cycle();
  check(hand.writes - before == 3, "session: then nothing is written any more");
}

}  // namespace

int main() {
  interruption.word = &asked;
  on_a_serial_line();
  on_modbus(modbus::Wire::rtu, "modbus rtu");
  on_modbus(modbus::Wire::tcp, "modbus tcp");
  on_dynamixel();
  on_can();
  a_late_acknowledgement_does_not_count();
  if (failures == 0) std::printf("every wait ends\n");
  return failures == 0 ? 0 : 1;
}
