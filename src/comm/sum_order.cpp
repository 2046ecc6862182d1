#include "comm/sum_order.hpp"

#include <algorithm>
#include <array>
#include <numeric>

namespace lockstep::comm {

SumOrder SumOrder::nested(const std::vector<std::vector<int>>& groups) {
  SumOrder order{.steps = {}, .outputs = 1};
  for (const std::vector<int>& group : groups) {
    for (std::size_t i = 0; i < group.size(); ++i) {
      order.steps.push_back({static_cast<std::uint32_t>(group[i]), i > 0 ? 1U : 0U});
    }
    if (order.steps.size() > group.size()) ++order.steps.back().merges;
  }
  return order;
}

double SumOrder::sum(std::span<const double> inputs) const {
  std::array<double, max_depth + 1> stack{};
  std::size_t height = 0;
  for (const Step& step : steps) {
    stack[height++] = inputs[step.input];
    for (std::uint32_t merge = 0; merge < step.merges; ++merge, --height) {
      stack[height - 2] += stack[height - 1];
    }
  }
  return stack[0];
}

std::size_t SumOrder::depth() const noexcept {
  std::size_t height = 0, most = 0;
  for (const Step& step : steps) {
    // One that is merged at once takes no place of its own.
    most = std::max(most, height + (step.merges == 0 ? 1 : 0));
    height += 1;
    height -= step.merges;
  }
  return most;
}

SumOrder SumOrder::chain(std::size_t inputs) {
  std::vector<int> all(inputs);
  std::iota(all.begin(), all.end(), 0);
  return nested({all});
}

SumOrder SumOrder::tree(const std::vector<Subtree>& inputs, std::vector<Subtree>& left) {
  std::vector<std::uint32_t> ascending(inputs.size());
  std::iota(ascending.begin(), ascending.end(), 0U);
  std::sort(ascending.begin(), ascending.end(),
            [&](std::uint32_t a, std::uint32_t b) { return inputs[a].begin < inputs[b].begin; });
  SumOrder order;
  std::vector<Subtree> stack;
  for (const std::uint32_t input : ascending) {
    stack.push_back(inputs[input]);
    order.steps.push_back({input, 0});
    while (stack.size() > 1 && stack[stack.size() - 2].is_left_of(stack.back())) {
      stack.pop_back();
      stack.back().size *= 2;
      ++order.steps.back().merges;
    }
  }
  order.outputs = stack.size();
  left.insert(left.end(), stack.begin(), stack.end());
  return order;
}

std::vector<Subtree> subtrees_of(std::int64_t begin, std::int64_t end) {
  std::vector<Subtree> single, left;
  for (std::int64_t i = begin; i < end; ++i) single.push_back({.begin = i, .size = 1});
  SumOrder::tree(single, left);
  return left;
}

}  // namespace lockstep::comm
