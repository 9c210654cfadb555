// Makes the drivers: from a port and settings to a handle that start_loop takes.
#include "bind_support.hpp"
#include "drivers/inspire_driver.hpp"
#include "drivers/leap_driver.hpp"
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
std::unique_ptr<CanBus> can_bus(const std::string& port) {
  constexpr const char* kSlcan = "slcan:";
  constexpr int kAnyBaud = 115200;  // USB adapters ignore it
  const std::size_t prefix = std::char_traits<char>::length(kSlcan);
  if (port.compare(0, prefix, kSlcan) == 0) return std::make_unique<SlcanBus>(port.substr(prefix), kAnyBaud, '8');
  return std::make_unique<SocketCanBus>(port);
}

std::unique_ptr<InspireWire> inspire_wire(const std::string& wire, const std::string& port, int baud,
                                          std::uint8_t device_id, double reply_timeout_s, bool high_byte_first,
                                          bool echoes) {
  if (wire == "rs485")
    return std::make_unique<InspireRs485Wire>(std::make_unique<SerialPort>(port, baud), device_id, reply_timeout_s);
  if (wire == "modbus")
    return std::make_unique<InspireModbusWire>(std::make_unique<SerialPort>(port, baud), modbus::Wire::rtu, device_id,
                                               reply_timeout_s, high_byte_first, echoes);
  if (wire == "tcp")  // `baud` is the TCP port
    return std::make_unique<InspireModbusWire>(std::make_unique<TcpSocket>(port, baud), modbus::Wire::tcp, device_id,
                                               reply_timeout_s, high_byte_first, false);
  if (wire == "can") return std::make_unique<InspireCanWire>(can_bus(port), device_id, reply_timeout_s);
  throw std::invalid_argument("unknown wire '" + wire + "'");
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

}  // namespace

void bind_drivers(nb::module_& m) {
  nb::class_<DriverHandle>(m, "Driver").def_prop_ro(
      "joints", [](const DriverHandle& self) { return self.driver ? self.driver->joints() : 0; });
  m.def("inspire_driver", &inspire_driver, "wire"_a, "port"_a, "baud"_a, "device_id"_a, "rate_hz"_a,
        "reply_timeout_s"_a, "speed"_a, "force_g"_a, "trust_family"_a, "high_byte_first"_a, "echoes"_a, "limits"_a);
  m.def("leap_driver", &leap_driver, "port"_a, "baud"_a, "rate_hz"_a, "reply_timeout_s"_a, "current_ma"_a, "p_gain"_a,
        "d_gain"_a, "fast_read"_a, "limits"_a);
}

}  // namespace bridge
