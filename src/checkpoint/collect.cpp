#include "checkpoint/collect.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <memory>
#include <string>
#include <utility>

#include "checkpoint/gather.hpp"
#include "checkpoint/metadata.hpp"
#include "comm/calls.hpp"
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

// What all ranks have.
struct Alike {
  FlatState state;
  std::vector<std::uint64_t> checksums;  // of its tensors
};

Alike check_alike(const Communicator& communicator, StateDict& state, const TakeTensor& take) {
  Alike alike;
  std::uint64_t hash = 0;
  communicator.agree([&] {
    for (auto& [name, item] : state) take_tensors(item, take, alike.checksums);
    alike.state = flatten(state);
    hash = hash_state(alike.state, alike.checksums);
  });
  if (comm::have_same(communicator, hash)) return alike;
  std::vector<NamedHash> entries;
  communicator.agree([&] { entries = hash_entries(alike.state, alike.checksums); });
  const std::string drift = comm::find_drift(communicator, entries);
  throw_collective({ErrorKind::state, fmt::format("the replicas have drifted apart: {}", drift)});
}

bool is_empty(const Header& header) { return header.records.size() <= 1; }

}  // namespace

void rethrow_with(const std::string& path, const char* action, const Error& error) {
  if (error.kind() != ErrorKind::other) throw;
  throw_collective({ErrorKind::checkpoint, fmt::format("the checkpoint '{}' cannot be {}: {}", path,
                                                       action, error.what())});
}

void collect(const std::string& path, const Communicator& communicator,
             const std::vector<Item>& items, const SaveOptions& options, const TakeTensor& take,
             const std::function<void(const Header&, GatheredTensors&)>& use) try {
  comm::Calls::announce(communicator, {.call = comm::Call::save});
  Contribution own;
  std::string time;
  communicator.agree([&] {
    if (options.buffer_bytes == 0) throw OptionError("expected buffer_bytes > 0, found 0");
    own = contribution_of(items, communicator.rank());
    time = time_of_save();
  });
  communicator.broadcast(time);
  communicator.agree([&] {
    own.alike[metadata_name] = make_metadata(options.metadata, communicator.size(), time);
  });
  Alike alike = check_alike(communicator, own.alike, take);
  std::string text;
  communicator.agree([&] { text = encode(own.own); });
  const std::vector<std::string> texts = communicator.gather(text);
  std::vector<Bytes> arrays;
  std::unique_ptr<GatheredTensors> tensors;
  communicator.agree([&] {
    for (const Tensor& tensor : own.arrays) arrays.push_back(bytes_of(tensor));
    if (communicator.rank() != 0) return;
    std::vector<Header> contributions;
    for (const std::string& of_rank : texts) contributions.push_back(parse(of_rank));
    Gathered gathered;
    if (std::all_of(contributions.begin(), contributions.end(), is_empty)) {
      gathered.assembled.resize(alike.state.tensors.size());
      gathered.state = std::move(alike.state);
    } else {
      gathered = gather(std::move(own.alike), contributions);
    }
    tensors = std::make_unique<GatheredTensors>(communicator, own, std::move(gathered),
                                                options.buffer_bytes);
  });
  std::exception_ptr failure;
  if (tensors == nullptr) {
    comm::serve(communicator, 0, arrays);
  } else {
    try {
      use(tensors->header(alike.checksums), *tensors);
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
