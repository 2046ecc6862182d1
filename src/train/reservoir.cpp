#include "lockstep/train/reservoir.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "lockstep/core/error.hpp"
#include "lockstep/core/part_begin.hpp"

namespace lockstep::train {
namespace {

Shape with_rows(std::int64_t rows, const Shape& row) {
  std::vector<std::int64_t> extents{rows};
  extents.insert(extents.end(), row.begin(), row.end());
  return Shape(extents);
}

Shape row_of(const Tensor& rows) {
  return Shape(std::span(rows.shape().begin() + 1, rows.shape().end()));
}

void copy_row(Tensor& to, std::int64_t row, const Tensor& from, std::int64_t from_row) {
  const std::size_t bytes = to.bytes() / static_cast<std::size_t>(to.shape()[0]);
  std::memcpy(
      static_cast<std::byte*>(to.raw()) + static_cast<std::size_t>(row) * bytes,
      static_cast<const std::byte*>(from.raw()) + static_cast<std::size_t>(from_row) * bytes,
      bytes);
}

void check_rows(const char* what, const Tensor& expected, const Tensor& found, std::int64_t rows) {
  if (!found.defined()) throw ShapeError(fmt::format("the {} of snapshots are undefined", what));
  const Shape shape = with_rows(rows, row_of(expected));
  if (found.shape() != shape) {
    throw ShapeError(fmt::format("{} of snapshots: expected shape {}, found {}", what,
                                 to_string(shape), to_string(found.shape())));
  }
  if (found.dtype() != expected.dtype()) {
    throw DTypeError(fmt::format("{} of snapshots: expected dtype {}, found {}", what,
                                 to_string(expected.dtype()), to_string(found.dtype())));
  }
}

TensorPart part_of_rows(const Tensor& rows, std::int64_t capacity, std::int64_t begin) {
  const Shape row = row_of(rows);
  return {with_rows(capacity, row), begin * row.size(), rows.reshape({rows.size()})};
}

}  // namespace

Reservoir::Reservoir(std::int64_t capacity, const Shape& input, const Shape& target,
                     const Communicator& communicator, const ReservoirOptions& options)
    : communicator_(communicator),
      capacity_(capacity),
      key_(RandomKey(options.seed).fold("reservoir")) {
  const std::string own = fmt::format(
      "{} snapshots of {} {} and {} {}, seed {}", capacity, to_string(options.input_dtype),
      to_string(input), to_string(options.target_dtype), to_string(target), options.seed);
  std::string first = own;
  communicator_.broadcast(first);
  communicator_.agree([&] {
    if (own != first) {
      throw OptionError(fmt::format(
          "a Reservoir must be alike on all ranks: rank 0 has one for {}, found {}", first, own));
    }
    if (capacity < communicator_.size()) {
      throw OptionError(
          fmt::format("a Reservoir needs at least a row for each of {} ranks, found {}",
                      communicator_.size(), capacity));
    }
    if (!is_floating(options.input_dtype)) {
      throw OptionError(fmt::format("a Reservoir has inputs of dtype f32 or f64, found {}",
                                    to_string(options.input_dtype)));
    }
    begin_ = part_begin(capacity, communicator_.rank(), communicator_.size());
    const std::int64_t rows =
        part_begin(capacity, communicator_.rank() + 1, communicator_.size()) - begin_;
    inputs_ = Tensor::zeros(with_rows(rows, input), options.input_dtype);
    targets_ = Tensor::zeros(with_rows(rows, target), options.target_dtype);
    drawn_in_.resize(static_cast<std::size_t>(rows));
  });
}

void Reservoir::add(const Tensor& inputs, const Tensor& targets) {
  const std::int64_t count = inputs.defined() && inputs.shape().rank() > 0 ? inputs.shape()[0] : 0;
  check_rows("inputs", inputs_, inputs, count);
  check_rows("targets", targets_, targets, count);
  const std::int64_t rows = inputs_.shape()[0];
  const RandomKey key = key_.fold("rows").fold(static_cast<std::uint64_t>(communicator_.rank()));
  for (std::int64_t i = 0; i < count; ++i, ++seen_) {
    const auto seen = static_cast<std::uint64_t>(seen_);
    const std::int64_t row =
        size_ < rows ? size_ : static_cast<std::int64_t>(key.below(seen + 1, seen));
    if (row >= rows) continue;
    copy_row(inputs_, row, inputs, i);
    copy_row(targets_, row, targets, i);
    size_ = std::max(size_, row + 1);
  }
}

data::Batch Reservoir::draw(std::int64_t samples) {
  const auto rank = static_cast<std::size_t>(communicator_.rank());
  const auto ranks = static_cast<std::size_t>(communicator_.size());
  // What each rank has seen, and arguments that are the same on all if their largest is their
  // least.
  std::vector<std::int64_t> known(ranks + 4);
  known[rank] = seen_;
  known[ranks] = samples;
  known[ranks + 1] = -samples;
  known[ranks + 2] = draws_;
  known[ranks + 3] = -draws_;
  communicator_.all_reduce(std::span(known), ReduceOp::max);
  const auto seen = std::span(known).first(ranks);
  const std::int64_t all = std::accumulate(seen.begin(), seen.end(), std::int64_t{0});
  if (known[ranks] != -known[ranks + 1] || known[ranks + 2] != -known[ranks + 3]) {
    ErrorReport report{
        ErrorKind::option,
        fmt::format("a Reservoir draws on all ranks alike: found draw {} of {} "
                    "samples on one rank, and draw {} of {} on another",
                    -known[ranks + 3], -known[ranks + 1], known[ranks + 2], known[ranks])};
    throw_collective(report);
  }
  if (samples < 1) {
    throw_collective(
        {ErrorKind::option, fmt::format("a Reservoir draws at least 1 sample, found {}", samples)});
  }
  if (all == 0) {
    throw_collective(
        {ErrorKind::state, "a Reservoir draws from snapshots, and no rank has seen any"});
  }
  // Systematic sampling: of the points (u + k) · all / samples with one random u, a rank has those
  // that lie in its range of what all have seen.
  const double u = key_.fold("parts").uniform(static_cast<std::uint64_t>(draws_));
  const auto points_below = [&](std::int64_t snapshots) {
    const double share = static_cast<double>(snapshots) / static_cast<double>(all);
    return static_cast<std::int64_t>(std::ceil(share * static_cast<double>(samples) - u));
  };
  const std::int64_t before =
      std::accumulate(seen.begin(), seen.begin() + communicator_.rank(), std::int64_t{0});
  ++draws_;
  const std::vector<std::int64_t> rows =
      choose_rows(points_below(before + seen_) - points_below(before));
  return data::TensorDataset(inputs_, targets_).batch(rows);
}

// Floyd's algorithm for what is not a whole round through all rows: Bentley, Floyd, "A sample of
// brilliance", CACM 30(9), 1987.
std::vector<std::int64_t> Reservoir::choose_rows(std::int64_t count) {
  std::vector<std::int64_t> rows;
  rows.reserve(static_cast<std::size_t>(count));
  if (count == 0) return rows;
  for (std::int64_t round = 0; round < count / size_; ++round) {
    for (std::int64_t row = 0; row < size_; ++row) rows.push_back(row);
  }
  const RandomKey key = key_.fold("draws")
                            .fold(static_cast<std::uint64_t>(communicator_.rank()))
                            .fold(static_cast<std::uint64_t>(draws_));
  for (std::int64_t last = size_ - count % size_; last < size_; ++last) {
    const auto candidates = static_cast<std::uint64_t>(last) + 1;
    auto row = static_cast<std::int64_t>(key.below(candidates, static_cast<std::uint64_t>(last)));
    if (drawn_in_[static_cast<std::size_t>(row)] == draws_) row = last;
    drawn_in_[static_cast<std::size_t>(row)] = draws_;
    rows.push_back(row);
  }
  return rows;
}

NamedTensors Reservoir::tensors(const Tensor& weights) const {
  return NamedTensors({{"inputs", part_of_rows(inputs_, capacity_, begin_)},
                       {"targets", part_of_rows(targets_, capacity_, begin_)},
                       {"weights", part_of_rows(weights, capacity_, begin_)}});
}

StateDict Reservoir::state_dict() const {
  Tensor weights = Tensor::zeros({inputs_.shape()[0]}, DType::f64);
  if (size_ > 0) {
    weights.rows(0, size_).fill(static_cast<double>(seen_) / static_cast<double>(size_));
  }
  StateDict state = tensors(weights).state_dict();
  state["draws"] = draws_;
  return state;
}

namespace {

std::pair<StateDict, std::int64_t> without_draws(const StateDict& source) {
  StateDict rest = source;
  const std::int64_t draws = source.at("draws").as_int();
  if (draws < 0) throw StateError(fmt::format("'draws': expected at least 0, found {}", draws));
  rest.erase("draws");
  return {std::move(rest), draws};
}

}  // namespace

void Reservoir::check_restore(const StateDict& source) const {
  const auto [rest, draws] = without_draws(source);
  Tensor weights = Tensor::zeros({inputs_.shape()[0]}, DType::f64);
  NamedTensors(tensors(weights)).check_restore(rest);
  NamedTensors({{"weights", part_of_rows(weights, capacity_, begin_)}})
      .restore({{"weights", rest.at("weights")}});
  for (const double weight : weights.span<double>()) {
    if (weight == 0 || (weight >= 1 && weight < 0x1p53)) continue;
    throw StateError(fmt::format(
        "'weights': expected numbers of snapshots, which are 0 or at least 1, found {}", weight));
  }
}

void Reservoir::restore(const StateDict& source) {
  check_restore(source);
  auto [rest, draws] = without_draws(source);
  Tensor weights = Tensor::empty({inputs_.shape()[0]}, DType::f64);
  tensors(weights).restore(rest);
  draws_ = draws;
  std::fill(drawn_in_.begin(), drawn_in_.end(), 0);
  const std::span<const double> found = weights.span<double>();
  draw_anew({found.begin(), found.end()});
}

// Each row stays for as many snapshots as every other one: systematic sampling in proportion to the
// weights.
void Reservoir::draw_anew(std::vector<double> weights) {
  const double all = std::accumulate(weights.begin(), weights.end(), 0.0);
  size_ = std::count_if(weights.begin(), weights.end(), [](double weight) { return weight > 0; });
  seen_ = std::llround(all);
  // That changes nothing where they are equal, but that a sum of rounded weights can lose the last row.
  if (std::all_of(weights.begin(), weights.begin() + size_,
                  [&](double weight) { return weight > 0 && weight == weights.front(); })) {
    return;
  }
  const Tensor inputs = inputs_.clone(), targets = targets_.clone();
  const double u = key_.fold("anew")
                       .fold(static_cast<std::uint64_t>(communicator_.rank()))
                       .uniform(static_cast<std::uint64_t>(draws_));
  double below = 0;
  std::int64_t row = 0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    below += weights[i];
    while (row < size_ &&
           (static_cast<double>(row) + u) * all < below * static_cast<double>(size_)) {
      copy_row(inputs_, row, inputs, static_cast<std::int64_t>(i));
      copy_row(targets_, row, targets, static_cast<std::int64_t>(i));
      ++row;
    }
  }
  size_ = row;
}

}  // namespace lockstep::train
