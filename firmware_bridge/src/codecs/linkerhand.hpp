// LinkerHand O6, L6, L7, L10 and L20 over CAN 2.0A, 1 Mbit/s. Pure: arguments in, frames out.
//
//   id      0x27 right hand, 0x28 left hand; the hand answers on the same id
//   data    tag | up to 7 bytes of values, one per joint
//   A frame of the tag alone asks; a frame with values sets, and is answered by the same tag with the present values
//   unless the tag has its no-reply bit (10) set. Values are 0 to 255; positions 0 bent or inwards, 255 extended.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "codecs/can_frame.hpp"

namespace bridge::linkerhand {

enum class Model { o6, l6, l7, l10, l20 };

// What a tag is about. From normal_force on: the same tags on every model.
enum class Quantity {
  position,
  torque_limit,
  speed,
  acceleration,
  current,
  temperature,
  fault,
  device_id,
  normal_force,
  tangential_force,
  force_direction,
  proximity,
  version,
  serial,
  hardware_version,
  software_version,
  tactile_type,
  tactile_thumb,
  tactile_index,
  tactile_middle,
  tactile_ring,
  tactile_little,
};

constexpr std::size_t kMostValues = 7;
constexpr std::size_t kMostFrames = 4;   // of one quantity
constexpr std::size_t kMostJoints = 20;
constexpr std::uint8_t kNoReply = 0x10;

// How many values a quantity of per-joint values has on a model; 0 if the model does not know it.
std::size_t values_of(Model model, Quantity quantity) noexcept;

// Which joints the values of a tag belong to; false if the model does not know the tag.
bool span(Model model, std::uint8_t tag, std::uint8_t& first, std::uint8_t& count) noexcept;

// One frame of any tag; false if it does not fit.
bool encode(std::uint32_t id, std::uint8_t tag, const std::uint8_t* values, std::size_t count, CanFrame& out) noexcept;
// Sets a quantity of all joints. Returns the number of frames, in the order the vendor's library sends them; 0 if the
// model cannot set it, or has no documented no-reply form of it and `reply` is false.
std::size_t encode_set(Model model, Quantity quantity, std::uint32_t id, const std::uint8_t* values, bool reply,
                       CanFrame* out) noexcept;
// Asks for a quantity. Returns the number of frames; 0 if the model does not know it.
std::size_t encode_query(Model model, Quantity quantity, std::uint32_t id, CanFrame* out) noexcept;

struct Reply {
  Quantity quantity = Quantity::position;
  std::uint8_t tag = 0;
  std::uint8_t first = 0;  // joint of the first value
  std::uint8_t count = 0;
  const std::uint8_t* values = nullptr;  // in the frame
};

// A frame with values; on damage returns false and says what was got and expected.
bool parse(Model model, const CanFrame& frame, Reply& reply, std::string& problem);

}  // namespace bridge::linkerhand
