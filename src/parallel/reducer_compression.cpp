#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <set>
#include <span>
#include <string_view>
#include <utility>

#include "lockstep/core/error.hpp"
#include "parallel/reducer_engine.hpp"
#include "state/records.hpp"

namespace lockstep {
namespace {

// A row for each node.
Shape shape_of_left(std::int64_t nodes, std::size_t size) {
  return {nodes, static_cast<std::int64_t>(size)};
}

}  // namespace

// On each node a rank compresses about as many numbers as any other, whatever bucket they are in.
void GradientReducer::Engine::make_compressors() {
  compressed_.resize(items_.size());
  if (options_.compression == nullptr) return;
  std::vector<std::unique_ptr<TensorCompressor>> compressors(items_.size());
  communicator_.agree([&] {
    for (std::size_t i = 0; i < items_.size(); ++i) {
      compressors[i] =
          options_.compression->compressor(items_[i].name, items_[i].parameter.shape());
    }
  });
  std::vector<std::size_t> largest_first(items_.size());
  std::iota(largest_first.begin(), largest_first.end(), std::size_t{0});
  std::stable_sort(largest_first.begin(), largest_first.end(), [&](std::size_t a, std::size_t b) {
    return items_[a].parameter.size() > items_[b].parameter.size();
  });
  std::vector<std::int64_t> numbers(reduction_->lanes().count());
  for (const std::size_t i : largest_first) {
    if (compressors[i] == nullptr || items_[i].parameter.size() == 0) continue;
    const auto lane = std::min_element(numbers.begin(), numbers.end());
    *lane += items_[i].parameter.size();
    compressed_[i] = std::make_unique<CompressedGradient>(
        std::move(compressors[i]), range_of(i), measured_of(ranges_[i]),
        static_cast<std::size_t>(lane - numbers.begin()));
  }
}

void GradientReducer::Engine::plan_compression(Bucket& bucket) const {
  std::vector<std::uint32_t> others;
  for (const std::uint32_t item : bucket.items) {
    if (compressed_[item] == nullptr) {
      others.push_back(item);
    } else {
      bucket.codecs.push_back(compressed_[item].get());
    }
  }
  bucket.others = pieces_of(ranges_, others);
  bucket.others.pieces.push_back(bucket.all.pieces.back());  // the notes
}

bool GradientReducer::Engine::compresses() const noexcept {
  return options_.compression != nullptr && reduction_->lanes().nodes() > 1 &&
         reductions_ >= options_.compression->first_reduction();
}

StateDict GradientReducer::Engine::state_dict() const {
  StateDict state;
  if (options_.compression == nullptr) return state;
  const comm::Lanes& lanes = reduction_->lanes();
  const auto nodes = static_cast<std::int64_t>(lanes.nodes());
  StateDict parameters;
  for (std::size_t i = 0; i < items_.size(); ++i) {
    if (compressed_[i] == nullptr) continue;
    const CompressedGradient& gradient = *compressed_[i];
    Tensor left = Tensor::zeros(shape_of_left(nodes, gradient.size()), DType::f32);
    for (std::int64_t node = 0; node < nodes; ++node) {
      const int owner = lanes.owner(static_cast<std::size_t>(node), gradient.lane());
      Tensor row = left.rows(node, node + 1);
      if (communicator_.rank() == owner && !gradient.left().empty()) {
        std::memcpy(row.raw(), gradient.left().data(), row.bytes());
      }
      communicator_.broadcast_bytes(row.raw(), row.bytes(), owner);
    }
    // That of a rank which does not compress is as it was in the beginning.
    const int owner = lanes.owner(0, gradient.lane());
    FlatState flat = flatten(gradient.compressor().state_dict().clone());
    for (StateRecord& record : flat.records) {
      communicator_.broadcast_bytes(&record.number, sizeof(record.number), owner);
    }
    for (Tensor& tensor : flat.tensors) {
      communicator_.broadcast_bytes(tensor.raw(), tensor.bytes(), owner);
    }
    parameters[items_[i].name] =
        StateDict{{"left", std::move(left)}, {"compressor", unflatten(flat.records, flat.tensors)}};
  }
  state["reductions"] = reductions_;
  state["parameters"] = std::move(parameters);
  return state;
}

void GradientReducer::Engine::check_restore(const StateDict& source) const {
  if (options_.compression == nullptr) {
    if (source.empty()) return;
    throw StateError("the state of a reducer with compression, for one that has none");
  }
  if (const std::int64_t reductions = source.at("reductions").as_int(); reductions < 0) {
    throw StateError(fmt::format("expected a number of reductions ≥ 0, found {}", reductions));
  }
  const StateDict& parameters = source.at("parameters").as_dict();
  std::set<std::string_view> names;
  for (std::size_t i = 0; i < items_.size(); ++i) {
    if (compressed_[i] == nullptr) continue;
    const StateDict& state = parameters.at(items_[i].name).as_dict();
    const Tensor& left = state.at("left").as_tensor();
    const Shape& shape = left.shape();
    const std::size_t size = compressed_[i]->size();
    if (left.dtype() != DType::f32) {
      throw DTypeError(fmt::format("what is left of the gradient of '{}': expected f32, found {}",
                                   items_[i].name, to_string(left.dtype())));
    }
    if (shape.rank() != 2 || shape[0] < 1 || shape != shape_of_left(shape[0], size)) {
      throw ShapeError(fmt::format(
          "what is left of the gradient of '{}': expected the shape (nodes, {}), found {}",
          items_[i].name, size, to_string(shape)));
    }
    compressed_[i]->compressor().check_restore(state.at("compressor").as_dict());
    names.insert(items_[i].name);
  }
  for (const auto& [name, state] : parameters) {
    if (!names.contains(name)) {
      throw NameError(fmt::format("the state of a compressed gradient '{}': there is none", name));
    }
  }
}

// Where there were as many nodes, each has what it had; others all get the mean, so that what is added
// to the mean over nodes is the same.
void GradientReducer::Engine::restore(const StateDict& source) {
  check_restore(source);
  if (options_.compression == nullptr) return;
  const comm::Lanes& lanes = reduction_->lanes();
  reductions_ = static_cast<std::uint64_t>(source.at("reductions").as_int());
  for (std::size_t i = 0; i < items_.size(); ++i) {
    if (compressed_[i] == nullptr) continue;
    CompressedGradient& gradient = *compressed_[i];
    const StateDict& state = source.at("parameters").as_dict().at(items_[i].name).as_dict();
    gradient.compressor().restore(state.at("compressor").as_dict());
    if (lanes.owner(lanes.own_node(), gradient.lane()) != communicator_.rank()) continue;
    const Tensor& left = state.at("left").as_tensor();
    const auto nodes = static_cast<std::size_t>(left.shape()[0]);
    const std::span<const float> rows(left.data<float>(), nodes * gradient.size());
    std::vector<float> own(gradient.size());
    if (nodes == lanes.nodes()) {
      const std::span<const float> row = rows.subspan(lanes.own_node() * own.size(), own.size());
      std::copy(row.begin(), row.end(), own.begin());
    } else {
      for (std::size_t k = 0; k < own.size(); ++k) {
        double sum = 0;
        for (std::size_t node = 0; node < nodes; ++node) sum += rows[node * own.size() + k];
        own[k] = static_cast<float>(sum / static_cast<double>(nodes));
      }
    }
    gradient.set_left(own);
  }
}

}  // namespace lockstep
