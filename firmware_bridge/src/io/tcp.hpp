// A TCP connection for Modbus TCP: no delay, and gone as soon as the peer is.
#pragma once

#include "io/stream.hpp"

namespace bridge {

class TcpSocket final : public ByteStream {
 public:
  TcpSocket(std::string host, int port) : host_(std::move(host)), port_(port) {}
  ~TcpSocket() override { close(); }

  // PortError: ENOENT (no such host), ECONNREFUSED, ETIMEDOUT, ...
  void open() override;
  std::string name() const override { return host_ + ":" + std::to_string(port_); }

 private:
  const std::string host_;
  const int port_;
};

}  // namespace bridge
