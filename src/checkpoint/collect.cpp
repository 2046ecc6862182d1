#include "checkpoint/collect.hpp"

#include <fmt/format.h>

#include <exception>
#include <memory>
#include <string>

#include "checkpoint/gather.hpp"
#include "checkpoint/metadata.hpp"
#include "comm/drift.hpp"
#include "comm/pull.hpp"
#include "lockstep/core/error.hpp"
#include "state/state_hashes.hpp"

namespace lockstep::checkpoint {
namespace {

// In the order in which flatten() finds the tensors.
void take_tensors(StateValue& value, const TakeTensor& take,
                  std::vector<std::uint64_t>& checksums) {
  if (std::holds_alternative<Tensor>(value.variant())) {
    Tensor& tensor = value.as_tensor();
    checksums.push_back(tensor.defined() ? take(tensor) : 0);  // flatten() says what is undefined
  } else if (std::holds_alternative<StateDict>(value.variant())) {
    for (auto& [key, child] : value.as_dict()) take_tensors(child, take, checksums);
  } else if (std::holds_alternative<StateList>(value.variant())) {
    for (StateValue& child : value.as_list()) take_tensors(child, take, checksums);
  }
}

// Returns the checksums of the tensors.
std::vector<std::uint64_t> check_alike(const Communicator& communicator, StateDict& alike,
                                       const TakeTensor& take) {
  std::vector<std::uint64_t> checksums;
  std::vector<NamedHash> entries;
  communicator.agree([&] {
    for (auto& [name, item] : alike) take_tensors(item, take, checksums);
    entries = hash_entries(flatten(alike), checksums);
  });
  const std::string drift = comm::find_drift(communicator, entries);
  if (drift.empty()) return checksums;
  throw_collective({ErrorKind::state, fmt::format("the replicas have drifted apart: {}", drift)});
}

}  // namespace

void rethrow_with(const std::filesystem::path& path, const char* action, const Error& error) {
  if (error.kind() != ErrorKind::other) throw;
  throw_collective({ErrorKind::checkpoint, fmt::format("the checkpoint '{}' cannot be {}: {}",
                                                       path.string(), action, error.what())});
}

void collect(const std::filesystem::path& path, const Communicator& communicator,
             const std::vector<Item>& items, const SaveOptions& options, const TakeTensor& take,
             const std::function<void(const Header&, GatheredTensors&)>& use) try {
  Contribution own;
  StateDict metadata;
  communicator.agree([&] {
    if (options.buffer_bytes == 0) throw OptionError("expected buffer_bytes > 0, found 0");
    own = contribution_of(items, communicator.rank());
    own.alike[metadata_name] = options.metadata;
    metadata = make_metadata(options.metadata, communicator.size());
  });
  const std::vector<std::uint64_t> checksums = check_alike(communicator, own.alike, take);
  std::string text;
  communicator.agree([&] { text = encode(own.own); });
  const std::vector<std::string> texts = communicator.gather(text);
  std::vector<Bytes> arrays;
  std::unique_ptr<GatheredTensors> tensors;
  communicator.agree([&] {
    for (const Tensor& tensor : own.arrays) arrays.push_back(bytes_of(tensor));
    if (communicator.rank() != 0) return;
    own.alike[metadata_name] = metadata;
    std::vector<Header> contributions;
    for (const std::string& of_rank : texts) contributions.push_back(parse(of_rank));
    tensors = std::make_unique<GatheredTensors>(communicator, own, gather(own.alike, contributions),
                                                options.buffer_bytes);
  });
  std::exception_ptr failure;
  if (tensors == nullptr) {
    comm::serve(communicator, 0, arrays);
  } else {
    try {
      use(tensors->header(checksums), *tensors);
    } catch (...) {
      failure = std::current_exception();
    }
    tensors->end();
  }
  communicator.agree([&failure] {
    if (failure != nullptr) std::rethrow_exception(failure);
  });
} catch (const Error& error) {
  rethrow_with(path, "saved", error);
}

}  // namespace lockstep::checkpoint
