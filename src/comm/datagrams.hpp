#pragma once

#include <netinet/in.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lockstep::comm {

/// A UDP socket, of any free port of all addresses of this host.
class Datagrams {
 public:
  /// MpiError where there is none to be had.
  Datagrams();
  ~Datagrams();
  Datagrams(const Datagrams&) = delete;
  Datagrams& operator=(const Datagrams&) = delete;

  int descriptor() const noexcept { return socket_; }
  std::uint16_t port() const noexcept { return port_; }

  /// Up to 60,000 bytes, which may be lost on their way.
  void send(const sockaddr_in& to, std::string_view text) const noexcept;

  struct Received {
    sockaddr_in from;
    std::string text;
  };
  /// The next one; nothing where none comes so long.
  std::optional<Received> receive(std::chrono::milliseconds timeout) const;

 private:
  int socket_ = -1;
  std::uint16_t port_ = 0;
};

/// The IPv4 addresses of this host, in network byte order, the loopback last.
std::vector<std::uint32_t> own_addresses();

}  // namespace lockstep::comm
