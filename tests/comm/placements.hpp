#pragma once

#include <chrono>
#include <cstddef>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "lockstep/comm/communicator.hpp"
#include "lockstep/testing/mpi_test.hpp"

namespace lockstep::testing {

/// A way to see the ranks of a machine as ranks of several nodes.
struct Arrangement {
  std::string name;
  CommunicatorOptions options;
  std::vector<std::vector<int>> nodes;
};

/// All that differ on this number of ranks, with memory that is shared and without.
inline std::vector<Arrangement> arrangements() {
  const int rank = world().rank(), ranks = world().size();
  std::vector<Arrangement> all;
  // The tests may run on several machines, which are never one node.
  std::vector<int> machines(static_cast<std::size_t>(ranks));
  const std::vector<std::vector<int>>& real = world().placement().nodes;
  for (std::size_t machine = 0; machine < real.size(); ++machine) {
    for (const int r : real[machine]) {
      machines[static_cast<std::size_t>(r)] = static_cast<int>(machine);
    }
  }
  const auto add = [&](const std::string& name, auto&& node_of) {
    std::vector<std::vector<int>> nodes;
    std::map<std::pair<int, int>, std::size_t> known;
    for (int r = 0; r < ranks; ++r) {
      const std::pair<int, int> key(machines[static_cast<std::size_t>(r)], node_of(r));
      const auto [entry, added] = known.try_emplace(key, nodes.size());
      if (added) nodes.emplace_back();
      nodes[entry->second].push_back(r);
    }
    for (const bool share : {true, false}) {
      all.push_back({name + (share ? "" : ", ordinary memory"),
                     {.share_memory = share, .node = node_of(rank)},
                     nodes});
    }
  };
  add("one node", [](int) { return 0; });
  if (ranks > 1) add("a node a rank", [](int r) { return r; });
  if (ranks > 2) {
    add("two nodes by slot", [ranks](int r) { return r * 2 / ranks; });
    add("two nodes by node", [](int r) { return r % 2; });
    add("the last alone", [ranks](int r) { return r == ranks - 1 ? 1 : 0; });
    add("the first alone", [](int r) { return r == 0 ? 0 : 1; });
  }
  if (ranks > 3) add("three nodes", [](int r) { return r % 3; });
  return all;
}

/// One of each kind, with a deadline, for tests that wait for it.
inline std::vector<Arrangement> few_arrangements(std::chrono::milliseconds deadline) {
  std::vector<Arrangement> all = arrangements();
  std::erase_if(all, [](const Arrangement& arrangement) {
    const std::string& name = arrangement.name;
    return !name.starts_with("one node") && name != "a node a rank" && name != "two nodes by slot";
  });
  for (Arrangement& arrangement : all) arrangement.options.deadline = deadline;
  return all;
}

}  // namespace lockstep::testing
