// The protocol of a node, with threads for its ranks, so that the thread sanitizer sees who waits
// for whom. Prints "N passed, N failed, N skipped".

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <new>
#include <numeric>
#include <random>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "comm/measured.hpp"
#include "comm/node_reduction.hpp"
#include "lockstep/core/error.hpp"

using namespace lockstep;
using namespace lockstep::comm;

namespace {

constexpr std::size_t most_lines = 40;
constexpr std::size_t ranges = 8;  // of a segment, so that several reductions can be under way
constexpr std::size_t sums_bytes = line_bytes;  // behind each, of squares
constexpr std::size_t range_bytes = most_lines * line_bytes + sums_bytes;

std::atomic<int> failures = 0;

void expect(bool holds, const char* what, int rank, std::uint64_t step) {
  if (holds || ++failures > 10) return;
  std::printf("rank %d, reduction %llu: %s\n", rank, static_cast<unsigned long long>(step), what);
}

// Memory of a node, as NodeMemory would give it.
class Node {
 public:
  Node(int ranks, std::size_t capacity)
      : ranks_(ranks),
        capacity_(capacity),
        control_(allocate(NodeProtocol::bytes(ranks, capacity))),
        segments_(allocate(static_cast<std::size_t>(ranks) * ranges * range_bytes)),
        result_(allocate(ranges * range_bytes)) {}

  NodeView view(int rank) const {
    std::vector<NodeView::Source> sources;
    for (int place = 0; place < ranks_; ++place) {
      sources.push_back({static_cast<std::size_t>(place) * ranges * range_bytes, place});
    }
    std::vector<int> ranks(static_cast<std::size_t>(ranks_));
    std::iota(ranks.begin(), ranks.end(), 0);
    return {.ranks = ranks,
            .place = rank,
            .segments = segments_.get(),
            .sources = sources,
            .order = SumOrder::chain(sources.size()),
            .control = control_.get(),
            .result = result_.get()};
  }
  float* values(int rank, std::size_t range) const {
    return reinterpret_cast<float*>(
        segments_.get() + (static_cast<std::size_t>(rank) * ranges + range) * range_bytes);
  }
  const float* result(std::size_t range) const {
    return reinterpret_cast<const float*>(result_.get() + range * range_bytes);
  }
  int ranks() const { return ranks_; }
  std::size_t capacity() const { return capacity_; }

  // Runs a rank in each thread, and waits for all.
  void run(const std::function<void(NodeReduction&, int)>& rank_main) const {
    std::vector<std::thread> threads;
    for (int rank = 0; rank < ranks_; ++rank) {
      threads.emplace_back([&, rank] {
        NodeReduction reduction(view(rank), capacity_);
        rank_main(reduction, rank);
      });
    }
    for (std::thread& thread : threads) thread.join();
  }

 private:
  struct Free {
    void operator()(std::byte* bytes) const { ::operator delete[](bytes, std::align_val_t{4096}); }
  };
  using Memory = std::unique_ptr<std::byte[], Free>;
  static Memory allocate(std::size_t bytes) {
    auto* memory = new (std::align_val_t{4096}) std::byte[bytes];
    std::memset(memory, 0, bytes);
    return Memory(memory);
  }

