// The registers of an Inspire hand over each of its four wires. Register memory is bytes, 16-bit values little endian
// in it, as in map A; a wire that orders them otherwise converts.
#pragma once

#include <memory>

#include "codecs/inspire_rs485.hpp"
#include "codecs/modbus.hpp"
#include "drivers/driver.hpp"
#include "io/can.hpp"
#include "io/stream.hpp"

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

// After an error the line must have been silent before the next request: a device that missed a byte listens again
// only then. Counts what came too late.
class Quiet {
 public:
  void want() { wanted_ = true; }
  IoStatus settle(ByteStream& stream, std::uint64_t& late);

 private:
  bool wanted_ = false;
};

class InspireRs485Wire final : public InspireWire {
 public:
  InspireRs485Wire(std::unique_ptr<ByteStream> stream, std::uint8_t device_id, double reply_timeout_s)
      : stream_(std::move(stream)), id_(device_id), timeout_(nanos(reply_timeout_s)) {}

  void open() override;
  void close() override { stream_->close(); }
  std::string name() const override { return stream_->name(); }
  bool low_latency() const override { return stream_->low_latency(); }
  Outcome read(std::uint16_t address, std::size_t size, std::uint8_t* out) override;
  Outcome write(std::uint16_t address, const std::uint8_t* data, std::size_t size) override;
  Outcome write_byte(std::uint16_t address, std::uint8_t value) override { return write(address, &value, 1); }
  Nanos exchange_time() const override { return stream_->wire_time(29); }
  BusCounts counts() const override;

 private:
  Outcome transact(const inspire::Frame& request, std::size_t size, const inspire::Expected& expected);

  std::unique_ptr<ByteStream> stream_;
  const std::uint8_t id_;
  const Nanos timeout_;
  inspire::ReplyStream replies_;
  inspire::Reply reply_;
  BusCounts counts_;
  Quiet quiet_;
};

class InspireModbusWire final : public InspireWire {
 public:
  // `high_first`: of the two fingers in one word of ERROR, STATUS and TEMP the high byte is the earlier one.
  InspireModbusWire(std::unique_ptr<ByteStream> stream, modbus::Wire wire, std::uint8_t device_id,
                    double reply_timeout_s, bool high_first, bool echoes)
      : stream_(std::move(stream)), wire_(wire), id_(device_id), timeout_(nanos(reply_timeout_s)),
        high_first_(high_first), replies_(wire, echoes) {}

  void open() override;
  void close() override { stream_->close(); }
  std::string name() const override { return stream_->name(); }
  bool low_latency() const override { return stream_->low_latency(); }
  Outcome read(std::uint16_t address, std::size_t size, std::uint8_t* out) override;
  Outcome write(std::uint16_t address, const std::uint8_t* data, std::size_t size) override;
  Outcome write_byte(std::uint16_t address, std::uint8_t value) override;
  Outcome read_bytes(std::uint16_t address, std::size_t size, std::uint8_t* out) override;
  Nanos exchange_time() const override { return stream_->wire_time(27) + silence(); }
  BusCounts counts() const override;

 private:
  Outcome transact(const modbus::Request& request, const std::uint8_t* data);
  Nanos silence() const { return wire_ == modbus::Wire::rtu ? kFrameGap : 0; }
  // Between RTU frames: 1.75 ms above 19200 baud, 3.5 characters below, which is never more than 4 ms at 9600.
  static constexpr Nanos kFrameGap = 1'750'000;

  std::unique_ptr<ByteStream> stream_;
  const modbus::Wire wire_;
  const std::uint8_t id_;
  const Nanos timeout_;
  const bool high_first_;
  modbus::ReplyStream replies_;
  modbus::Reply reply_;
  std::uint16_t transaction_ = 0;
  Nanos free_at_ = 0;
  BusCounts counts_;
  Quiet quiet_;
};

class InspireCanWire final : public InspireWire {
 public:
  InspireCanWire(std::unique_ptr<CanBus> bus, std::uint8_t device_id, double reply_timeout_s)
      : bus_(std::move(bus)), id_(device_id), timeout_(nanos(reply_timeout_s)) {}

  void open() override { bus_->open(); }
  void close() override { bus_->close(); }
  std::string name() const override { return bus_->name(); }
  bool low_latency() const override { return bus_->low_latency(); }
  Outcome read(std::uint16_t address, std::size_t size, std::uint8_t* out) override;
  Outcome write(std::uint16_t address, const std::uint8_t* data, std::size_t size) override;
  Outcome write_byte(std::uint16_t address, std::uint8_t value) override { return write(address, &value, 1); }
  Nanos exchange_time() const override { return 0; }
  BusCounts counts() const override;

 private:
  // One frame out, one frame back that repeats its id.
  Outcome transact(const CanFrame& request, bool write, std::size_t wanted, std::uint8_t* out);

  std::unique_ptr<CanBus> bus_;
  const std::uint8_t id_;
  const Nanos timeout_;
  BusCounts counts_;
};

}  // namespace bridge
