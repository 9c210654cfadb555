// Registers of a Modbus device, over RTU, TCP, or RTU frames inside CAN-FD.
#pragma once

#include <memory>

#include "codecs/modbus.hpp"
#include "drivers/can_line.hpp"
#include "drivers/line.hpp"

namespace bridge {

class ModbusLine {
 public:
  explicit ModbusLine(std::uint8_t device_id) : id_(device_id) {}
  virtual ~ModbusLine() = default;
  virtual void open() = 0;  // raises PortError
  virtual void close() = 0;
  virtual std::string name() const = 0;
  virtual bool low_latency() const { return false; }
  virtual Nanos exchange_time(std::size_t bytes) const = 0;  // of a request and its answer; 0 where it hardly matters
  virtual BusCounts counts() const = 0;

  std::uint8_t id() const { return id_; }
  // `words` are host integers. Refused: the device answered with an exception; see exception().
  Outcome read(modbus::Function function, std::uint16_t address, std::size_t count, std::uint16_t* words);
  Outcome write(std::uint16_t address, std::size_t count, const std::uint16_t* words);
  Outcome write_one(std::uint16_t address, std::uint16_t word);
  // The code of the last answer, 0 if it was none.
  std::uint8_t exception() const { return reply_.exception; }

 protected:
  // Fills reply_ on done and on refused. `data` as in modbus::encode.
  virtual Outcome transact(const modbus::Request& request, const std::uint8_t* data) = 0;
  modbus::Reply reply_;

 private:
  modbus::Request request(modbus::Function function, std::uint16_t address, std::size_t count) const;
  const std::uint8_t id_;
};

class ModbusStreamLine final : public ModbusLine {
 public:
  ModbusStreamLine(std::unique_ptr<ByteStream> stream, modbus::Wire wire, std::uint8_t device_id,
                   double reply_timeout_s, bool echoes, double gap_s = kFrameGap_s)
      : ModbusLine(device_id),
        line_(std::move(stream), reply_timeout_s, wire == modbus::Wire::rtu ? kSilence : 0,
              wire == modbus::Wire::rtu ? nanos(gap_s) : 0),
        wire_(wire), replies_(wire, echoes) {}

  void open() override {
    line_.open();
    replies_.clear();
  }
  void close() override { line_.close(); }
  std::string name() const override { return line_.name(); }
  bool low_latency() const override { return line_.low_latency(); }
  Nanos exchange_time(std::size_t bytes) const override { return line_.wire_time(bytes) + line_.gap(); }
  BusCounts counts() const override { return with(line_.counts(), replies_.counts()); }

  // Between RTU frames: 1.75 ms above 19200 baud, below 3.5 characters, which the line sees to.
  static constexpr double kFrameGap_s = 0.00175;

 protected:
  Outcome transact(const modbus::Request& request, const std::uint8_t* data) override;

 private:
  static constexpr Nanos kSilence = 3'000'000;  // of RTU; TCP tells late replies by their transaction
  Line line_;
  const modbus::Wire wire_;
  modbus::ReplyStream replies_;
  std::uint16_t transaction_ = 0;
};

// BrainCo's way: the RTU frame inside an extended CAN-FD frame (codecs/brainco_can.hpp).
class ModbusCanFdLine final : public ModbusLine {
 public:
  ModbusCanFdLine(std::unique_ptr<CanBus> bus, std::uint8_t device_id, std::uint8_t master_id, double reply_timeout_s)
      : ModbusLine(device_id), line_(std::move(bus), reply_timeout_s), master_(master_id) {}

  void open() override { line_.open(); }
  void close() override { line_.close(); }
  std::string name() const override { return line_.name(); }
  bool low_latency() const override { return line_.low_latency(); }
  Nanos exchange_time(std::size_t) const override { return 0; }
  BusCounts counts() const override { return line_.with_damage(); }

 protected:
  Outcome transact(const modbus::Request& request, const std::uint8_t* data) override;

 private:
  CanLine line_;
  const std::uint8_t master_;
};

}  // namespace bridge