  int ranks_;
  std::size_t capacity_;
  Memory control_, segments_, result_;
};

void dawdle(std::minstd_rand& random) {
  const auto draw = random() % 64;
  if (draw == 0) std::this_thread::sleep_for(std::chrono::microseconds(20));
  if (draw < 16) std::this_thread::yield();
}

void poll(NodeReduction& reduction) {
  reduction.reduce();
  reduction.check_others();
}

float drawn(int rank, std::uint64_t step, std::size_t i) {
  return 1.0F / static_cast<float>(1 + (step * 7 + i * 3) % 101 + 13 * static_cast<unsigned>(rank));
}

std::size_t lines_of(std::uint64_t step) { return 1 + step * 2654435761U % most_lines; }

// Whether this is what a reduction must bring, summed in the order of ranks.
bool is_sum(const Node& node, std::uint64_t step, const float* found) {
  const std::size_t numbers = lines_of(step) * line_bytes / sizeof(float);
  for (std::size_t i = 0; i < numbers; ++i) {
    float sum = drawn(0, step, i);
    for (int rank = 1; rank < node.ranks(); ++rank) sum += drawn(rank, step, i);
    if (step % 2 == 0) sum /= static_cast<float>(node.ranks());
    if (std::memcmp(&sum, found + i, sizeof(float)) != 0) return false;
  }
  return true;
}

// Whether the ranks have summed the squares of what they have written for all.
bool is_measured(std::uint64_t step, const float* found) {
  const std::size_t numbers = lines_of(step) * line_bytes / sizeof(float);
  const float* sums = found + most_lines * line_bytes / sizeof(float);
  for (std::size_t i = 0; i < numbers; i += squares_block<float>) {
    const double expected = block_squares(std::min(squares_block<float>, numbers - i), found + i);
    if (std::memcmp(&expected, sums, sizeof(double)) != 0) return false;
    sums += sizeof(double) / sizeof(float);
  }
  return true;
}

// Thousands of reductions, as many under way as there is room for.
void sums_are_right(int ranks, std::size_t capacity, std::uint64_t steps) {
  const Node node(ranks, capacity);
  node.run([&](NodeReduction& reduction, int rank) {
    std::minstd_rand random(static_cast<unsigned>(rank) + 17);
    std::vector<Piece> pieces(capacity);
    std::vector<Measured> measured(capacity);
    std::uint64_t checked = 0;
    const auto check = [&] {
      // Before the range is used again, which is capacity reductions later.
      for (; checked < reduction.completed(); ++checked) {
        const std::uint64_t step = checked + 1;
        expect(is_sum(node, step, node.result(step % capacity)), "wrong sum", rank, step);
        expect(is_measured(step, node.result(step % capacity)), "wrong squares", rank, step);
      }
    };
    for (std::uint64_t step = 1; step <= steps; ++step) {
      while (!reduction.has_room()) {
        dawdle(random);
        poll(reduction);
      }
      check();
      const std::size_t range = step % capacity;
      for (std::size_t i = 0; i < lines_of(step) * line_bytes / sizeof(float); ++i) {
        node.values(rank, range)[i] = drawn(rank, step, i);
      }
      pieces[range] = {.element = Element::f32,
                       .op = ReduceOp::sum,
                       .offset = range * range_bytes,
                       .bytes = lines_of(step) * line_bytes};
      measured[range] = {.offset = pieces[range].offset,
                         .numbers = pieces[range].bytes / sizeof(float),
                         .sums = pieces[range].offset + most_lines * line_bytes};
      const std::uint64_t number = reduction.start({.pieces = {&pieces[range], 1},
                                                    .measured = {&measured[range], 1},
                                                    .hash = step,
                                                    .average = step % 2 == 0});
      expect(number == step, "wrong number", rank, step);
      dawdle(random);
      if (random() % 3 == 0) poll(reduction);
    }
    while (!reduction.complete()) poll(reduction);
    check();
    expect(checked == steps, "not all complete", rank, checked);
    // Others may still wait for what this rank has done its share of.
    reduction.leave();
  });
}

// Has what a rank takes of a job: its share of the numbers, and the largest notes of all ranks.
class Taken : public ShardSink {
 public:
  void begin(std::span<const std::byte> notes) override {
    notes_.assign(notes.begin(), notes.end());
    numbers_.clear();
  }
  void take(std::size_t offset, std::span<const std::byte> results) override {
    if (numbers_.empty()) offset_ = offset;
    in_order_ = in_order_ && offset == offset_ + numbers_.size() * sizeof(float);
    const std::size_t before = numbers_.size();
    numbers_.resize(before + results.size() / sizeof(float));
    std::memcpy(numbers_.data() + before, results.data(), results.size());
  }

