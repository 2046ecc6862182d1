#include "comm/watchdog_peers.hpp"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <random>

#include "comm/place.hpp"

namespace lockstep::comm {
namespace {

using namespace std::chrono_literals;

// Datagrams may be lost, and so are sent again.
constexpr auto ask_again_after = 200ms;
constexpr auto longest_silence = 1000ms;
// So that those who ask at the same time hear of each other.
constexpr auto shortest_hearing = 100ms;

std::string random_token() {
  std::random_device source;
  std::string text;
  for (int i = 0; i < 4; ++i) text += fmt::format("{:08x}", source());
  return text;
}

// Of a process of this host, as /proc has it: 'T' is stopped; 0 where there is none.
char process_state(int process) {
  std::ifstream file(fmt::format("/proc/{}/stat", process));
  std::string text;
  std::getline(file, text);
  const std::size_t name_end = text.rfind(')');
  return name_end == std::string::npos || name_end + 2 >= text.size() ? '\0' : text[name_end + 2];
}

std::string describe_process(char state) {
  switch (state) {
    case '\0':
    case 'Z':
    case 'X':
      return "its process has ended";
    case 'T':
    case 't':
      return "its process is stopped";
    case 'D':
      return "its process waits for a disk or a driver";
    default:
      return std::string(still_runs);
  }
}

}  // namespace

WatchdogPeers::WatchdogPeers(const Communicator& ranks) : rank_(ranks.rank()) {
  std::string own;
  ranks.agree([&] {
    socket_.emplace();
    if (rank_ == 0) token_ = random_token();
    Json addresses = Json::array();
    for (const std::uint32_t address : own_addresses()) addresses.push_back(address);
    own = Json{{"host", Place::host()},
               {"process", getpid()},
               {"port", socket_->port()},
               {"addresses", addresses}}
              .dump();
  });
  ranks.broadcast(token_);
  std::string all;
  const std::vector<std::string> gathered = ranks.gather(own);
  ranks.agree([&] {
    if (rank_ == 0) all = fmt::format("[{}]", fmt::join(gathered, ","));
  });
  ranks.broadcast(all);
  ranks.agree([&] {
    const Json records = Json::parse(all);
    const std::string own_host = records.at(static_cast<std::size_t>(rank_)).at("host");
    for (const Json& record : records) {
      Peer& peer = peers_.emplace_back();
      peer.host = record.at("host");
      peer.process = record.at("process");
      for (const Json& address : record.at("addresses")) {
        sockaddr_in to{};
        to.sin_family = AF_INET;
        to.sin_port = htons(record.at("port").get<std::uint16_t>());
        to.sin_addr.s_addr = address.get<std::uint32_t>();
        const bool loopback = to.sin_addr.s_addr == htonl(INADDR_LOOPBACK);
        if (loopback && peer.host != own_host) continue;
        peer.addresses.push_back(to);
      }
    }
    ended_ = silent_states();
  });
}

RankState WatchdogPeers::own_state() const {
  const Place::State place = Place::now();
  RankState state{.rank = rank_,
                  .host = host(),
                  .what = place.what,
                  .seconds = place.seconds,
                  .steps = place.steps,
                  .answers = true,
                  .stack = {}};
  if (const Clock::rep left = left_) {
    const auto since = Clock::now().time_since_epoch() - Clock::duration(left);
    state.what = "the others to end MPI as well";
    state.seconds = std::chrono::duration<double>(since).count();
  }
  if (state.what.empty()) state.stack = probe_.capture();
  return state;
}

std::vector<RankState> WatchdogPeers::silent_states() const {
  std::vector<RankState> states;
  for (std::size_t rank = 0; rank < peers_.size(); ++rank) {
    states.push_back({.rank = static_cast<int>(rank),
                      .host = peers_[rank].host,
                      .what = {},
                      .seconds = 0,
                      .steps = 0,
                      .answers = false,
                      .stack = {}});
  }
  return states;
}

WatchdogPeers::Json WatchdogPeers::to_json(const RankState& state) {
  return {{"what", state.what},
          {"seconds", state.seconds},
          {"steps", state.steps},
          {"stack", state.stack}};
}

void WatchdogPeers::read_state(const Json& json, RankState& state) {
  state.what = json.at("what");
  state.seconds = json.at("seconds");
  state.steps = json.at("steps");
  state.stack = json.at("stack").get<std::vector<std::string>>();
  state.answers = true;
}

void WatchdogPeers::send_to(int rank, const Json& message, const Datagrams& from) const {
  const std::string text = message.dump();
  for (const sockaddr_in& address : peers_[static_cast<std::size_t>(rank)].addresses) {
    from.send(address, text);
  }
}

// Null for what does not come from one of the ranks.
WatchdogPeers::Json WatchdogPeers::parse(const std::string& text) const {
  Json message = Json::parse(text, nullptr, false);
  const bool ours = message.is_object() && message.contains("token") && message["token"] == token_;
  return ours ? message : Json();
}

// How long the others do not report for the same reason.
std::chrono::milliseconds WatchdogPeers::lasting(Reason reason) {
  return reason == Reason::deadline || reason == Reason::failure ? 10s : 1s;
}

WatchdogPeers::Json WatchdogPeers::to_json(const Claim& claim) {
  return {claim.rank, static_cast<int>(claim.reason), claim.reports};
}

WatchdogPeers::Claim WatchdogPeers::to_claim(const Json& json) {
  return {.rank = json.at(0),
          .reason = static_cast<Reason>(json.at(1).get<int>()),
          .reports = json.at(2),
          .heard = Clock::now()};
}

void WatchdogPeers::note_claim(const Claim& claim) {
  const std::lock_guard lock(mutex_);
  for (Claim& known : claims_) {
    if (known.rank != claim.rank || known.reason != claim.reason) continue;
    // What is heard at second hand makes no claim last longer.
    if (known.reports == claim.reports && Clock::now() - known.heard < lasting(known.reason))
      return;
    known = claim;
    return;
  }
  claims_.push_back(claim);
}

// Of several that ask at the same time the lowest reports, unless another does so already.
bool WatchdogPeers::has_heard_of_another(Reason reason) const {
  const std::lock_guard lock(mutex_);
  return std::any_of(claims_.begin(), claims_.end(), [&](const Claim& claim) {
    return claim.rank != rank_ && claim.reason == reason &&
           Clock::now() - claim.heard < lasting(reason) && (claim.reports || claim.rank < rank_);
  });
}

bool WatchdogPeers::was_reported() const {
  const std::lock_guard lock(mutex_);
  return std::any_of(claims_.begin(), claims_.end(), [&](const Claim& claim) {
    return claim.reports && (claim.reason == Reason::deadline || claim.reason == Reason::failure) &&
           Clock::now() - claim.heard < lasting(claim.reason);
  });
}

bool WatchdogPeers::serve() noexcept {
  try {
    const std::optional<Datagrams::Received> received = socket_->receive(0ms);
    return received && answer(*received);
  } catch (const std::exception&) {
    return false;  // a message of another version, or no memory: it is not answered
  }
}

bool WatchdogPeers::answer(const Datagrams::Received& received) {
  const Json message = parse(received.text);
  if (message.is_null()) return false;
  const std::string kind = message.at("kind");
  Json reply{{"token", token_}, {"kind", "answer"}, {"rank", rank_}};
  if (kind == "ask") {
    reply["state"] = to_json(own_state());
    socket_->send(received.from, reply.dump());
    if (message.contains("claim")) note_claim(to_claim(message.at("claim")));
  } else if (kind == "process") {
    reply["process"] = message.at("process");
    reply["is"] = static_cast<int>(process_state(message.at("process")));
    socket_->send(received.from, reply.dump());
  } else if (kind == "left") {
    const Clock::rep left = left_;
    reply["left"] = left != 0 && Clock::now().time_since_epoch() - Clock::duration(left) > 1500ms;
    socket_->send(received.from, reply.dump());
  } else if (kind == "ended") {
    const std::size_t rank = message.at("rank");
    read_state(message.at("state"), ended_.at(rank));
  } else if (kind == "report") {
    note_claim(to_claim(message.at("claim")));
  }
  return kind == "end";
}

std::optional<std::vector<RankState>> WatchdogPeers::collect(Reason reason, bool serve) {
  const Datagrams socket;
  const Clock::time_point begin = Clock::now();
  const bool claims = reason != Reason::call;
  const Json claim = to_json({.rank = rank_, .reason = reason, .reports = false, .heard = begin});
  std::vector<RankState> states = silent_states();
  states[static_cast<std::size_t>(rank_)] = own_state();
  std::size_t missing = states.size() - 1;
  Clock::time_point asked{};
  while (Clock::now() - begin < longest_silence &&
         (missing > 0 || (claims && Clock::now() - begin < shortest_hearing))) {
    if (missing > 0 && Clock::now() - asked > ask_again_after) {
      asked = Clock::now();
      Json message{{"token", token_}, {"kind", "ask"}, {"rank", rank_}};
      if (claims) message["claim"] = claim;
      for (const RankState& state : states) {
        if (!state.answers) send_to(state.rank, message, socket);
      }
    }
    if (serve) this->serve();
    const std::optional<Datagrams::Received> received = socket.receive(10ms);
    if (!received) continue;
    const Json reply = parse(received->text);
    if (reply.is_null()) continue;
    try {
      RankState& state = states.at(reply.at("rank").get<std::size_t>());
      if (state.answers) continue;
      read_state(reply.at("state"), state);
      --missing;
    } catch (const std::exception&) {
      continue;
    }
  }
  if (claims) {
    if (has_heard_of_another(reason)) return {};
    const Claim own{.rank = rank_, .reason = reason, .reports = true, .heard = Clock::now()};
    note_claim(own);
    const Json reports = to_json(own);
    for (const RankState& state : states) {
      if (state.rank == rank_) continue;
      send_to(state.rank, {{"token", token_}, {"kind", "report"}, {"claim", reports}}, socket);
    }
  }
  if (missing > 0) explain_silence(states, socket);
  return states;
}

// A rank of the same host that answers can say what the process of another one does.
void WatchdogPeers::explain_silence(std::vector<RankState>& states, const Datagrams& socket) const {
  std::size_t asked = 0;
  for (RankState& state : states) {
    if (state.answers) continue;
    const int process = peers_[static_cast<std::size_t>(state.rank)].process;
    if (state.host == host()) {
      state.what = describe_process(process_state(process));
      continue;
    }
    const auto neighbour = std::find_if(states.begin(), states.end(), [&](const RankState& other) {
      return other.answers && other.host == state.host;
    });
    if (neighbour == states.end()) {
      state.what = "nor does any other rank on that host";
      continue;
    }
    send_to(neighbour->rank, {{"token", token_}, {"kind", "process"}, {"process", process}},
            socket);
    ++asked;
  }
  const Clock::time_point begin = Clock::now();
  while (asked > 0 && Clock::now() - begin < ask_again_after) {
    const std::optional<Datagrams::Received> received = socket.receive(10ms);
    const Json reply = received ? parse(received->text) : Json();
    if (reply.is_null() || !reply.contains("is")) continue;
    for (RankState& state : states) {
      if (state.answers || !state.what.empty()) continue;
      if (peers_[static_cast<std::size_t>(state.rank)].process != reply.value("process", -1))
        continue;
      if (state.host != states[reply.value("rank", std::size_t{0})].host) continue;
      state.what = describe_process(static_cast<char>(reply.value("is", 0)));
      --asked;
    }
  }
}

std::optional<std::vector<RankState>> WatchdogPeers::end_together() {
  // So many that one of them is left, most likely, and few enough for all to tell.
  constexpr int most_witnesses = 4;
  const int witnesses = std::min(most_witnesses, static_cast<int>(peers_.size()));
  ended_[static_cast<std::size_t>(rank_)] = own_state();
  const Json message{{"token", token_},
                     {"kind", "ended"},
                     {"rank", rank_},
                     {"state", to_json(ended_[static_cast<std::size_t>(rank_)])}};
  const auto tell = [&] {
    for (int rank = 0; rank < witnesses; ++rank) {
      if (rank != rank_) send_to(rank, message, *socket_);
    }
  };
  const auto all_have = [&] {
    return std::all_of(ended_.begin(), ended_.end(), [](const auto& one) { return one.answers; });
  };
  const auto serve_until = [&](Clock::time_point end, const auto& done) {
    while (Clock::now() < end && !done()) {
      pollfd ready{socket_->descriptor(), POLLIN, 0};
      poll(&ready, 1, 10);
      serve();
    }
  };
  for (int time = 0; time < 3 && !all_have(); ++time) {
    tell();
    serve_until(Clock::now() + 100ms, all_have);
  }
  if (all_have()) return {};
  const auto first =
      std::find_if(ended_.begin(), ended_.end(), [](const auto& one) { return one.answers; });
  if (rank_ >= witnesses || first->rank != rank_) {
    // Who reports may ask what has become of a neighbour.
    serve_until(Clock::now() + ask_again_after, [] { return false; });
    return {};
  }
  std::vector<RankState> states = ended_;
  explain_silence(states, Datagrams());
  return states;
}

bool WatchdogPeers::has_left(int rank) const {
  const Datagrams socket;
  send_to(rank, {{"token", token_}, {"kind", "left"}, {"rank", rank_}}, socket);
  const Clock::time_point begin = Clock::now();
  while (Clock::now() - begin < 50ms) {
    const std::optional<Datagrams::Received> received = socket.receive(10ms);
    const Json reply = received ? parse(received->text) : Json();
    if (!reply.is_null() && reply.contains("left")) return reply.value("left", false);
  }
  return false;
}

void WatchdogPeers::end_host() const {
  const Datagrams socket;
  for (std::size_t rank = 0; rank < peers_.size(); ++rank) {
    if (static_cast<int>(rank) == rank_ || peers_[rank].host != host()) continue;
    send_to(static_cast<int>(rank), {{"token", token_}, {"kind", "end"}, {"rank", rank_}}, socket);
  }
}

}  // namespace lockstep::comm
