#include "comm/watchdog_peers.hpp"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
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
constexpr auto shortest_hearing = 50ms;
constexpr auto same_time = 20ms;
constexpr auto claims_last = 10s;

std::string random_token() {
  std::random_device source;
  std::string text;
  for (int i = 0; i < 4; ++i) text += fmt::format("{:08x}", source());
  return text;
}

std::string host_name() {
  char name[256] = "?";
  gethostname(name, sizeof name - 1);
  return name;
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
      return "its process runs";
  }
}

std::int64_t milliseconds_since(std::chrono::steady_clock::time_point time) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() -
                                                               time)
      .count();
}

}  // namespace

WatchdogPeers::WatchdogPeers(const Communicator& ranks)
    : rank_(ranks.rank()), token_(ranks.rank() == 0 ? random_token() : "") {
  std::string own;
  ranks.agree([&] {
    Json addresses = Json::array();
    for (const std::uint32_t address : own_addresses()) addresses.push_back(address);
    own = Json{{"host", host_name()},
               {"process", getpid()},
               {"port", socket_.port()},
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
  });
}

RankState WatchdogPeers::own_state() const {
  const Place::State place = Place::now();
  RankState state{.rank = rank_,
                  .host = host(),
                  .what = place.what,
                  .seconds = place.seconds,
                  .step = place.step,
                  .answers = true,
                  .stack = {}};
  if (place.what.empty()) state.stack = probe_.capture();
  return state;
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
  const bool ours = message.is_object() && message.value("token", "") == token_;
  return ours ? message : Json();
}

void WatchdogPeers::note_claim(int rank, Clock::time_point time) {
  const std::lock_guard lock(mutex_);
  std::erase_if(claims_, [&](const Claim& claim) {
    return claim.rank == rank || Clock::now() - claim.time > claims_last;
  });
  claims_.push_back({rank, time});
}

// Of several that ask at the same time, the lowest rank is the first.
bool WatchdogPeers::is_first(Clock::time_point since) const {
  const std::lock_guard lock(mutex_);
  return std::none_of(claims_.begin(), claims_.end(), [&](const Claim& claim) {
    if (claim.rank == rank_) return false;
    return claim.time < since - same_time ||
           (claim.time <= since + same_time && claim.rank < rank_);
  });
}

bool WatchdogPeers::serve() {
  const std::optional<Datagrams::Received> received = socket_.receive(0ms);
  return received && answer(*received);
}

bool WatchdogPeers::answer(const Datagrams::Received& received) {
  const Json message = parse(received.text);
  if (message.is_null()) return false;
  try {
    const std::string kind = message.at("kind");
    Json reply{{"token", token_}, {"kind", "answer"}, {"rank", rank_}};
    if (kind == "ask") {
      const RankState state = own_state();
      reply["what"] = state.what;
      reply["seconds"] = state.seconds;
      reply["step"] = state.step;
      reply["stack"] = state.stack;
      Json claims = Json::array();
      {
        const std::lock_guard lock(mutex_);
        for (const Claim& claim : claims_) {
          claims.push_back({claim.rank, milliseconds_since(claim.time)});
        }
      }
      reply["claims"] = claims;
      socket_.send(received.from, reply.dump());
      if (message.contains("claim")) {
        note_claim(message.at("rank"), Clock::now() - std::chrono::milliseconds(
                                                          message.at("claim").get<std::int64_t>()));
      }
    } else if (kind == "process") {
      reply["process"] = message.at("process");
      reply["state"] = static_cast<int>(process_state(message.at("process")));
      socket_.send(received.from, reply.dump());
    } else if (kind == "end") {
      return true;
    }
  } catch (const Json::exception&) {
    // Of another version: it is not answered.
  }
  return false;
}

std::optional<std::vector<RankState>> WatchdogPeers::collect(bool claim, bool serve) {
  const Datagrams socket;
  const Clock::time_point begin = Clock::now();
  if (claim) note_claim(rank_, begin);
  std::vector<RankState> states;
  for (std::size_t rank = 0; rank < peers_.size(); ++rank) {
    states.push_back({.rank = static_cast<int>(rank),
                      .host = peers_[rank].host,
                      .what = {},
                      .seconds = 0,
                      .step = 0,
                      .answers = false,
                      .stack = {}});
  }
  states[static_cast<std::size_t>(rank_)] = own_state();
  std::size_t missing = states.size() - 1;
  Clock::time_point asked{};
  while (Clock::now() - begin < longest_silence &&
         (missing > 0 || (claim && Clock::now() - begin < shortest_hearing))) {
    if (missing > 0 && Clock::now() - asked > ask_again_after) {
      asked = Clock::now();
      Json message{{"token", token_}, {"kind", "ask"}, {"rank", rank_}};
      if (claim) message["claim"] = milliseconds_since(begin);
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
      state.what = reply.at("what");
      state.seconds = reply.at("seconds");
      state.step = reply.at("step");
      state.stack = reply.at("stack").get<std::vector<std::string>>();
      state.answers = true;
      --missing;
      for (const Json& other : reply.at("claims")) {
        note_claim(other.at(0),
                   Clock::now() - std::chrono::milliseconds(other.at(1).get<std::int64_t>()));
      }
    } catch (const std::exception&) {
      continue;
    }
  }
  if (claim && !is_first(begin)) return {};
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
    if (reply.is_null() || !reply.contains("state")) continue;
    for (RankState& state : states) {
      if (state.answers || !state.what.empty()) continue;
      if (peers_[static_cast<std::size_t>(state.rank)].process != reply.value("process", -1))
        continue;
      if (state.host != states[reply.value("rank", std::size_t{0})].host) continue;
      state.what = describe_process(static_cast<char>(reply.value("state", 0)));
      --asked;
    }
  }
}

void WatchdogPeers::end_host() const {
  const Datagrams socket;
  for (std::size_t rank = 0; rank < peers_.size(); ++rank) {
    if (static_cast<int>(rank) == rank_ || peers_[rank].host != host()) continue;
    send_to(static_cast<int>(rank), {{"token", token_}, {"kind", "end"}, {"rank", rank_}}, socket);
  }
}

}  // namespace lockstep::comm
