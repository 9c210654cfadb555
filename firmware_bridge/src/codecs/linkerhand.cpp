#include "codecs/linkerhand.hpp"

#include <cstdio>
#include <cstring>

namespace bridge::linkerhand {
namespace {

enum class Use : std::uint8_t {
  ask,         // read only
  set,         // read, or set and answered
  set_silent,  // as set, and has a documented no-reply form
};

struct Group {
  Quantity quantity;
  std::uint8_t tag;
  std::uint8_t first;  // joint of the first value
  std::uint8_t count;  // of values; 0: any number
  Use use;
};

// Frames of one quantity stand in the order in which they are sent.
constexpr Group kSix[] = {  // O6 and L6
    {Quantity::position, 0x01, 0, 6, Use::set},     {Quantity::torque_limit, 0x02, 0, 6, Use::set},
    {Quantity::speed, 0x05, 0, 6, Use::set},        {Quantity::acceleration, 0x07, 0, 6, Use::set},
    {Quantity::temperature, 0x33, 0, 6, Use::ask},  {Quantity::fault, 0x35, 0, 6, Use::ask},
    {Quantity::current, 0x36, 0, 6, Use::ask},
};
constexpr Group kL7[] = {
    {Quantity::position, 0x01, 0, 7, Use::set},    {Quantity::torque_limit, 0x02, 0, 7, Use::set},
    {Quantity::speed, 0x05, 0, 7, Use::set},       {Quantity::temperature, 0x33, 0, 7, Use::ask},
    {Quantity::fault, 0x35, 0, 7, Use::ask},
};
constexpr Group kL10[] = {
    {Quantity::position, 0x04, 6, 4, Use::set},
    {Quantity::position, 0x01, 0, 6, Use::set_silent},
    {Quantity::torque_limit, 0x02, 0, 5, Use::set_silent},
    {Quantity::torque_limit, 0x03, 5, 5, Use::set},
    {Quantity::speed, 0x05, 0, 5, Use::set},
    {Quantity::speed, 0x06, 5, 5, Use::set},
    {Quantity::temperature, 0x33, 0, 5, Use::ask},
    {Quantity::temperature, 0x34, 5, 5, Use::ask},
    {Quantity::fault, 0x35, 0, 5, Use::ask},
    {Quantity::fault, 0x36, 5, 5, Use::ask},
};
constexpr Group kL20[] = {
    {Quantity::position, 0x03, 10, 5, Use::set_silent},  // roll, used by the thumb only
    {Quantity::position, 0x04, 15, 5, Use::set_silent},  // tips
    {Quantity::position, 0x01, 0, 5, Use::set_silent},   // base pitch
    {Quantity::position, 0x02, 5, 5, Use::set_silent},   // yaw
    {Quantity::speed, 0x05, 0, 5, Use::set},
    {Quantity::current, 0x06, 0, 5, Use::set},
    {Quantity::fault, 0x07, 0, 5, Use::ask},
    {Quantity::temperature, 0x09, 0, 5, Use::ask},
    {Quantity::temperature, 0x0B, 5, 5, Use::ask},
    {Quantity::temperature, 0x0C, 10, 5, Use::ask},
    {Quantity::temperature, 0x0D, 15, 5, Use::ask},
    {Quantity::device_id, 0xC3, 0, 1, Use::set},
};
constexpr Group kEvery[] = {
    {Quantity::normal_force, 0x20, 0, 0, Use::ask},     {Quantity::tangential_force, 0x21, 0, 0, Use::ask},
    {Quantity::force_direction, 0x22, 0, 0, Use::ask},  {Quantity::proximity, 0x23, 0, 0, Use::ask},
    {Quantity::version, 0x64, 0, 0, Use::ask},          {Quantity::serial, 0xC0, 0, 0, Use::ask},
    {Quantity::hardware_version, 0xC1, 0, 0, Use::ask}, {Quantity::software_version, 0xC2, 0, 0, Use::ask},
    {Quantity::tactile_type, 0xB0, 0, 0, Use::ask},     {Quantity::tactile_thumb, 0xB1, 0, 0, Use::ask},
    {Quantity::tactile_index, 0xB2, 0, 0, Use::ask},    {Quantity::tactile_middle, 0xB3, 0, 0, Use::ask},
    {Quantity::tactile_ring, 0xB4, 0, 0, Use::ask},     {Quantity::tactile_little, 0xB5, 0, 0, Use::ask},
};

struct Groups {
  const Group* begin_;
  const Group* end_;
  const Group* begin() const { return begin_; }
  const Group* end() const { return end_; }
};

template <std::size_t N>
constexpr Groups all(const Group (&groups)[N]) {
  return {groups, groups + N};
}

Groups groups_of(Model model) {
  switch (model) {
    case Model::o6:
    case Model::l6: return all(kSix);
    case Model::l7: return all(kL7);
    case Model::l10: return all(kL10);
    case Model::l20: return all(kL20);
  }
  return {nullptr, nullptr};
}

const Group* find(Model model, std::uint8_t tag) {
  for (const Groups& groups : {groups_of(model), all(kEvery)})
    for (const Group& group : groups)
      if (group.tag == tag) return &group;
  return nullptr;
}

}  // namespace

std::size_t values_of(Model model, Quantity quantity) noexcept {
  std::size_t count = 0;
  for (const Group& group : groups_of(model))
    if (group.quantity == quantity) count += group.count;
  return count;
}

bool span(Model model, std::uint8_t tag, std::uint8_t& first, std::uint8_t& count) noexcept {
  const Group* group = find(model, tag);
  if (!group) return false;
  first = group->first;
  count = group->count;
  return true;
}

bool encode(std::uint32_t id, std::uint8_t tag, const std::uint8_t* values, std::size_t count, CanFrame& out) noexcept {
  if (id > kMostStandardId || count > kMostValues) return false;
  out = CanFrame{};
  out.id = id;
  out.size = static_cast<std::uint8_t>(1 + count);
  out.data[0] = tag;
  if (count > 0) std::memcpy(&out.data[1], values, count);
  return true;
}

std::size_t encode_set(Model model, Quantity quantity, std::uint32_t id, const std::uint8_t* values, bool reply,
                       CanFrame* out) noexcept {
  std::size_t frames = 0;
  for (const Group& group : groups_of(model)) {
    if (group.quantity != quantity) continue;
    if (group.use == Use::ask || (!reply && group.use != Use::set_silent)) return 0;
    const auto tag = static_cast<std::uint8_t>(reply ? group.tag : group.tag | kNoReply);
    if (!encode(id, tag, values + group.first, group.count, out[frames++])) return 0;
  }
  return frames;
}

std::size_t encode_query(Model model, Quantity quantity, std::uint32_t id, CanFrame* out) noexcept {
  std::size_t frames = 0;
  for (const Groups& groups : {groups_of(model), all(kEvery)})
    for (const Group& group : groups)
      if (group.quantity == quantity && !encode(id, group.tag, nullptr, 0, out[frames++])) return 0;
  return frames;
}

bool parse(Model model, const CanFrame& frame, Reply& reply, std::string& problem) {
  char line[160];
  const auto say = [&](const char* format, unsigned a, unsigned b, unsigned c) {
    std::snprintf(line, sizeof line, format, a, b, c);
    problem = line;
    return false;
  };
  if (frame.id > kMostStandardId) return say("CAN id: expected at most 7FF, got %X", frame.id, 0, 0);
  if (frame.remote || frame.size < 1 || frame.size > kMostCanData)
    return say("a reply has 2 to 8 bytes, got %u", frame.size, 0, 0);
  const std::uint8_t tag = frame.data[0];
  const Group* group = find(model, tag);
  if (!group) return say("tag %02X is unknown to this model", tag, 0, 0);
  const unsigned count = frame.size - 1u;
  if (count == 0) return say("tag %02X without values is a query, not a reply", tag, 0, 0);
  if (group->count != 0 && count != group->count)
    return say("tag %02X: expected %u values, got %u", tag, group->count, count);
  reply = {group->quantity, tag, group->first, static_cast<std::uint8_t>(count), &frame.data[1]};
  return true;
}

}  // namespace bridge::linkerhand
