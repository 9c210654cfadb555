#include "codecs/allegro.hpp"

#include <cstdio>

namespace bridge::allegro {
namespace {

enum class Layout : std::uint8_t { nothing, bytes, words, longs, info };

struct Row {
  std::uint8_t first, last, step;  // messages
  std::uint8_t size;               // bytes
  bool v4, v5;
  Layout v4_layout, v5_layout;
  bool has_finger;
};

constexpr Row kFromHand[] = {
    {message::finger_pose, message::finger_pose + 3, 1, 8, true, true, Layout::words, Layout::words, true},
    {message::imu, message::imu, 1, 6, true, true, Layout::words, Layout::words, false},
    {message::temperature, message::temperature + 3, 1, 4, true, true, Layout::longs, Layout::bytes, true},
    {message::info, message::info, 1, 7, true, true, Layout::info, Layout::info, false},
    {message::serial, message::serial, 1, 8, true, true, Layout::bytes, Layout::bytes, false},
    {message::pressure, message::pressure + 2, 2, 8, false, true, Layout::nothing, Layout::longs, true},
    {message::pressure_old, message::pressure_old + 2, 2, 8, false, true, Layout::nothing, Layout::longs, true},
    {message::error, message::error, 1, 2, false, true, Layout::nothing, Layout::bytes, false},
    {message::calibration_done, message::calibration_done, 1, 0, false, true, Layout::nothing, Layout::nothing, false},
};

std::int32_t word(const std::uint8_t* p) { return static_cast<std::int16_t>(p[0] | (p[1] << 8)); }
std::int32_t unsigned_word(const std::uint8_t* p) { return p[0] | (p[1] << 8); }
std::int32_t long_word(const std::uint8_t* p) {
  return static_cast<std::int32_t>(p[0] | (p[1] << 8) | (p[2] << 16) | (std::uint32_t{p[3]} << 24));
}

bool head(std::uint8_t device, std::uint8_t what, std::uint8_t size, CanFrame& out) noexcept {
  if (device > kHighestDevice) return false;
  out = CanFrame{};
  out.id = std::uint32_t{what} << 2 | device;
  out.size = size;
  return true;
}

void put(std::uint8_t* p, std::int16_t value) noexcept {
  p[0] = static_cast<std::uint8_t>(value & 0xFF);
  p[1] = static_cast<std::uint8_t>((value >> 8) & 0xFF);
}

const Row* find(Version version, std::uint8_t what) {
  for (const Row& row : kFromHand)
    if ((version == Version::v4 ? row.v4 : row.v5) && what >= row.first && what <= row.last &&
        (what - row.first) % row.step == 0)
      return &row;
  return nullptr;
}

}  // namespace

bool encode_plain(std::uint8_t device, std::uint8_t what, CanFrame& out) noexcept { return head(device, what, 0, out); }

bool encode_request(std::uint8_t device, std::uint8_t what, CanFrame& out) noexcept {
  if (!head(device, what, 0, out)) return false;
  out.remote = true;
  return true;
}

bool encode_finger(std::uint8_t device, std::uint8_t what, int finger, const FingerValues& values,
                   CanFrame& out) noexcept {
  if (finger < 0 || finger >= kFingers || !head(device, static_cast<std::uint8_t>(what + finger), 8, out)) return false;
  for (int j = 0; j < kJointsPerFinger; ++j) put(&out.data[2 * j], values[j]);
  return true;
}

bool encode_periods(std::uint8_t device, std::int16_t position_ms, std::int16_t imu_ms, std::int16_t temperature_ms,
                    CanFrame& out) noexcept {
  if (position_ms < 0 || imu_ms < 0 || temperature_ms < 0) return false;
  if (!head(device, message::report_periods, 6, out)) return false;
  put(&out.data[0], position_ms);
  put(&out.data[2], imu_ms);
  put(&out.data[4], temperature_ms);
  return true;
}

bool parse(Version version, const CanFrame& frame, Reply& reply, std::string& problem) {
  char line[160];
  const auto say = [&](const char* format, unsigned a, unsigned b, unsigned c) {
    std::snprintf(line, sizeof line, format, a, b, c);
    problem = line;
    return false;
  };
  if (frame.id > kMostStandardId) return say("CAN id: expected at most 7FF, got %X", frame.id, 0, 0);
  if (frame.remote) return say("CAN id %03X: a remote frame is a request", frame.id, 0, 0);
  const auto what = static_cast<std::uint8_t>(frame.id >> 2);
  const Row* row = frame.id >> 2 > 0xFF ? nullptr : find(version, what);
  if (!row) return say("CAN id %03X (message %02X) does not come from this hand", frame.id, frame.id >> 2, 0);
  if (frame.size != row->size)
    return say("CAN id %03X: expected %u bytes, got %u", frame.id, row->size, frame.size);
  reply = Reply{};
  reply.device = frame.id & kHighestDevice;
  reply.what = row->first;
  if (row->has_finger) reply.finger = what - row->first;
  const std::uint8_t* p = frame.data.data();
  switch (version == Version::v4 ? row->v4_layout : row->v5_layout) {
    case Layout::nothing: break;
    case Layout::bytes:
      for (; reply.count < row->size; ++reply.count) reply.values[reply.count] = p[reply.count];
      break;
    case Layout::words:
      for (; reply.count < row->size / 2u; ++reply.count) reply.values[reply.count] = word(p + 2 * reply.count);
      break;
    case Layout::longs:
      for (; reply.count < row->size / 4u; ++reply.count) reply.values[reply.count] = long_word(p + 4 * reply.count);
      break;
    case Layout::info:
      reply.values = {unsigned_word(p), unsigned_word(p + 2), p[4], p[5], p[6]};
      reply.count = 5;
      break;
  }
  return true;
}

}  // namespace bridge::allegro
