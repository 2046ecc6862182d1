#pragma once

#include <nlohmann/json.hpp>

#include <chrono>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "comm/datagrams.hpp"
#include "comm/stack_probe.hpp"
#include "comm/stall_report.hpp"
#include "lockstep/comm/communicator.hpp"

namespace lockstep::comm {

/// What the watchdogs of all ranks say to each other. Each answers on one socket, by serve(), and asks by collect(), which
/// has a socket of its own: so a thread may ask while another one answers.
class WatchdogPeers {
 public:
  /// Collective.
  explicit WatchdogPeers(const Communicator& ranks);

  int descriptor() const noexcept { return socket_.descriptor(); }
  int rank() const noexcept { return rank_; }
  const std::string& host() const noexcept { return own().host; }

  /// Answers the next of those who ask, if one does. Returns whether this process is to end, as one on this host says.
  bool serve();

  /// The states of all ranks, or nothing where `claim`, and another rank has begun to ask for the same reason before.
  /// `serve`: this is the thread that answers others, and does so meanwhile.
  std::optional<std::vector<RankState>> collect(bool claim, bool serve);

  /// Tells the other ranks of this host to end.
  void end_host() const;

 private:
  using Clock = std::chrono::steady_clock;
  using Json = nlohmann::json;

  struct Peer {
    std::string host;
    int process = 0;
    std::vector<sockaddr_in> addresses;
  };
  /// Who has begun to ask for a deadline's sake.
  struct Claim {
    int rank = 0;
    Clock::time_point time;
  };

  const Peer& own() const noexcept { return peers_[static_cast<std::size_t>(rank_)]; }
  RankState own_state() const;
  void send_to(int rank, const Json& message, const Datagrams& from) const;
  Json parse(const std::string& text) const;
  bool answer(const Datagrams::Received& received);
  void note_claim(int rank, Clock::time_point time);
  bool is_first(Clock::time_point since) const;
  void explain_silence(std::vector<RankState>& states, const Datagrams& socket) const;

  Datagrams socket_;
  StackProbe probe_;
  int rank_;
  std::string token_;
  std::vector<Peer> peers_;
  mutable std::mutex mutex_;
  std::vector<Claim> claims_;
};

}  // namespace lockstep::comm
