#include "drivers/allegro_driver.hpp"

#include <algorithm>
#include <cerrno>
#include <cmath>

#include "drivers/line.hpp"

namespace bridge {

namespace message = allegro::message;

namespace {

constexpr double kPi = 3.14159265358979323846;
constexpr double kVelocityCutoff_hz = 30.0;
constexpr int kTemperature_ms = 200;
constexpr Nanos kFirstSets = kNanosPerSecond / 2;
constexpr Nanos kAlreadyThere = 20'000;  // no wait, but long enough for one look at the port
constexpr int kConnectTries = 3;
constexpr std::uint32_t kAllFingers = 0xF;
constexpr double kPlausible_rad = 0.6;  // outside of its range; the fingers are soft and calibrations drift

constexpr double kPwmPerNm_12v = 1200.0, kPwmPerNm_8v = 800.0;
constexpr double kMilliampsPerNm = 1430.0;
// V4: what the maker allows per joint, spread to tip.
constexpr double kMostFingerPwm[] = {375, 675, 450, 285}, kMostThumbPwm[] = {525, 405, 270, 270};
constexpr std::uint32_t kV4Faults = 1u << 1 | 1u << 2;  // of info's status: over-temperature, internal communication

double rad_per_count(allegro::Version version) {
  return (version == allegro::Version::v4 ? allegro::kDegreesPerCountV4 : allegro::kDegreesPerCountV5) * kPi / 180.0;
}

}  // namespace

AllegroDriver::AllegroDriver(std::unique_ptr<CanBus> bus, const AllegroSettings& settings,
                             const std::array<JointLimits, kMaxJoints>& limits)
    : line_(std::move(bus), settings.reply_timeout_s), settings_(settings), limits_(limits),
      period_ms_(std::max(1, static_cast<int>(1000.0 / settings.rate_hz))),
      filter_(std::exp(-2.0 * kPi * kVelocityCutoff_hz * period_ms_ * 1e-3)),
      health_every_(cycles_between(settings.rate_hz, 10)), info_every_(cycles_between(settings.rate_hz, 2)) {}

void AllegroDriver::connect() {
  line_.open();
  open_ = true;
  fingers_ = temperatures_ = 0;
  new_set_ = info_told_ = serial_told_ = moved_once_ = wrote_ = has_target_ = false;
  torque_on_ = true;  // for all we know: the last owner may have left some
  last_set_ = complained_ = 0;
  error_bits_.fill(0);
  next_health_ = next_info_ = 0;
  try {
    identify();
    Outcome outcome = start();
    if (outcome == Outcome::done) outcome = listen(monotonic_now() + kFirstSets, &AllegroDriver::has_new_set);
    if (outcome == Outcome::hung_up) throw PortError(EIO, line_.name() + ": was lost while connecting");
    if (outcome != Outcome::done)
      throw NoReply(line_.name() + ": the hand does not report its fingers; check power, its e-stop, wiring, termination "
                                   "and the bitrate");
  } catch (...) {
    disconnect();
    throw;
  }
}

// V4 and V5 share every id, and differ in the units of poses and torques: driving one as the other pushes in the wrong
// place. Asked with remote frames; nothing is set before the answer fits.
void AllegroDriver::identify() {
  for (int i = 0; i < kConnectTries && !has_said_all(); ++i) {
    Outcome outcome = ask(message::info);
    if (outcome == Outcome::done) outcome = ask(message::serial);
    if (outcome == Outcome::done)
      outcome = listen(monotonic_now() + nanos(settings_.reply_timeout_s), &AllegroDriver::has_said_all);
    if (outcome == Outcome::hung_up) throw PortError(EIO, line_.name() + ": was lost while connecting");
  }
  const bool v5_serial = serial_told_ && (serial_[2] == 'A' || serial_[2] == 'B') &&
                         (serial_[3] == 'L' || serial_[3] == 'R');
  const bool v5_info = info_told_ && info_[2] == 0 && info_[3] == 0 && info_[4] == 1;
  type_b_ = settings_.hardware ? settings_.hardware == 'B' : v5_serial && serial_[2] == 'B';
  if (settings_.trust_version) return;
  if (!info_told_ && !serial_told_)
    throw WrongHand(line_.name() + ": no hand says which version it is, as some do not; if it is the one you asked for, "
                                   "pass version_check=False");
  const bool v5 = serial_told_ ? v5_serial : v5_info;
  const bool wanted = settings_.version == allegro::Version::v5;
  if (v5 != wanted)
    throw WrongHand(line_.name() + ": this is not the version you asked for: it looks like a " + (v5 ? "V5" : "V4"));
  const bool knows_side = v5 ? v5_serial : info_told_;
  const bool left = v5 ? serial_[3] == 'L' : info_[2] == 1;
  if (knows_side && left != settings_.left)
    throw WrongHand(line_.name() + ": this is a " + (left ? "left" : "right") + " hand");
}

Outcome AllegroDriver::start() {
  Outcome outcome = send_zeros();
  if (outcome == Outcome::done) outcome = set_periods();
  if (outcome == Outcome::done) outcome = say(message::servo_on);
  return outcome;
}

void AllegroDriver::disconnect() {
  if (!open_) return;
  const Undisturbed farewell;
  open_ = false;
  for (int i = 0; i < kConnectTries && send_zeros() != Outcome::done; ++i) {
  }
  say(message::servo_off);
  line_.close();
}

// -- hearing

// Takes a frame in; false if it is none of this hand's.
bool AllegroDriver::hear(const CanFrame& frame) {
  if (frame.extended || frame.remote || frame.fd || (frame.id & 3u) != settings_.device || frame.id >> 2 > 0xFF)
    return false;
  const auto what = static_cast<std::uint8_t>(frame.id >> 2);
  const std::uint8_t* p = frame.data.data();
  if (what >= message::finger_pose && what < message::finger_pose + allegro::kFingers && frame.size == 8) {
    const int finger = what - message::finger_pose;
    for (int j = 0; j < 4; ++j) counts_[4 * finger + j] = static_cast<std::int16_t>(p[2 * j] | p[2 * j + 1] << 8);
    if (finger == 0) fingers_ = 0;  // a set begins with the first finger; half a set is no set
    fingers_ |= 1u << finger;
    if (fingers_ == kAllFingers) {
      fingers_ = 0;
      take_set(monotonic_now());
    }
    return true;
  }
  if (what >= message::temperature && what < message::temperature + allegro::kFingers && frame.size == 4) {
    if (settings_.version == allegro::Version::v4) return true;  // one number per finger, its unit is not known
    const int finger = what - message::temperature;
    for (int j = 0; j < 4; ++j) temperature_c_[4 * finger + j] = p[j];
    temperatures_ |= 1u << finger;
    return true;
  }
  if (what == message::error && frame.size == 2) {
    const int joint = p[0] - settings_.first_motor;
    if (joint >= 0 && joint < kJoints) error_bits_[joint] = static_cast<std::uint8_t>(error_bits_[joint] | p[1]);
    return true;
  }
  if (what == message::info && frame.size == 7) {
    info_ = {p[0] | p[1] << 8, p[2] | p[3] << 8, p[4], p[5], p[6]};
    info_told_ = true;
    return true;
  }
  if (what == message::serial && frame.size == 8) {
    for (int i = 0; i < 8; ++i) serial_[i] = p[i];
    return serial_told_ = true;
  }
  return what == message::imu || what == message::pressure || what == message::pressure + 2 ||
         what == message::pressure_old || what == message::pressure_old + 2;
}

void AllegroDriver::take_set(Nanos now) {
  Joints q{};
  for (int j = 0; j < kJoints; ++j) {
    q[j] = counts_[j] * rad_per_count(settings_.version);
    if (q[j] < limits_[j].lower_rad - kPlausible_rad || q[j] > limits_[j].upper_rad + kPlausible_rad) {
      ++line_.counts().implausible;
      return;
    }
  }
  // By the hand's own clock: frames wait in queues, so the time between two arrivals says less than the period.
  const Nanos period = period_ms_ * 1'000'000LL;
  const Nanos passed = std::max<Nanos>(1, (now - last_set_ + period / 2) / period) * period;
  for (int j = 0; j < kJoints && moved_once_; ++j)
    v_rad_s_[j] = filter_ * v_rad_s_[j] + (1.0 - filter_) * (q[j] - q_rad_[j]) / seconds(passed);
  if (!moved_once_) v_rad_s_.fill(0.0);
  moved_once_ = true;
  q_rad_ = q;
  last_set_ = now;
  new_set_ = true;
}

Outcome AllegroDriver::listen(Nanos deadline, bool (AllegroDriver::*enough)() const) {
  for (;;) {
    CanFrame frame;
    const IoStatus status = line_.bus().receive(frame, deadline);
    if (status == IoStatus::hung_up) return Outcome::hung_up;
    if (status != IoStatus::ok) return Outcome::timeout;
    if (!hear(frame)) ++line_.counts().foreign;
    if ((this->*enough)()) return Outcome::done;
  }
}

// The newest whole set; without one, a wait for half a period.
Outcome AllegroDriver::read_pose(std::uint64_t, Joints& q_rad) {
  if (!wrote_) {
    has_target_ = false;
    if (torque_on_ && send_zeros() == Outcome::hung_up) return Outcome::hung_up;
  }
  wrote_ = false;
  const Nanos give_up = monotonic_now() + period_ms_ * 500'000LL;
  while (monotonic_now() < give_up) {
    CanFrame frame;
    // What is there already is taken at once; only without a new set is it worth waiting.
    const IoStatus status = line_.bus().receive(frame, new_set_ ? monotonic_now() + kAlreadyThere : give_up);
    if (status == IoStatus::hung_up) return Outcome::hung_up;
    if (status != IoStatus::ok) break;
    if (!hear(frame)) ++line_.counts().foreign;
  }
  const Nanos now = monotonic_now();
  if (!new_set_) {
    // Two clocks beat: a cycle without a set is no error, many are, and are counted as one every 20 ms.
    if (fresh(now) || now - complained_ < kStale) return Outcome::nothing;
    complained_ = now;
    ++line_.counts().timeouts;
    return Outcome::timeout;
  }
  new_set_ = false;
  q_rad = q_rad_;
  return Outcome::done;
}

// -- saying

Outcome AllegroDriver::say(std::uint8_t what) {
  CanFrame frame;
  if (!allegro::encode_plain(settings_.device, what, frame)) return Outcome::not_representable;
  return line_.send(frame);
}

Outcome AllegroDriver::ask(std::uint8_t what) {
  CanFrame frame;
  if (!allegro::encode_request(settings_.device, what, frame)) return Outcome::not_representable;
  return line_.send(frame);
}

Outcome AllegroDriver::set_periods() {
  CanFrame frame;
  const int temperature_ms = settings_.version == allegro::Version::v5 ? kTemperature_ms : 0;
  if (!allegro::encode_periods(settings_.device, static_cast<std::int16_t>(period_ms_), 0,
                               static_cast<std::int16_t>(temperature_ms), frame))
    return Outcome::not_representable;
  return line_.send(frame);
}

Outcome AllegroDriver::send_torques(const Units& units) {
  for (int finger = 0; finger < allegro::kFingers; ++finger) {
    allegro::FingerValues values;
    std::copy_n(&units[4 * finger], 4, values.begin());
    CanFrame frame;
    if (!allegro::encode_finger(settings_.device, message::set_torque, finger, values, frame))
      return Outcome::not_representable;
    const Outcome outcome = line_.send(frame);
    if (outcome != Outcome::done) return outcome;
  }
  return Outcome::done;
}

Outcome AllegroDriver::send_zeros() {
  const Outcome outcome = send_torques(Units{});
  if (outcome == Outcome::done) torque_on_ = false;
  return outcome;
}

Outcome AllegroDriver::write_pose(const Joints& target) {
  for (int j = 0; j < kJoints; ++j)
    if (!std::isfinite(target[j]) || target[j] < limits_[j].lower_rad || target[j] > limits_[j].upper_rad)
      return Outcome::not_representable;
  wrote_ = true;
  if (!fresh(monotonic_now())) {  // blind: no torque; read_pose says so
    has_target_ = false;
    return send_zeros() == Outcome::hung_up ? Outcome::hung_up : Outcome::nothing;
  }
  const double units_per_nm = settings_.version == allegro::Version::v5 ? kMilliampsPerNm
                              : settings_.supply_v < 10.0              ? kPwmPerNm_8v
                                                                       : kPwmPerNm_12v;
  Units units{};
  for (int j = 0; j < kJoints; ++j) {
    const double wanted_speed = has_target_ ? (target[j] - target_[j]) * settings_.rate_hz : 0.0;
    double torque_nm = settings_.stiffness_nm_rad * (target[j] - q_rad_[j]) +
                       settings_.damping_nm_s_rad * (wanted_speed - v_rad_s_[j]);
    torque_nm = std::clamp(torque_nm, -settings_.max_torque_nm, settings_.max_torque_nm);
    double raw = torque_nm * units_per_nm;
    double most = allegro::kMostMilliamps;
    if (settings_.version == allegro::Version::v4) {
      const double share = units_per_nm / kPwmPerNm_12v;
      most = share * (j < 12 ? kMostFingerPwm[j % 4] : kMostThumbPwm[j % 4]);
    } else if (type_b_ && (j == 1 || j == 5 || j == 9)) {
      raw *= 0.5;
    }
    units[j] = static_cast<std::int16_t>(std::lround(std::clamp(raw, -most, most)));
  }
  target_ = target;
  has_target_ = true;
  torque_on_ = true;
  return send_torques(units);
}

Outcome AllegroDriver::release() {
  wrote_ = has_target_ = false;
  return send_zeros();
}

// Servos off and on again; the fingers are limp meanwhile.
Outcome AllegroDriver::clear_errors() {
  wrote_ = has_target_ = false;
  Outcome outcome = send_zeros();
  if (outcome == Outcome::done) outcome = say(message::servo_off);
  if (outcome == Outcome::done) outcome = start();
  error_bits_.fill(0);
  return outcome;
}

Outcome AllegroDriver::read_news(std::uint64_t cycle, Nanos, Telemetry& telemetry, News& news) {
  news = News::none;
  if (next_health_ <= cycle) {
    next_health_ = cycle + health_every_;
    const bool v4 = settings_.version == allegro::Version::v4;
    for (int j = 0; j < kJoints; ++j) {
      telemetry.error_bits[j] = error_bits_[j];
      if (v4 && info_told_) telemetry.error_bits[j] = static_cast<std::uint32_t>(info_[4]) & kV4Faults;
    }
    news = News::health;
    return Outcome::nothing;
  }
  if (temperatures_ == kAllFingers) {
    temperatures_ = 0;
    for (int j = 0; j < kJoints; ++j) telemetry.temperature_c[j] = temperature_c_[j];
    news = News::temperature;
    return Outcome::nothing;
  }
  // V4 tells its faults only when asked; the answer comes among the poses.
  if (settings_.version == allegro::Version::v4 && next_info_ <= cycle) {
    next_info_ = cycle + info_every_;
    return ask(message::info) == Outcome::hung_up ? Outcome::hung_up : Outcome::nothing;
  }
  return Outcome::nothing;
}

BusCounts AllegroDriver::counts() const { return line_.with_damage(); }

}  // namespace bridge
