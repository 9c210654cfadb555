// Wonik Allegro Hand V4 and V5 over CAN 2.0A, 1 Mbit/s. Pure: arguments in, frames out.
//
//   id      message << 2 | device, 11 bits; data little endian; requests are remote frames
//   Fingers are 0 index, 1 middle, 2 ring, 3 thumb; four joints each. The hand takes torques only, and keeps the last
//   one until it gets another or its servos are switched off.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "codecs/can_frame.hpp"

namespace bridge::allegro {

enum class Version { v4, v5 };

constexpr int kFingers = 4;
constexpr int kJointsPerFinger = 4;
constexpr std::uint8_t kHighestDevice = 3;
constexpr double kDegreesPerCountV4 = 333.3 / 65536;
constexpr double kDegreesPerCountV5 = 0.088;
constexpr std::int16_t kMostPwm = 1200;      // V4 on 12 V
constexpr std::int16_t kMostMilliamps = 240;  // V5

namespace message {
constexpr std::uint8_t pick = 0x11;
constexpr std::uint8_t place = 0x12;
constexpr std::uint8_t finger_pose = 0x20;  // + finger
constexpr std::uint8_t imu = 0x30;
constexpr std::uint8_t temperature = 0x38;  // + finger
constexpr std::uint8_t servo_on = 0x40;
constexpr std::uint8_t servo_off = 0x41;
constexpr std::uint8_t pressure_old = 0x50;  // and + 2; older V5 firmware
constexpr std::uint8_t set_torque = 0x60;    // + finger
constexpr std::uint8_t info = 0x80;
constexpr std::uint8_t report_periods = 0x81;
constexpr std::uint8_t serial = 0x88;
constexpr std::uint8_t start_calibration = 0x89;
constexpr std::uint8_t calibration_done = 0x92;
constexpr std::uint8_t set_pose = 0xE0;  // + finger; V4
constexpr std::uint8_t error = 0xEE;
constexpr std::uint8_t pressure = 0xF0;  // and + 2
}  // namespace message

using FingerValues = std::array<std::int16_t, kJointsPerFinger>;

// All return false if the arguments do not fit a frame.
bool encode_plain(std::uint8_t device, std::uint8_t what, CanFrame& out) noexcept;
bool encode_request(std::uint8_t device, std::uint8_t what, CanFrame& out) noexcept;  // remote
// set_torque (PWM or mA; the caller keeps the bounds) or set_pose (counts).
bool encode_finger(std::uint8_t device, std::uint8_t what, int finger, const FingerValues& values,
                   CanFrame& out) noexcept;
// In milliseconds; 0 turns a report off.
bool encode_periods(std::uint8_t device, std::int16_t position_ms, std::int16_t imu_ms, std::int16_t temperature_ms,
                    CanFrame& out) noexcept;

struct Reply {
  std::uint8_t device = 0;
  std::uint8_t what = 0;  // the message, without the finger
  int finger = -1;        // of a pose or temperature; of a pressure, the first of two
  std::size_t count = 0;
  // info: hardware, firmware, type (0 right, 1 left), temperature, status; pose: counts; IMU: counts; temperature:
  // degrees C of each joint (V5) or one raw number (V4); pressure: Pa of two fingers; error: motor, bits; serial:
  // characters.
  std::array<std::int32_t, 8> values{};
};

// A frame from the hand; on damage returns false and says what was got and expected.
bool parse(Version version, const CanFrame& frame, Reply& reply, std::string& problem);

}  // namespace bridge::allegro
