#include "comm/reduction.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>
#include <utility>

#include "comm/calls.hpp"
#include "comm/check.hpp"
#include "comm/codec_exchange.hpp"
#include "comm/kept_communicator.hpp"
#include "comm/node_exchange.hpp"
#include "comm/share_exchange.hpp"
#include "comm/watchdog_thread.hpp"
#include "lockstep/core/error.hpp"

namespace lockstep::comm {
namespace {

std::size_t control_bytes(const Communicator& communicator, std::size_t capacity) {
  constexpr std::size_t alignment = 4096;
  const auto ranks = static_cast<int>(communicator.placement().neighbours().size());
  return (NodeProtocol::bytes(ranks, capacity) + alignment - 1) / alignment * alignment;
}

std::byte* place_of_result(const NodeMemory& memory, std::size_t control) {
  const Placement& placement = memory.placement();
  const bool alone = placement.nodes.size() == 1 && placement.neighbours().size() == 1;
  return alone ? memory.own().data() : memory.common().data() + control;
}

// How sums are made: on this node, from its sources, and then from what the nodes have.
struct Orders {
  std::vector<NodeView::Source> sources;
  SumOrder node, top;
  SumOrder weights;                  // of the nodes
  std::vector<std::size_t> outputs;  // of each node
};

Orders orders_of(const NodeMemory& memory, const Communicator& communicator) {
  const Placement& placement = memory.placement();
  Orders orders;
  for (std::size_t place = 0; place < placement.neighbours().size(); ++place) {
    orders.sources.push_back({place * memory.own().size(), static_cast<int>(place)});
  }
  orders.node = SumOrder::chain(orders.sources.size());
  // Where every rank is a node by itself, it is still the ranks of a real one that come first.
  orders.top = memory.shared() ? SumOrder::chain(placement.nodes.size())
                               : SumOrder::nested(communicator.placement().nodes);
  orders.weights = orders.top;
  orders.outputs.assign(placement.nodes.size(), 1);
  return orders;
}

Orders orders_of(const NodeMemory& memory, const Communicator& communicator, const Parts& parts) {
  if (parts.count == 0) return orders_of(memory, communicator);
  const Placement& placement = memory.placement();
  Orders orders;
  std::vector<Subtree> of_nodes;
  for (std::size_t node = 0; node < placement.nodes.size(); ++node) {
    const bool own = static_cast<int>(node) == placement.node;
    std::vector<Subtree> inputs;
    for (std::size_t place = 0; place < placement.nodes[node].size(); ++place) {
      const Parts::Range range = parts.of(placement.nodes[node][place], communicator.size());
      std::size_t offset = place * memory.own().size();
      for (const Subtree& subtree : subtrees_of(range.begin, range.end)) {
        inputs.push_back(subtree);
        if (own) orders.sources.push_back({offset, static_cast<int>(place)});
        offset += parts.slot_bytes;
      }
    }
    const std::size_t before = of_nodes.size();
    const SumOrder order = SumOrder::tree(inputs, of_nodes);
    // All ranks look at all nodes, and so agree on this.
    if (order.depth() > SumOrder::max_depth) {
      OptionError error(fmt::format(
          "{} parts on node {} cannot be summed there: place neighbouring ranks on one node",
          order.depth(), node));
      error.set_collective(true);
      throw error;
    }
    if (own) orders.node = order;
    orders.outputs.push_back(of_nodes.size() - before);
  }
  std::vector<Subtree> root;
  orders.top = SumOrder::tree(of_nodes, root);
  orders.weights =
      SumOrder::chain(placement.nodes.size());  // numbers of samples: exact in any order
  return orders;
}

}  // namespace

Reduction::Reduction(const Communicator& communicator, std::size_t segment_bytes,
                     std::size_t capacity, const Parts& parts, WireFormat wire)
    : rank_(communicator.rank()),
      deadline_(communicator.options().deadline),
      kept_(Calls::kept(communicator)),
      memory_(communicator, segment_bytes,
              control_bytes(communicator, capacity) +
                  (parts.count == 0 ? segment_bytes : parts.slot_bytes)),
      lanes_(memory_.placement()),
      result_(place_of_result(memory_, control_bytes(communicator, capacity))),
      communicator_(communicator.handle()) {
  const Placement& placement = memory_.placement();
  Orders orders = orders_of(memory_, communicator, parts);
  node_.emplace(NodeView{.ranks = placement.neighbours(),
                         .place = placement.node_rank,
                         .segments = memory_.segment(0).data(),
                         .sources = std::move(orders.sources),
                         .order = std::move(orders.node),
                         .control = memory_.common().data(),
                         .result = result_},
                capacity);
  if (placement.nodes.size() == 1) return;
  codecs_ = std::make_unique<CodecExchange>(*node_, communicator.handle(), lanes_, orders.weights,
                                            result_);
  sums_ = std::make_unique<NodeSums>(*node_, std::move(orders.top), std::move(orders.weights),
                                     std::move(orders.outputs), wire);
  exchange_ = std::make_unique<NodeExchange>(*node_, *sums_, communicator.handle(), lanes_, result_,
                                             capacity, segment_bytes / line_bytes);
  shares_ = std::make_unique<ShareExchange>(*node_, *sums_, communicator.handle(), placement,
                                            communicator.rank(), result_);
}

Reduction::~Reduction() {
  if (failed_ || node_->failed() || !node_->complete()) kept_->settled = false;
  node_->leave();
}

void Reduction::start(const Job& job) {
  if (node_->failed()) node_->raise();
  for (Wait wait = new_wait(); !node_->has_room(); pause(wait)) poll();
  node_->start(job);
  poll();
}

void Reduction::set_failed(const std::string& message, ErrorKind kind) {
  if (std::exchange(failed_, true)) return;
  if (!node_->failed()) node_->set_failed({kind, message});
  if (exchange_ != nullptr && may_call_mpi()) exchange_->send_failure(node_->failure());
}

Wait Reduction::new_wait() const noexcept {
  return {rank_, deadline_, memory_.placement().crowded};
}

namespace {

template <class Ranks>
std::string list_of(const Ranks& ranks) {
  return fmt::format("rank{} {}", ranks.size() == 1 ? "" : "s", fmt::join(ranks, ", "));
}

}  // namespace

std::set<int> Reduction::ranks_with_messages() const {
  std::set<int> ranks;
  if (exchange_ != nullptr) {
    exchange_->add_missing(ranks);
    codecs_->add_missing(ranks);
    shares_->add_missing(ranks);
  }
  return ranks;
}

std::string Reduction::describe_missing() const {
  const NodeReduction::Missing missing = node_->missing();
  const std::string call = describe_call(missing.announcement);
  if (!missing.absent.empty()) {
    return fmt::format("{} to make {}", list_of(missing.absent), call);
  }
  const std::set<int> ranks = ranks_with_messages();
  if (!ranks.empty()) {
    return fmt::format("messages from or to {}, on other nodes, in {}", list_of(ranks), call);
  }
  return fmt::format("{} to do a part of {}", list_of(missing.at_work), call);
}

void Reduction::give_up(const Wait& wait, std::string_view of) {
  try {
    wait.give_up(fmt::format("{}{}", describe_missing(), of));
  } catch (const DeadlineError& error) {
    set_failed(error.what(), error.kind());
    node_->raise();
  }
}

bool Reduction::poll() {
  if (node_->complete()) return true;
  if (node_->failed()) node_->raise();
  try {
    return go_on();
  } catch (const std::exception& error) {
    set_failed(error.what());
    throw;
  }
}

bool Reduction::go_on() {
  if (exchange_ != nullptr) {
    exchange_->advance();
    codecs_->advance();
    shares_->advance();
    const std::uint64_t done =
        std::min({exchange_->finished(), codecs_->finished(), shares_->finished()});
    while (node_->worked() < done) node_->finish();
  } else {
    node_->reduce();
  }
  if (node_->complete()) return true;
  // Their memory is not needed otherwise, and fetching it takes time.
  constexpr std::uint32_t polls_between_checks = 64;
  if (++polls_ % polls_between_checks != 0) return false;
  check_others();
  return false;
}

void Reduction::check_others() {
  try {
    node_->check_others();
    if (exchange_ != nullptr) {
      exchange_->check_others();
      check_left();
    }
  } catch (const std::exception& error) {
    set_failed(error.what());
    throw;
  }
}

// Of other nodes; who has left on this one is known from memory.
void Reduction::check_left() {
  const auto now = std::chrono::steady_clock::now();
  const std::uint64_t at = node_->started() + node_->completed();
  if (std::exchange(looked_at_, at) != at) looked_ = now;
  if (now - looked_ < std::chrono::seconds(1)) return;
  looked_ = now;
  for (const int rank : ranks_with_messages()) {
    if (!has_left(communicator_, rank)) continue;
    throw StateError(fmt::format("rank {} has gone before {}, which others make", rank,
                                 describe_call(node_->missing().announcement)));
  }
}

void Reduction::wait(std::uint64_t count) {
  Wait wait = new_wait();
  while (!poll() && node_->completed() < count) pause(wait);
}

}  // namespace lockstep::comm