  std::span<std::byte> values(int) override { return {}; }
  std::shared_ptr<void> memory() const override { return nullptr; }

  // Whether that is right of a share of a reduction whose piece begins at `offset`.
  bool is_right(const Node& node, std::uint64_t step, LineRange share, std::size_t offset) const {
    const std::size_t first = share.begin * line_bytes / sizeof(float);
    if (numbers_.size() != (share.end - share.begin) * line_bytes / sizeof(float)) return false;
    if (!numbers_.empty() && offset_ != offset + share.begin * line_bytes) return false;
    for (std::size_t i = 0; i < numbers_.size(); ++i) {
      float sum = drawn(0, step, first + i);
      for (int rank = 1; rank < node.ranks(); ++rank) sum += drawn(rank, step, first + i);
      if (step % 2 == 0) sum /= static_cast<float>(node.ranks());
      if (std::memcmp(&sum, &numbers_[i], sizeof(float)) != 0) return false;
    }
    return in_order_ && notes_.size() == line_bytes &&
           notes_[0] == static_cast<std::byte>(node.ranks());
  }

 private:
  std::vector<std::byte> notes_;
  std::vector<float> numbers_;
  std::size_t offset_ = 0;
  bool in_order_ = true;
};

// Reductions of which each rank takes a share.
void shares_are_right(int ranks, std::uint64_t steps) {
  const Node node(ranks, 1);
  node.run([&](NodeReduction& reduction, int rank) {
    std::minstd_rand random(static_cast<unsigned>(rank) + 17);
    for (std::uint64_t step = 1; step <= steps; ++step) {
      const std::size_t lines = lines_of(step) - 1;
      const std::size_t range = step % ranges;
      for (std::size_t i = 0; i < lines * line_bytes / sizeof(float); ++i) {
        node.values(rank, range)[i] = drawn(rank, step, i);
      }
      auto* notes = reinterpret_cast<std::byte*>(node.values(rank, range)) + lines * line_bytes;
      *notes = static_cast<std::byte>(rank + 1);
      const std::size_t offset = range * range_bytes;
      const std::vector<Piece> pieces{
          {Element::f32, ReduceOp::sum, offset, lines * line_bytes},
          {Element::u8, ReduceOp::max, offset + lines * line_bytes, line_bytes}};
      const auto all = static_cast<std::size_t>(ranks);
      std::vector<LineRange> shares;
      for (std::size_t r = 0; r < all; ++r)
        shares.push_back({lines * r / all, lines * (r + 1) / all});
      const LineRange share = shares[static_cast<std::size_t>(rank)];
      Taken taken;
      reduction.start({.pieces = pieces,
                       .hash = step,
                       .average = step % 2 == 0,
                       .sink = &taken,
                       .shares = shares});
      dawdle(random);
      while (!reduction.complete()) poll(reduction);
      expect(taken.is_right(node, step, share, offset), "wrong share", rank, step);
    }
    reduction.leave();
  });
}

// Calls work until it throws a StateError, and returns what that says.
std::string error_of(const std::function<void()>& work) {
  try {
    for (;;) work();
  } catch (const StateError& error) {
    return error.collective() ? error.what() : "not collective";
  }
}

// One rank reduces something else: all are told the same, and nothing goes on.
void a_difference_is_told_to_all(int ranks, std::size_t capacity, int odd, bool long_ones) {
  const Node node(ranks, capacity);
  constexpr std::uint64_t before = 20;
  std::vector<std::string> messages(static_cast<std::size_t>(ranks));
  node.run([&](NodeReduction& reduction, int rank) {
    std::minstd_rand random(static_cast<unsigned>(rank) + 3);
    const std::size_t lines = long_ones ? most_lines : 1;
    for (std::uint64_t step = 1; step <= before; ++step) {
      const bool differs = step == before && rank == odd;
      const Piece piece{.element = Element::f32,
                        .op = differs ? ReduceOp::max : ReduceOp::sum,
                        .offset = 0,
                        .bytes = lines * line_bytes};
      node.values(rank, 0)[0] = 1;
      dawdle(random);
      reduction.start({.pieces = {&piece, 1}});
      if (step == before) {
        messages[static_cast<std::size_t>(rank)] = error_of([&] {
          poll(reduction);
          dawdle(random);
        });
        expect(reduction.failed(), "has not failed", rank, step);
        expect(error_of([&] { reduction.raise(); }) == messages[static_cast<std::size_t>(rank)],
               "does not fail again", rank, step);
        continue;
      }
      while (!reduction.complete()) poll(reduction);
      expect(node.result(0)[0] == static_cast<float>(ranks), "wrong sum", rank, step);
    }
  });
  for (int rank = 0; rank < ranks; ++rank) {
    const std::string& message = messages[static_cast<std::size_t>(rank)];
    const bool says = message.find("the ranks do not make the same call") != std::string::npos &&
                      message.find("maximum of") != std::string::npos;
    expect(says && message == messages[0], message.c_str(), rank, before);
  }
}

// One rank leaves early: those that need it are told, and not before.
void a_rank_that_leaves_is_named(int ranks, std::size_t capacity, int leaver) {
  const Node node(ranks, capacity);
  constexpr std::uint64_t together = 20;
  const std::string expected =
      "rank " + std::to_string(leaver) + " has gone before call " + std::to_string(together + 1);
  node.run([&](NodeReduction& reduction, int rank) {
    std::minstd_rand random(static_cast<unsigned>(rank) + 5);
    const Piece piece{
        .element = Element::f32, .op = ReduceOp::sum, .offset = 0, .bytes = 20 * line_bytes};
    for (std::uint64_t step = 1; step <= together; ++step) {
      for (int i = 0; i < 320; ++i) node.values(rank, 0)[i] = static_cast<float>(rank);
      dawdle(random);
      reduction.start({.pieces = {&piece, 1}});
      // Whoever has gone has done its share of all that others wait for.
      const auto finish = [&] {
        while (!reduction.complete()) poll(reduction);
      };
      try {
        finish();
      } catch (const StateError& error) {
        expect(false, error.what(), rank, step);
      }
    }
    if (rank == leaver) return reduction.leave();
    reduction.start({.pieces = {&piece, 1}});
    const std::string message = error_of([&] {
      poll(reduction);
      dawdle(random);
    });
    expect(message.find(expected) != std::string::npos, message.c_str(), rank, together + 1);
  });
}

}  // namespace

