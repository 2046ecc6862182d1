#pragma once

#include <cstdint>
#include <filesystem>
#include <lockstep/comm/communicator.hpp>
#include <lockstep/data/data_loader.hpp>
#include <lockstep/data/dataset.hpp>
#include <span>
#include <string>

#include "options.hpp"

/// The images of a split, "train" or "t10k", of 28 × 28 pixels. DataError for others.
lockstep::data::TensorDataset read_split(const std::filesystem::path& folder,
                                         const std::string& split);

/// The images from `begin` to `end` of a dataset, which must outlive it.
class Share : public lockstep::data::Dataset {
 public:
  Share(const lockstep::data::Dataset& images, std::int64_t begin, std::int64_t end)
      : images_(&images), begin_(begin), end_(end) {}

  std::int64_t size() const override { return end_ - begin_; }
  lockstep::data::Batch batch(std::span<const std::int64_t> indices) const override;

 private:
  const lockstep::data::Dataset* images_;
  std::int64_t begin_, end_;
};

/// Those of this rank where ranks have uneven numbers: r + 1 shares for rank r; or else all of them.
Share images_of_rank(const lockstep::data::Dataset& images, const Options& options,
                     const lockstep::Communicator& ranks);

/// The order in which this rank takes them: its part of each global batch, or by itself where ranks
/// have uneven numbers.
lockstep::data::DistributedSampler make_sampler(std::int64_t images, const Options& options,
                                                const lockstep::Communicator& ranks);

/// How many images all ranks together train on in an epoch; collective.
std::int64_t images_per_epoch(const lockstep::data::DistributedSampler& sampler,
                              const Options& options, const lockstep::Communicator& ranks);
