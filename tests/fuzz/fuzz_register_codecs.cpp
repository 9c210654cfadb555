// Throws damaged, split, echoed and foreign frames at the Modbus, Inspire CAN, ROHand and BrainCo codecs.
// test_fuzz_register_codecs.py builds it with sanitizers; by hand, for a million frames per codec:
//
//   g++ -std=c++17 -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -Ifirmware_bridge/src
//       tests/fuzz/fuzz_register_codecs.cpp firmware_bridge/src/codecs/{modbus,inspire_can,rohand_serial,brainco_can}.cpp
//       -o fuzz_register_codecs && ./fuzz_register_codecs 1000000 1
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "codecs/brainco_can.hpp"
#include "codecs/inspire_can.hpp"
#include "codecs/modbus.hpp"
#include "codecs/rohand_serial.hpp"

namespace {

using Bytes = std::vector<std::uint8_t>;
std::mt19937_64 rng;

unsigned pick(unsigned below) { return static_cast<unsigned>(rng() % below); }

Bytes noise(unsigned below) {
  Bytes bytes(pick(below));
  for (auto& byte : bytes) byte = static_cast<std::uint8_t>(rng());
  return bytes;
}

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "violated: %s\n", what);
  std::exit(1);
}

void flip_one_bit(Bytes& frame) { frame[pick(static_cast<unsigned>(frame.size()))] ^= 1u << pick(8); }

void append(Bytes& to, const Bytes& what) { to.insert(to.end(), what.begin(), what.end()); }

namespace modbus = bridge::modbus;

modbus::Request random_request() {
  constexpr modbus::Function functions[] = {modbus::Function::read_holding, modbus::Function::read_input,
                                            modbus::Function::write_one, modbus::Function::write_many};
  modbus::Request request;
  request.function = functions[pick(4)];
  request.device_id = static_cast<std::uint8_t>(1 + pick(254));
  const bool one = request.function == modbus::Function::write_one;
  request.count = static_cast<std::uint16_t>(one ? 1 : 1 + pick(123));
  request.address = static_cast<std::uint16_t>(pick(0x10000 - request.count));
  request.value = static_cast<std::uint16_t>(one ? rng() : 0);
  request.transaction = static_cast<std::uint16_t>(rng());
  return request;
}

// The sound reply to a request, built from the standard and not with the codec's own encoder.
Bytes reply_to(modbus::Wire wire, const modbus::Request& asked, Bytes& data, bool exception) {
  Bytes pdu{static_cast<std::uint8_t>(asked.function)};
  data.clear();
  if (exception) {
    pdu[0] |= 0x80;
    pdu.push_back(static_cast<std::uint8_t>(1 + pick(11)));
  } else if (asked.function == modbus::Function::read_holding || asked.function == modbus::Function::read_input) {
    for (int i = 0; i < 2 * asked.count; ++i) data.push_back(static_cast<std::uint8_t>(rng()));
    pdu.push_back(static_cast<std::uint8_t>(data.size()));
    append(pdu, data);
  } else {
    const unsigned last = asked.function == modbus::Function::write_one ? asked.value : asked.count;
    for (const unsigned word : {unsigned{asked.address}, last}) {
      pdu.push_back(static_cast<std::uint8_t>(word >> 8));
      pdu.push_back(static_cast<std::uint8_t>(word));
    }
    if (asked.function == modbus::Function::write_one) data.assign(pdu.begin() + 3, pdu.end());
  }
  Bytes frame;
  if (wire == modbus::Wire::tcp) {
    const std::size_t length = pdu.size() + 1;
    frame = {static_cast<std::uint8_t>(asked.transaction >> 8), static_cast<std::uint8_t>(asked.transaction), 0, 0,
             static_cast<std::uint8_t>(length >> 8), static_cast<std::uint8_t>(length), asked.device_id};
    append(frame, pdu);
    return frame;
  }
  frame = {asked.device_id};
  append(frame, pdu);
  unsigned crc = 0xFFFF;
  for (const std::uint8_t byte : frame) {
    crc ^= byte;
    for (int bit = 0; bit < 8; ++bit) crc = crc & 1 ? crc >> 1 ^ 0xA001 : crc >> 1;
  }
  frame.push_back(static_cast<std::uint8_t>(crc));
  frame.push_back(static_cast<std::uint8_t>(crc >> 8));
  return frame;
}

