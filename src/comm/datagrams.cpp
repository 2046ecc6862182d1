#include "comm/datagrams.hpp"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "lockstep/core/error.hpp"

namespace lockstep::comm {

Datagrams::Datagrams() : socket_(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  socklen_t size = sizeof address;
  auto* const general = reinterpret_cast<sockaddr*>(&address);
  if (socket_ < 0 || bind(socket_, general, size) != 0 ||
      getsockname(socket_, general, &size) != 0) {
    const std::string reason = std::strerror(errno);
    if (socket_ >= 0) close(socket_);
    throw MpiError("no UDP socket for reports of where the ranks are: " + reason);
  }
  port_ = ntohs(address.sin_port);
}

Datagrams::~Datagrams() { close(socket_); }

void Datagrams::send(const sockaddr_in& to, std::string_view text) const noexcept {
  sendto(socket_, text.data(), text.size(), MSG_DONTWAIT | MSG_NOSIGNAL,
         reinterpret_cast<const sockaddr*>(&to), sizeof to);
}

std::optional<Datagrams::Received> Datagrams::receive(std::chrono::milliseconds timeout) const {
  pollfd ready{socket_, POLLIN, 0};
  if (poll(&ready, 1, static_cast<int>(timeout.count())) <= 0) return {};
  Received received;
  received.text.resize(1 << 16);
  socklen_t size = sizeof received.from;
  const ssize_t bytes = recvfrom(socket_, received.text.data(), received.text.size(), MSG_DONTWAIT,
                                 reinterpret_cast<sockaddr*>(&received.from), &size);
  if (bytes < 0) return {};
  received.text.resize(static_cast<std::size_t>(bytes));
  return received;
}

std::vector<std::uint32_t> own_addresses() {
  std::vector<std::uint32_t> addresses;
  ifaddrs* interfaces = nullptr;
  if (getifaddrs(&interfaces) == 0) {
    for (const ifaddrs* one = interfaces; one != nullptr; one = one->ifa_next) {
      if (one->ifa_addr == nullptr || one->ifa_addr->sa_family != AF_INET) continue;
      if ((one->ifa_flags & IFF_LOOPBACK) != 0 || (one->ifa_flags & IFF_UP) == 0) continue;
      addresses.push_back(reinterpret_cast<const sockaddr_in*>(one->ifa_addr)->sin_addr.s_addr);
    }
    freeifaddrs(interfaces);
  }
  addresses.push_back(htonl(INADDR_LOOPBACK));
  return addresses;
}

}  // namespace lockstep::comm
