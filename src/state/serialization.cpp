#include "lockstep/state/serialization.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <vector>

#include "lockstep/core/error.hpp"
#include "state/records.hpp"

namespace lockstep::detail {
namespace {

constexpr std::uint64_t format_version = 1;
// Bytes of a tensor go in strings of at most so many.
constexpr std::size_t longest_text = std::size_t{1} << 20;

std::uint64_t load_number(StateArchive& archive) {
  std::uint64_t value = 0;
  archive.number(value);
  return value;
}

void save_number(StateArchive& archive, std::uint64_t value) { archive.number(value); }

[[noreturn]] void fail(const std::string& why) {
  throw StateError(fmt::format("the archive holds no state: {}", why));
}

// Calls use(begin, size) for each part of a tensor's bytes.
template <class Use>
void for_texts(std::size_t bytes, Use&& use) {
  for (std::size_t begin = 0; begin < bytes; begin += longest_text) {
    use(begin, std::min(longest_text, bytes - begin));
  }
}

void save_tensor(StateArchive& archive, const Tensor& tensor) {
  save_number(archive, static_cast<std::uint64_t>(tensor.dtype()));
  save_number(archive, tensor.shape().rank());
  for (const std::int64_t extent : tensor.shape()) {
    save_number(archive, static_cast<std::uint64_t>(extent));
  }
  const auto* bytes = static_cast<const char*>(static_cast<const void*>(tensor.raw()));
  for_texts(tensor.bytes(), [&](std::size_t begin, std::size_t size) {
    std::string text(bytes + begin, size);
    archive.text(text);
  });
}

Tensor load_tensor(StateArchive& archive) {
  const std::uint64_t dtype = load_number(archive), rank = load_number(archive);
  if (dtype > static_cast<std::uint64_t>(DType::u8)) fail(fmt::format("dtype {}", dtype));
  if (rank > Shape::max_rank) fail(fmt::format("a tensor of {} dimensions", rank));
  std::vector<std::int64_t> extents;
  for (std::uint64_t axis = 0; axis < rank; ++axis) {
    extents.push_back(static_cast<std::int64_t>(load_number(archive)));
  }
  // Memory is taken as the bytes come, and not for what a damaged shape claims.
  const Shape shape(extents);
  const auto type = static_cast<DType>(dtype);
  std::string bytes, text;
  const auto size = static_cast<std::size_t>(shape.size()) * item_size(type);
  for_texts(size, [&](std::size_t, std::size_t expected) {
    archive.text(text);
    if (text.size() != expected) {
      fail(fmt::format("{} bytes of a tensor where {} were expected", text.size(), expected));
    }
    bytes += text;
  });
  Tensor tensor = Tensor::empty(shape, type);
  std::memcpy(tensor.raw(), bytes.data(), bytes.size());
  return tensor;
}

}  // namespace

void save(StateArchive& archive, const StateDict& state) {
  FlatState flat = flatten(state);
  save_number(archive, format_version);
  save_number(archive, flat.records.size());
  for (StateRecord& record : flat.records) {
    archive.text(record.key);
    save_number(archive, record.kind);
    archive.number(record.number);
    archive.text(record.string);
  }
  save_number(archive, flat.tensors.size());
  for (const Tensor& tensor : flat.tensors) save_tensor(archive, tensor);
}

StateDict load(StateArchive& archive) {
  if (const std::uint64_t version = load_number(archive); version != format_version) {
    fail(fmt::format("expected format {}, found {}", format_version, version));
  }
  FlatState flat;
  for (std::uint64_t records = load_number(archive); records > 0; --records) {
    StateRecord& record = flat.records.emplace_back();
    archive.text(record.key);
    const std::uint64_t kind = load_number(archive);
    if (kind > StateRecord::list) fail(fmt::format("a value of kind {}", kind));
    record.kind = static_cast<std::uint8_t>(kind);
    archive.number(record.number);
    archive.text(record.string);
  }
  for (std::uint64_t tensors = load_number(archive); tensors > 0; --tensors) {
    flat.tensors.push_back(load_tensor(archive));
  }
  return unflatten(flat.records, flat.tensors);
}

}  // namespace lockstep::detail
