// Makes the drivers: from a port and settings to a handle that start_loop takes.
#include <nanobind/stl/vector.h>

#include "bind_support.hpp"
#include "drivers/ability_driver.hpp"
#include "drivers/allegro_driver.hpp"
#include "drivers/brainco_driver.hpp"
#include "drivers/inspire_driver.hpp"
#include "drivers/leap_driver.hpp"
#include "drivers/linkerhand_driver.hpp"
#include "drivers/rohand_driver.hpp"
#include "io/serial.hpp"
#include "io/slcan_bus.hpp"
#include "io/socketcan.hpp"
#include "io/tcp.hpp"

namespace bridge {
namespace {

std::unique_ptr<DriverHandle> handle(std::unique_ptr<Driver> driver) {
  auto made = std::make_unique<DriverHandle>();
  made->driver = std::move(driver);
  return made;
}

void expect_joints(const Limits& limits, int joints) {
  if (limits.joints != joints)
    throw std::invalid_argument("this hand has " + std::to_string(joints) + " joints, got limits of " +
                                std::to_string(limits.joints));
}

// `can0`, or `slcan:/dev/ttyACM0`.
std::unique_ptr<CanBus> can_bus(const std::string& port, bool fd = false) {
  constexpr const char* kSlcan = "slcan:";
  constexpr int kAnyBaud = 115200;  // USB adapters ignore it
  const std::size_t prefix = std::char_traits<char>::length(kSlcan);
  if (port.compare(0, prefix, kSlcan) == 0) return std::make_unique<SlcanBus>(port.substr(prefix), kAnyBaud, '8', fd);
  return std::make_unique<SocketCanBus>(port, fd);
}

std::unique_ptr<InspireWire> inspire_wire(const std::string& wire, const std::string& port, int baud,
                                          std::uint8_t device_id, double reply_timeout_s, bool high_byte_first,
                                          bool echoes) {
  if (wire == "rs485")
    return std::make_unique<InspireRs485Wire>(std::make_unique<SerialPort>(port, baud), device_id, reply_timeout_s);
  if (wire == "can") return std::make_unique<InspireCanWire>(can_bus(port), device_id, reply_timeout_s);
  std::unique_ptr<ModbusLine> line;
  if (wire == "modbus")
    line = std::make_unique<ModbusStreamLine>(std::make_unique<SerialPort>(port, baud), modbus::Wire::rtu, device_id,
                                              reply_timeout_s, echoes);
  else if (wire == "tcp")  // `baud` is the TCP port
    line = std::make_unique<ModbusStreamLine>(std::make_unique<TcpSocket>(port, baud), modbus::Wire::tcp, device_id,
                                              reply_timeout_s, false);
  else
    throw std::invalid_argument("unknown wire '" + wire + "'");
  return std::make_unique<InspireModbusWire>(std::move(line), high_byte_first);
}

std::unique_ptr<DriverHandle> inspire_driver(const std::string& wire, const std::string& port, int baud, int device_id,
                                             double rate_hz, double reply_timeout_s, int speed, int force_g,
                                             bool trust_family, bool high_byte_first, bool echoes,
                                             const Limits& limits) {
  expect_joints(limits, inspire::kJoints);
  InspireSettings settings;
  settings.rate_hz = rate_hz;
  settings.speed = speed;
  settings.force_g = force_g;
  settings.trust_family = trust_family;
  return handle(std::make_unique<InspireDriver>(
      inspire_wire(wire, port, baud, static_cast<std::uint8_t>(device_id), reply_timeout_s, high_byte_first, echoes),
      settings, limits.values));
}

std::unique_ptr<DriverHandle> leap_driver(const std::string& port, int baud, double rate_hz, double reply_timeout_s,
                                          int current_ma, int p_gain, int d_gain, bool fast_read,
                                          const Limits& limits) {
  expect_joints(limits, LeapDriver::kServos);
  LeapSettings settings;
  settings.rate_hz = rate_hz;
  settings.reply_timeout_s = reply_timeout_s;
  settings.current_ma = current_ma;
  settings.p_gain = p_gain;
  settings.d_gain = d_gain;
  settings.fast_read = fast_read;
  return handle(std::make_unique<LeapDriver>(std::make_unique<SerialPort>(port, baud), settings, limits.values));
}

linkerhand::Model linkerhand_model(const std::string& name) {
  if (name == "o6") return linkerhand::Model::o6;
  if (name == "l6") return linkerhand::Model::l6;
  if (name == "l7") return linkerhand::Model::l7;
  if (name == "l10") return linkerhand::Model::l10;
  if (name == "l20") return linkerhand::Model::l20;
  throw std::invalid_argument("unknown LinkerHand '" + name + "'");
}

std::unique_ptr<DriverHandle> linkerhand_driver(const std::string& model, const std::string& port, int device_id,
                                                bool left, double rate_hz, double reply_timeout_s, int degrees,
                                                const std::vector<int>& wire, double frame_gap_s, int speed,
                                                int torque, bool trust_model, const Limits& limits) {
  expect_joints(limits, static_cast<int>(wire.size()));
  LinkerhandSettings settings;
  settings.model = linkerhand_model(model);
  settings.can_id = static_cast<std::uint32_t>(device_id);
  settings.side = left ? 'L' : 'R';
  settings.degrees = degrees;
  settings.rate_hz = rate_hz;
  settings.reply_timeout_s = reply_timeout_s;
  settings.frame_gap_s = frame_gap_s;
  settings.speed = speed;
  settings.torque = torque;
  settings.trust_model = trust_model;
  const int known = static_cast<int>(linkerhand::values_of(settings.model, linkerhand::Quantity::position));
  for (std::size_t j = 0; j < wire.size(); ++j) {
    if (wire[j] < 0 || wire[j] >= known) throw std::invalid_argument("wire: no such joint " + std::to_string(wire[j]));
    settings.wire[j] = wire[j];
  }
  return handle(std::make_unique<LinkerhandDriver>(can_bus(port), settings, limits.joints, limits.values));
}

std::unique_ptr<ModbusLine> rtu_line(const std::string& port, int baud, int device_id, double reply_timeout_s,
                                     double frame_gap_s, bool echoes) {
  return std::make_unique<ModbusStreamLine>(std::make_unique<SerialPort>(port, baud), modbus::Wire::rtu,
                                            static_cast<std::uint8_t>(device_id), reply_timeout_s, echoes, frame_gap_s);
}

std::unique_ptr<DriverHandle> rohand_driver(const std::string& port, int baud, int device_id, double rate_hz,
                                            double reply_timeout_s, double frame_gap_s, bool echoes, int speed,
                                            int current_ma, bool stall_is_fault, const Limits& limits) {
  expect_joints(limits, RohandDriver::kFingers);
  RohandSettings settings;
  settings.rate_hz = rate_hz;
  settings.speed = speed;
  settings.current_ma = current_ma;
  settings.stall_is_fault = stall_is_fault;
  return handle(std::make_unique<RohandDriver>(rtu_line(port, baud, device_id, reply_timeout_s, frame_gap_s, echoes),
                                               settings, limits.values));
}

std::unique_ptr<DriverHandle> revo2_driver(const std::string& wire, const std::string& port, int baud, int device_id,
                                           bool left, double rate_hz, double reply_timeout_s, double frame_gap_s,
                                           bool echoes, int master_id, int speed, bool stall_is_fault,
                                           bool trust_family, const Limits& limits) {
  expect_joints(limits, kRevo2Fingers);
  Revo2Settings settings;
  settings.rate_hz = rate_hz;
  settings.left = left;
  settings.stall_is_fault = stall_is_fault;
  settings.trust_family = trust_family;
  const auto id = static_cast<std::uint8_t>(device_id);
  std::unique_ptr<Revo2Wire> carrier;
  if (wire == "modbus")
    carrier = std::make_unique<Revo2RegisterWire>(
        rtu_line(port, baud, device_id, reply_timeout_s, frame_gap_s, echoes), speed);
  else if (wire == "canfd")
    carrier = std::make_unique<Revo2RegisterWire>(
        std::make_unique<ModbusCanFdLine>(can_bus(port, true), id, static_cast<std::uint8_t>(master_id),
                                          reply_timeout_s),
        speed);
  else if (wire == "can")
    carrier = std::make_unique<Revo2CanWire>(can_bus(port), id, reply_timeout_s);
  else
    throw std::invalid_argument("unknown wire '" + wire + "'");
  return handle(std::make_unique<Revo2Driver>(std::move(carrier), settings, limits.values));
}

std::unique_ptr<DriverHandle> ability_driver(const std::string& port, int baud, int device_id, double rate_hz,
                                             double reply_timeout_s, double counts_per_ampere, bool stall_is_fault,
                                             const Limits& limits) {
  expect_joints(limits, ability::kJoints);
  AbilitySettings settings;
  settings.rate_hz = rate_hz;
  settings.reply_timeout_s = reply_timeout_s;
  settings.address = static_cast<std::uint8_t>(device_id);
  settings.counts_per_ampere = counts_per_ampere;
  settings.stall_is_fault = stall_is_fault;
  return handle(std::make_unique<AbilityDriver>(std::make_unique<SerialPort>(port, baud), settings, limits.values));
}

std::unique_ptr<DriverHandle> allegro_driver(int version, const std::string& port, int device_id, bool left,
                                             double rate_hz, double reply_timeout_s, double stiffness_nm_rad,
                                             double damping_nm_s_rad, double max_torque_nm, double supply_v,
                                             bool trust_version, const std::string& hardware, int first_motor,
                                             const Limits& limits) {
  expect_joints(limits, AllegroDriver::kJoints);
  AllegroSettings settings;
  settings.version = version == 4 ? allegro::Version::v4 : allegro::Version::v5;
  settings.device = static_cast<std::uint8_t>(device_id);
  settings.left = left;
  settings.rate_hz = rate_hz;
  settings.reply_timeout_s = reply_timeout_s;
  settings.stiffness_nm_rad = stiffness_nm_rad;
  settings.damping_nm_s_rad = damping_nm_s_rad;
  settings.max_torque_nm = max_torque_nm;
  settings.supply_v = supply_v;
  settings.trust_version = trust_version;
  settings.hardware = hardware.empty() ? '\0' : hardware[0];
  settings.first_motor = first_motor;
  return handle(std::make_unique<AllegroDriver>(can_bus(port), settings, limits.values));
}

}  // namespace

void bind_drivers(nb::module_& m) {
  nb::class_<DriverHandle>(m, "Driver").def_prop_ro(
      "joints", [](const DriverHandle& self) { return self.driver ? self.driver->joints() : 0; });
  m.def("inspire_driver", &inspire_driver, "wire"_a, "port"_a, "baud"_a, "device_id"_a, "rate_hz"_a,
        "reply_timeout_s"_a, "speed"_a, "force_g"_a, "trust_family"_a, "high_byte_first"_a, "echoes"_a, "limits"_a);
  m.def("leap_driver", &leap_driver, "port"_a, "baud"_a, "rate_hz"_a, "reply_timeout_s"_a, "current_ma"_a, "p_gain"_a,
        "d_gain"_a, "fast_read"_a, "limits"_a);
  m.def("linkerhand_driver", &linkerhand_driver, "model"_a, "port"_a, "device_id"_a, "left"_a, "rate_hz"_a,
        "reply_timeout_s"_a, "degrees"_a, "wire"_a, "frame_gap_s"_a, "speed"_a, "torque"_a, "trust_model"_a,
        "limits"_a);
  m.def("rohand_driver", &rohand_driver, "port"_a, "baud"_a, "device_id"_a, "rate_hz"_a, "reply_timeout_s"_a,
        "frame_gap_s"_a, "echoes"_a, "speed"_a, "current_ma"_a, "stall_is_fault"_a, "limits"_a);
  m.def("revo2_driver", &revo2_driver, "wire"_a, "port"_a, "baud"_a, "device_id"_a, "left"_a, "rate_hz"_a,
        "reply_timeout_s"_a, "frame_gap_s"_a, "echoes"_a, "master_id"_a, "speed"_a, "stall_is_fault"_a,
        "trust_family"_a, "limits"_a);
  m.def("ability_driver", &ability_driver, "port"_a, "baud"_a, "device_id"_a, "rate_hz"_a, "reply_timeout_s"_a,
        "counts_per_ampere"_a, "stall_is_fault"_a, "limits"_a);
  m.def("allegro_driver", &allegro_driver, "version"_a, "port"_a, "device_id"_a, "left"_a, "rate_hz"_a,
        "reply_timeout_s"_a, "stiffness_nm_rad"_a, "damping_nm_s_rad"_a, "max_torque_nm"_a, "supply_v"_a,
        "trust_version"_a, "hardware"_a, "first_motor"_a, "limits"_a);
}

}  // namespace bridge
