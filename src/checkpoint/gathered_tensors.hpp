#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "checkpoint/file.hpp"
#include "checkpoint/format.hpp"
#include "checkpoint/gather.hpp"
#include "comm/pull.hpp"

namespace lockstep::checkpoint {

/// The tensors of all ranks on rank 0, which reads those of others in pieces.
class GatheredTensors {
 public:
  /// `own` must outlive this.
  GatheredTensors(const Communicator& communicator, const Contribution& own, Gathered gathered,
                  std::size_t buffer_bytes);

  /// `alike` are the checksums of the tensors that all ranks have. Reads those that are made of several
  /// parts. To be called once.
  Header header(const std::vector<std::uint64_t>& alike);
  void read(std::size_t tensor, const std::function<void(Bytes)>& use);
  /// The tensor: what all ranks have without a copy, another in memory of its own.
  Tensor whole(std::size_t tensor);
  std::size_t size() const noexcept { return gathered_.assembled.size(); }
  /// The other ranks need not serve any more; to be called once.
  void end() { pull_.end(); }

 private:
  void read(const Source& source, const std::function<void(Bytes)>& use);
  std::uint64_t checksum_of(std::size_t tensor);

  comm::Pull pull_;
  const Contribution& own_;
  Gathered gathered_;
  std::size_t piece_bytes_;
  std::array<std::vector<std::byte>, 2> buffers_;
};

}  // namespace lockstep::checkpoint
