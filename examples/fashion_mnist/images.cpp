#include "images.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <lockstep/core/error.hpp>
#include <lockstep/data/idx.hpp>
#include <vector>

using namespace lockstep;

namespace {

/// Mean and standard deviation of the pixels of the training images.
constexpr data::TensorDatasetOptions normalization{.mean = 0.2860, .stddev = 0.3530};

}  // namespace

data::TensorDataset read_split(const std::filesystem::path& folder, const std::string& split) {
  const auto file = [&](const std::string& kind) {
    const std::filesystem::path plain = folder / (split + kind);
    return std::filesystem::exists(plain) ? plain : std::filesystem::path(plain.string() + ".gz");
  };
  auto images =
      data::read_idx_dataset(file("-images-idx3-ubyte"), file("-labels-idx1-ubyte"), normalization);
  const std::int64_t pixels = images.batch(std::array<std::int64_t, 1>{0}).inputs.size();
  if (pixels != 784) {
    throw DataError(fmt::format("the images of '{}' in '{}' have {} pixels, not 784", split,
                                folder.string(), pixels));
  }
  return images;
}

data::Batch Share::batch(std::span<const std::int64_t> indices) const {
  std::vector<std::int64_t> shifted(indices.begin(), indices.end());
  for (std::int64_t& index : shifted) index += begin_;
  return images_->batch(shifted);
}

Share images_of_rank(const data::Dataset& images, const Options& options,
                     const Communicator& ranks) {
  if (!options.uneven) return {images, 0, images.size()};
  const auto shares_before = [](std::int64_t rank) { return rank * (rank + 1) / 2; };
  const std::int64_t rank = ranks.rank(), shares = shares_before(ranks.size());
  return {images, images.size() * shares_before(rank) / shares,
          images.size() * shares_before(rank + 1) / shares};
}

data::DistributedSampler make_sampler(std::int64_t images, const Options& options,
                                      const Communicator& ranks) {
  data::DistributedSamplerOptions order{
      .seed = options.seed,
      // In local SGD each rank needs an image for each step, and for statistics there must be two.
      .drop_last = options.local_sgd > 0 || options.batch_norm != BatchNormalisation::none,
      .logical_replicas = options.logical_replicas};
  if (options.uneven) {
    order.seed += static_cast<std::uint64_t>(ranks.rank());
    return {images, options.batch, 0, 1, order};
  }
  const std::int64_t replicas =
      options.logical_replicas > 0 ? options.logical_replicas : ranks.size();
  return {images, options.batch * replicas, ranks.rank(), ranks.size(), order};
}

std::int64_t images_per_epoch(const data::DistributedSampler& sampler, const Options& options,
                              const Communicator& ranks) {
  std::int64_t batches = sampler.batches_per_epoch();
  if (options.uneven == UnevenInputs::shortest) batches = ranks.all_reduce(batches, ReduceOp::min);
  const std::int64_t images =
      std::min(batches * sampler.global_batch_size(), sampler.dataset_size());
  return options.uneven ? ranks.all_reduce(images) : images;
}