int main() {
  int passed = 0, failed = 0;
  const auto test = [&](const std::string& name, const std::function<void()>& run) {
    failures = 0;
    const auto begin = std::chrono::steady_clock::now();
    run();
    const std::chrono::duration<double, std::milli> time = std::chrono::steady_clock::now() - begin;
    std::printf("%s %s (%.0f ms)\n", failures == 0 ? "ok  " : "FAIL", name.c_str(), time.count());
    std::fflush(stdout);
    ++(failures == 0 ? passed : failed);
  };
  for (const int ranks : {2, 3, 5}) {
    test("shares are right: " + std::to_string(ranks) + " ranks",
         [&] { shares_are_right(ranks, 400); });
    for (const std::size_t capacity : {1U, 2U, 8U}) {
      const std::string who =
          std::to_string(ranks) + " ranks, capacity " + std::to_string(capacity);
      test("sums are right: " + who, [&] { sums_are_right(ranks, capacity, 800); });
      for (const int rank : {0, ranks - 1}) {
        for (const bool long_ones : {false, true}) {
          test("a difference is told to all: " + who,
               [&] { a_difference_is_told_to_all(ranks, capacity, rank, long_ones); });
        }
        test("a rank that leaves is named: " + who,
             [&] { a_rank_that_leaves_is_named(ranks, capacity, rank); });
      }
    }
  }
  std::printf("%d passed, %d failed, 0 skipped\n", passed, failed);
  return failed == 0 ? 0 : 1;
}
