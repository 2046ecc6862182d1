#include "lockstep/data/data_loader.hpp"

#include <fmt/format.h>

#include <utility>

#include "lockstep/core/error.hpp"

namespace lockstep::data {

DataLoader::DataLoader(const Dataset& dataset, DistributedSampler sampler)
    : dataset_(&dataset), sampler_(std::move(sampler)) {
  if (dataset.size() != sampler_.dataset_size()) {
    throw OptionError(fmt::format("the sampler is for {} samples, but the dataset has {}",
                                  sampler_.dataset_size(), dataset.size()));
  }
}

std::optional<Batch> DataLoader::next() {
  const auto indices = sampler_.next();
  if (!indices) return std::nullopt;
  return dataset_->batch(*indices);
}

}  // namespace lockstep::data
