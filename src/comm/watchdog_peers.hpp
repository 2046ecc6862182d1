#pragma once

#include <nlohmann/json.hpp>

#include <atomic>
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
  /// Collective. MpiError where a rank gets no socket.
  explicit WatchdogPeers(const Communicator& ranks);

  int descriptor() const noexcept { return socket_->descriptor(); }
  int rank() const noexcept { return rank_; }
  const std::string& host() const noexcept { return own().host; }

  /// Answers the next of those who ask, if one does. Returns whether this process is to end, as one on this host says.
  /// Nothing that comes from others, or lacks here, makes it throw.
  bool serve() noexcept;

  /// Why the states of all ranks are asked for. Of several ranks that do so for the same reason, but a call, the first one
  /// reports.
  enum class Reason : std::uint8_t { call, deadline, signal, failure };

  /// The states of all ranks, or nothing where another rank reports. `serve`: this is the thread that answers others, and
  /// does so meanwhile.
  std::optional<std::vector<RankState>> collect(Reason reason, bool serve);

  /// Where a signal that ends this process has come, 100 ms ago: tells that to the first ranks, of which each waits until all ranks have
  /// told the same. The states of all where some have not within 300 ms, and this is the first of those that have; else
  /// nothing. By the thread that answers others.
  std::optional<std::vector<RankState>> end_together();

  /// Whether one of the ranks has reported a deadline or a failure in the last 10 s.
  bool was_reported() const;

  /// Tells the other ranks of this host to end.
  void end_host() const;

  /// From now on this rank makes no call any more, as others hear that ask.
  void leave() noexcept { left_ = Clock::now().time_since_epoch().count(); }
  /// Whether another rank has left, 1.5 s ago or before. Waits 50 ms at most for its answer.
  bool has_left(int rank) const;

 private:
  using Clock = std::chrono::steady_clock;
  using Json = nlohmann::json;

  struct Peer {
    std::string host;
    int process = 0;
    std::vector<sockaddr_in> addresses;
  };
  /// Who has begun to ask, or has all answers and reports.
  struct Claim {
    int rank = 0;
    Reason reason = Reason::call;
    bool reports = false;
    Clock::time_point heard;  // here, since no two hosts have the same clock
  };

  const Peer& own() const noexcept { return peers_[static_cast<std::size_t>(rank_)]; }
  RankState own_state() const;
  std::vector<RankState> silent_states() const;
  void send_to(int rank, const Json& message, const Datagrams& from) const;
  Json parse(const std::string& text) const;
  bool answer(const Datagrams::Received& received);
  void note_claim(const Claim& claim);
  bool has_heard_of_another(Reason reason) const;
  static std::chrono::milliseconds lasting(Reason reason);
  static Json to_json(const RankState& state);
  static void read_state(const Json& json, RankState& state);
  static Json to_json(const Claim& claim);
  static Claim to_claim(const Json& json);
  void explain_silence(std::vector<RankState>& states, const Datagrams& socket) const;

  std::optional<Datagrams> socket_;
  StackProbe probe_;
  int rank_;
  std::string token_;
  std::vector<Peer> peers_;
  mutable std::mutex mutex_;
  std::vector<Claim> claims_;
  std::vector<RankState> ended_;      // what end_together() has heard
  std::atomic<Clock::rep> left_ = 0;  // when this rank has; 0 as long as it has not
};

}  // namespace lockstep::comm