void one_modbus_frame(modbus::Wire wire) {
  const modbus::Request asked = random_request();
  const Bytes payload = [] {
    Bytes bytes(2 * modbus::kMostWrite);
    for (auto& byte : bytes) byte = static_cast<std::uint8_t>(rng());
    return bytes;
  }();
  modbus::Frame out;
  const std::size_t size = modbus::encode(wire, asked, payload.data(), out);
  require(size > 0, "a request in range has a frame");
  const Bytes request(out.begin(), out.begin() + static_cast<std::ptrdiff_t>(size));
  Bytes data;
  const bool exception = pick(8) == 0;
  const Bytes sound = reply_to(wire, asked, data, exception);

  modbus::Reply reply;
  modbus::Problem problem;
  require(modbus::parse_reply(wire, sound.data(), sound.size(), reply, problem), "a sound reply is parsed");
  require(modbus::answers(wire, reply, asked, problem), "a sound reply answers its request");
  Bytes damaged = sound;
  flip_one_bit(damaged);
  if (wire == modbus::Wire::rtu)
    require(!modbus::parse_reply(wire, damaged.data(), damaged.size(), reply, problem), "a flipped bit is found");
  const Bytes junk = noise(300);
  (void)modbus::parse_reply(wire, junk.data(), junk.size(), reply, problem);
  (void)problem.text();

  const bool echoes = wire == modbus::Wire::rtu && pick(3) == 0;
  modbus::ReplyStream stream(wire, echoes);
  require(stream.expect(request.data(), request.size()), "a request can be expected");
  Bytes line;
  if (pick(2)) append(line, noise(20));
  if (echoes) append(line, request);
  const bool answered = pick(2);
  if (pick(3) == 0) append(line, damaged);
  if (pick(3) == 0) {
    Bytes unused;
    modbus::Request other = random_request();
    other.device_id = static_cast<std::uint8_t>(asked.device_id % 254 + 1);
    other.transaction = static_cast<std::uint16_t>(asked.transaction + 1);
    append(line, reply_to(wire, other, unused, pick(4) == 0));
  }
  if (answered) append(line, sound);
  bool got = false;
  for (std::size_t at = 0; at < line.size();) {
    const std::size_t part = std::min<std::size_t>(1 + pick(40), line.size() - at);
    stream.feed(line.data() + at, part);
    at += part;
    if (!stream.take(reply)) continue;
    require(!got, "one reply for one request");
    got = true;
    require(reply.device_id == asked.device_id && reply.function == asked.function, "the reply is the asked one");
    if (wire == modbus::Wire::rtu) {
      require(answered, "damage and foreign frames never become a reply");
      require((reply.exception != 0) == exception, "an exception stays one");
      require(exception || (reply.size == data.size() && std::equal(data.begin(), data.end(), reply.data.begin())),
              "the data are the ones sent");
    }
  }
  if (wire == modbus::Wire::rtu) require(got == answered, "a whole reply is found behind anything");
  stream.clear();
}

void one_inspire_can_frame() {
  namespace can = bridge::inspire_can;
  can::Frame frame;
  frame.id = static_cast<std::uint32_t>(rng() & 0x1FFFFFFF);
  frame.size = static_cast<std::uint8_t>(pick(9));
  for (int i = 0; i < frame.size; ++i) frame.data[i] = static_cast<std::uint8_t>(rng());
  can::StickFrame out;
  const std::size_t size = can::wrap(frame, static_cast<std::uint8_t>(rng()), out);
  Bytes bytes(out.begin(), out.begin() + static_cast<std::ptrdiff_t>(size));
  can::Frame back;
  can::Problem problem;
  require(can::unwrap(bytes.data(), bytes.size(), back, problem), "a wrapped frame is unwrapped");
  require(back.id == frame.id && back.size == frame.size && back.data == frame.data, "as it was");
  flip_one_bit(bytes);
  require(!can::unwrap(bytes.data(), bytes.size(), back, problem), "a flipped bit is found");
  Bytes junk = noise(60);
  (void)can::unwrap(junk.data(), junk.size(), back, problem);
  can::Reply reply;
  (void)can::parse_reply(static_cast<std::uint32_t>(rng()), junk.data(), junk.size(), reply, problem);
  (void)problem.text();
}

void one_rohand_frame() {
  namespace rohand = bridge::rohand;
  const Bytes data = noise(256);
  rohand::Frame out;
  const std::size_t size = rohand::encode(static_cast<std::uint8_t>(rng()), 1, static_cast<std::uint8_t>(pick(128)),
                                          data.data(), data.size(), out);
  Bytes bytes(out.begin(), out.begin() + static_cast<std::ptrdiff_t>(size));
  rohand::Reply reply;
  std::string problem;
  require(rohand::parse_reply(bytes.data(), bytes.size(), reply, problem), "a message is parsed");
  require(reply.size == data.size() && std::equal(data.begin(), data.end(), reply.data.begin()), "as it was");
  flip_one_bit(bytes);
  require(!rohand::parse_reply(bytes.data(), bytes.size(), reply, problem), "a flipped bit is found");
  Bytes junk = noise(300);
  if (junk.size() > 2 && pick(2)) junk[0] = 0x55, junk[1] = 0xAA;
  (void)rohand::parse_reply(junk.data(), junk.size(), reply, problem);
}

void one_brainco_frame() {
  namespace brainco = bridge::brainco;
  const Bytes rtu = noise(66);
  brainco::FdFrame frame;
  std::string problem;
  const bool fits = !rtu.empty() && rtu.size() <= brainco::kMostFdData;
  require(brainco::wrap_fd(1, rtu.data(), rtu.size(), frame) == fits, "1 to 64 bytes fit");
  if (fits && frame.id >> 24 == 0)
    require(brainco::unwrap_fd(frame.id, frame.data.data(), frame.size, problem) == rtu.size(), "length comes back");
  (void)brainco::unwrap_fd(static_cast<std::uint32_t>(rng()), rtu.data(), rtu.size(), problem);
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 3) return std::fprintf(stderr, "usage: %s frames seed\n", arguments[0]), 2;
  const long frames = std::strtol(arguments[1], nullptr, 10);
  rng.seed(std::strtoull(arguments[2], nullptr, 10));
  for (long i = 0; i < frames; ++i) {
    one_modbus_frame(modbus::Wire::rtu);
    one_modbus_frame(modbus::Wire::tcp);
    one_inspire_can_frame();
    one_rohand_frame();
    one_brainco_frame();
  }
  std::printf("%ld frames per codec, nothing violated\n", frames);
  return 0;
}
