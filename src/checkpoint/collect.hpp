#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "checkpoint/format.hpp"
#include "checkpoint/gathered_tensors.hpp"
#include "lockstep/checkpoint/checkpoint.hpp"
#include "lockstep/comm/communicator.hpp"
#include "lockstep/core/error.hpp"

namespace lockstep::checkpoint {

/// Returns the checksum of a tensor that all ranks have alike, and may put a copy in its place.
using TakeTensor = std::function<std::uint64_t(Tensor&)>;

/// For a checkpoint, compares what all ranks have alike, and lets rank 0 use the state of all ranks while the others serve
/// it. Collective; what goes wrong on any rank is thrown by all.
void collect(const std::string& path, const Communicator& communicator,
             const std::vector<Item>& items, const SaveOptions& options, const TakeTensor& take,
             const std::function<void(const Header&, GatheredTensors&)>& use);

/// To be called where an error was caught: throws it again, with the file if it is none of the library's
/// own, as where memory has run out.
[[noreturn]] void rethrow_with(const std::string& path, const char* action, const Error& error);

}  // namespace lockstep::checkpoint
