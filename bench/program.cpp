#include "program.hpp"

#include <fmt/format.h>
#include <mpi.h>

#include <algorithm>
#include <chrono>
#include <iostream>
#include <lockstep/core/error.hpp>
#include <lockstep/tensor/random.hpp>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>
#include <utility>

#include "comm/check.hpp"

namespace bench {

using namespace lockstep;

namespace {

using Clock = std::chrono::steady_clock;

double since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// The next line of rank 0, on all ranks; nothing at the end. Until it comes the others sleep: in a
// broadcast they would take their cores from the peer, whose turn it is.
std::optional<std::string> next_line(const Communicator& ranks) {
  std::string line;
  std::uint8_t more = 1;
  if (ranks.rank() == 0) more = std::getline(std::cin, line) ? 1 : 0;
  MPI_Request arrived = MPI_REQUEST_NULL;
  check_mpi(MPI_Ibarrier(ranks.handle(), &arrived), "MPI_Ibarrier");
  for (int done = 0; done == 0;) {
    check_mpi(MPI_Test(&arrived, &done, MPI_STATUS_IGNORE), "MPI_Test");
    if (done == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  ranks.broadcast(std::span(&more, 1));
  if (more == 0) return std::nullopt;
  ranks.broadcast(line);
  return line;
}

}  // namespace

void serve(const Communicator& ranks, const std::map<std::string, SetUp>& cases) {
  const auto answer = [&ranks](const nlohmann::json& line) {
    if (ranks.rank() == 0) std::cout << line << std::endl;
  };
  std::string current;
  Case measure;
  while (const std::optional<std::string> line = next_line(ranks)) {
    std::istringstream words(*line);
    std::string command, name;
    double seconds = 0;
    words >> command >> name >> seconds;
    if (command == "version") {
      answer({{"version", BENCH_VERSION}});
      continue;
    }
    if (command != "run" || !cases.contains(name)) {
      throw OptionError(fmt::format("expected 'run CASE SECONDS', found '{}'", *line));
    }
    if (name != current) {
      measure = nullptr;  // the memory of one case at a time
      measure = cases.at(name)();
      current = name;
    }
    const Measurement measured = measure(seconds);
    nlohmann::json result = {{"value", measured.value}};
    if (measured.peer) result["peer"] = *measured.peer;
    answer(result);
  }
}

std::vector<double> median_times(double seconds, const std::vector<std::function<void()>>& calls) {
  constexpr std::size_t fewest = 3;
  for (const auto& call : calls) call();
  std::vector<std::vector<double>> times(calls.size());
  const auto start = Clock::now();
  while (times.front().size() < fewest || since(start) < seconds) {
    for (std::size_t i = 0; i < calls.size(); ++i) {
      const auto begin = Clock::now();
      calls[i]();
      times[i].push_back(since(begin));
    }
  }
  std::vector<double> medians;
  for (std::vector<double>& of_call : times) medians.push_back(median(std::move(of_call)));
  return medians;
}

namespace {

// The times of this rank, by call and turn.
std::vector<std::vector<double>> times_of_turns(const Communicator& ranks, double seconds,
                                                const std::vector<std::function<void()>>& calls) {
  constexpr double shortest_batch = 1e-4;
  constexpr std::int64_t fewest = 3;
  std::vector<std::int64_t> batches;
  double turn = 0;
  for (const auto& call : calls) {
    std::int64_t batch = 1;
    double time = 0;
    for (;;) {
      ranks.barrier();
      const auto start = Clock::now();
      for (std::int64_t i = 0; i < batch; ++i) call();
      time = ranks.all_reduce(since(start), ReduceOp::max);
      if (time >= shortest_batch) break;
      batch *= 2;
    }
    batches.push_back(batch);
    turn += time;
  }
  const auto turns =
      std::max(fewest, static_cast<std::int64_t>(ranks.all_reduce(seconds / turn, ReduceOp::max)));
  std::vector<std::vector<double>> times(calls.size());
  for (std::int64_t t = 0; t < turns; ++t) {
    for (std::size_t k = 0; k < calls.size(); ++k) {
      // There and back, so that each call comes as soon after every other one as that after it.
      const std::size_t i = t % 2 == 0 ? k : calls.size() - 1 - k;
      ranks.barrier();
      const auto start = Clock::now();
      for (std::int64_t c = 0; c < batches[i]; ++c) calls[i]();
      times[i].push_back(since(start) / static_cast<double>(batches[i]));
    }
  }
  return times;
}

}  // namespace

std::vector<double> median_times(const Communicator& ranks, double seconds,
                                 const std::vector<std::function<void()>>& calls) {
  std::vector<double> medians;
  for (auto& times : times_of_turns(ranks, seconds, calls)) {
    medians.push_back(median(std::move(times)));
  }
  ranks.broadcast(std::span(medians));
  return medians;
}

std::vector<std::vector<double>> slowest_times(const Communicator& ranks, double seconds,
                                               const std::vector<std::function<void()>>& calls) {
  auto times = times_of_turns(ranks, seconds, calls);
  for (auto& of_call : times) ranks.all_reduce(std::span(of_call), ReduceOp::max);
  return times;
}

double median(std::vector<double> values) {
  const std::size_t middle = values.size() / 2;
  std::sort(values.begin(), values.end());
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

std::vector<NamedParameter> normal_parameters(std::int64_t count, std::int64_t size, DType dtype) {
  std::vector<NamedParameter> parameters;
  for (std::int64_t i = 0; i < count; ++i) {
    Tensor value = Tensor::empty({size}, dtype);
    fill_normal(value, RandomKey(1).fold(static_cast<std::uint64_t>(i)), 0, 1);
    parameters.emplace_back(fmt::format("layers.{}.weight", i), Parameter(std::move(value)));
  }
  return parameters;
}

}  // namespace bench
