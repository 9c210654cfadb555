// The registers of an Inspire hand over each of its four wires. Register memory is bytes, 16-bit values little endian
// in it, as in map A; a wire that orders them otherwise converts.
#pragma once

#include <memory>

#include "codecs/inspire_can.hpp"
#include "codecs/inspire_rs485.hpp"
#include "drivers/modbus_line.hpp"

namespace bridge {

constexpr std::size_t kMostInspireBytes = 24;  // of one read or write

class InspireWire {
 public:
  virtual ~InspireWire() = default;
  virtual void open() = 0;  // raises PortError
  virtual void close() = 0;
  virtual std::string name() const = 0;
  virtual bool low_latency() const { return false; }

  // `size` bytes from `address` on, at most kMostInspireBytes.
  virtual Outcome read(std::uint16_t address, std::size_t size, std::uint8_t* out) = 0;
  virtual Outcome write(std::uint16_t address, const std::uint8_t* data, std::size_t size) = 0;
  // The registers of one byte (CLEAR_ERROR).
  virtual Outcome write_byte(std::uint16_t address, std::uint8_t value) = 0;
  // Six bytes per group, one finger each (ERROR, STATUS, TEMP); `size` is a multiple of six.
  virtual Outcome read_bytes(std::uint16_t address, std::size_t size, std::uint8_t* out) {
    return read(address, size, out);
  }

  // Wire time of reading or writing six values; 0 where it hardly matters.
  virtual Nanos exchange_time() const = 0;
  virtual BusCounts counts() const = 0;
};

class InspireRs485Wire final : public InspireWire {
 public:
  InspireRs485Wire(std::unique_ptr<ByteStream> stream, std::uint8_t device_id, double reply_timeout_s)
      : line_(std::move(stream), reply_timeout_s), id_(device_id) {}

  void open() override;
  void close() override { line_.close(); }
  std::string name() const override { return line_.name(); }
  bool low_latency() const override { return line_.low_latency(); }
  Outcome read(std::uint16_t address, std::size_t size, std::uint8_t* out) override;
  Outcome write(std::uint16_t address, const std::uint8_t* data, std::size_t size) override;
  Outcome write_byte(std::uint16_t address, std::uint8_t value) override { return write(address, &value, 1); }
  Nanos exchange_time() const override { return line_.wire_time(29); }
  BusCounts counts() const override { return with(line_.counts(), replies_.counts()); }

 private:
  Outcome transact(const inspire::Frame& request, std::size_t size, const inspire::Expected& expected);

  Line line_;
  const std::uint8_t id_;
  inspire::ReplyStream replies_;
  inspire::Reply reply_;
};

class InspireModbusWire final : public InspireWire {
 public:
  // `high_first`: of the two fingers in one word of ERROR, STATUS and TEMP the high byte is the earlier one.
  InspireModbusWire(std::unique_ptr<ModbusLine> line, bool high_first) : line_(std::move(line)), high_first_(high_first) {}

  void open() override { line_->open(); }
  void close() override { line_->close(); }
  std::string name() const override { return line_->name(); }
  bool low_latency() const override { return line_->low_latency(); }
  Outcome read(std::uint16_t address, std::size_t size, std::uint8_t* out) override;
  Outcome write(std::uint16_t address, const std::uint8_t* data, std::size_t size) override;
  Outcome write_byte(std::uint16_t address, std::uint8_t value) override { return line_->write_one(address, value); }
  Outcome read_bytes(std::uint16_t address, std::size_t size, std::uint8_t* out) override;
  Nanos exchange_time() const override { return line_->exchange_time(27); }
  BusCounts counts() const override { return line_->counts(); }

 private:
  std::unique_ptr<ModbusLine> line_;
  const bool high_first_;
};

class InspireCanWire final : public InspireWire {
 public:
  InspireCanWire(std::unique_ptr<CanBus> bus, std::uint8_t device_id, double reply_timeout_s)
      : line_(std::move(bus), reply_timeout_s), id_(device_id) {}

  void open() override { line_.open(); }
  void close() override { line_.close(); }
  std::string name() const override { return line_.name(); }
  bool low_latency() const override { return line_.low_latency(); }
  Outcome read(std::uint16_t address, std::size_t size, std::uint8_t* out) override;
  Outcome write(std::uint16_t address, const std::uint8_t* data, std::size_t size) override;
  Outcome write_byte(std::uint16_t address, std::uint8_t value) override { return write(address, &value, 1); }
  Nanos exchange_time() const override { return 0; }
  BusCounts counts() const override { return line_.with_damage(); }

 private:
  // One frame out, one frame back that repeats its id.
  Outcome transact(const inspire_can::Frame& request, bool write, std::size_t wanted, std::uint8_t* out);

  CanLine line_;
  const std::uint8_t id_;
};

}  // namespace bridge
