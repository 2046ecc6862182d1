#include "checkpoint/gathered_tensors.hpp"

#include <algorithm>
#include <utility>

#include "lockstep/core/error.hpp"
#include "state/checksum.hpp"

namespace lockstep::checkpoint {
GatheredTensors::GatheredTensors(const Communicator& communicator, const Contribution& own,
                                 Gathered gathered, std::size_t buffer_bytes)
    : pull_(communicator),
      own_(own),
      gathered_(std::move(gathered)),
      piece_bytes_(std::clamp(buffer_bytes / 2, std::size_t{1}, std::size_t{1} << 30)) {}

Header GatheredTensors::header(const std::vector<std::uint64_t>& alike) {
  auto next = alike.begin();  // their order is the same among all tensors
  std::vector<TensorRecord> records;
  for (std::size_t i = 0; i < gathered_.assembled.size(); ++i) {
    if (const auto& assembled = gathered_.assembled[i]) {
      const bool single = assembled->sources.size() == 1;
      records.push_back(record_of(assembled->dtype, assembled->shape,
                                  single ? assembled->sources[0].checksum : checksum_of(i)));
    } else {
      const Tensor& tensor = gathered_.state.tensors[i];
      records.push_back(record_of(tensor.dtype(), tensor.shape(), *next++));
    }
  }
  return make_header(std::move(gathered_.state.records), std::move(records));
}

std::uint64_t GatheredTensors::checksum_of(std::size_t tensor) {
  Checksum checksum;
  read(tensor, [&checksum](Bytes bytes) { checksum.add(bytes); });
  return checksum.take();
}

void GatheredTensors::read(std::size_t tensor, const std::function<void(Bytes)>& use) {
  const auto& assembled = gathered_.assembled[tensor];
  if (!assembled) return use(bytes_of(gathered_.state.tensors[tensor]));
  for (const Source& source : assembled->sources) {
    if (source.rank == 0) {
      use(bytes_of(own_.arrays[source.array]));
    } else {
      read(source, use);
    }
  }
}

Tensor GatheredTensors::whole(std::size_t tensor) {
  const auto& assembled = gathered_.assembled[tensor];
  if (!assembled) return gathered_.state.tensors[tensor];
  Tensor result = Tensor::empty(assembled->shape, assembled->dtype);
  auto* next = static_cast<std::byte*>(result.raw());
  read(tensor, [&next](Bytes bytes) { next = std::copy(bytes.begin(), bytes.end(), next); });
  return result;
}

// The next piece is on its way while the one before is used.
void GatheredTensors::read(const Source& source, const std::function<void(Bytes)>& use) {
  const std::uint64_t pieces = (source.bytes + piece_bytes_ - 1) / piece_bytes_;
  // First of all, since memory may run out.
  for (std::vector<std::byte>& buffer : buffers_) {
    const std::size_t size = std::min<std::uint64_t>(piece_bytes_, source.bytes);
    if (buffer.size() < size) buffer.resize(size);
  }
  std::array<MPI_Request, 2> requests{MPI_REQUEST_NULL, MPI_REQUEST_NULL};
  const auto piece_of = [&](std::uint64_t piece) {
    const std::uint64_t begin = piece * piece_bytes_;
    return std::span(buffers_[piece % 2])
        .first(std::min<std::uint64_t>(piece_bytes_, source.bytes - begin));
  };
  const auto start = [&](std::uint64_t piece) {
    if (piece >= pieces) return;
    requests[piece % 2] =
        pull_.start(source.rank, source.array, piece * piece_bytes_, piece_of(piece));
  };
  const auto wait = [&](MPI_Request& request) {
    try {
      pull_.wait(request);
    } catch (const DeadlineError&) {
      static_cast<void>(new auto(std::move(buffers_)));  // which MPI may still write to
      throw;
    }
  };
  start(0);
  for (std::uint64_t piece = 0; piece < pieces; ++piece) {
    start(piece + 1);
    wait(requests[piece % 2]);
    try {
      use(piece_of(piece));
    } catch (...) {
      wait(requests[(piece + 1) % 2]);
      throw;
    }
  }
}

}  // namespace lockstep::checkpoint
