#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "lockstep/core/error.hpp"
#include "state/records.hpp"

// The constants of docs/checkpoint_format.md.
namespace lockstep::checkpoint {

inline constexpr char magic[8] = {'L', 'O', 'C', 'K', 'S', 'T', 'E', 'P'};
inline constexpr char end_magic[8] = {'P', 'E', 'T', 'S', 'K', 'C', 'O', 'L'};
inline constexpr std::uint32_t format_version = 1;
inline constexpr std::uint64_t alignment = 64;
inline constexpr std::uint64_t max_header_bytes = std::uint64_t{1} << 30;
inline constexpr std::uint64_t max_data_bytes = std::uint64_t{1} << 62;

/// The first bytes of a file.
struct Preface {
  char magic[8];
  std::uint32_t version;
  std::uint32_t reserved;
  std::uint64_t header_bytes;
  std::uint64_t header_checksum;
};
static_assert(sizeof(Preface) == 32);

/// The last bytes of a file.
struct Trailer {
  std::uint64_t file_bytes;
  char magic[8];
};
static_assert(sizeof(Trailer) == 16);

/// A list in the header: its length, and its items. Items are read one by one, so that a length
/// takes no memory before the items have been found.
template <class Archive, class Item>
void serialize_list(Archive& archive, std::vector<Item>& items) {
  std::uint64_t size = items.size();
  archive& size;
  if constexpr (Archive::is_loading::value) {
    items.clear();
    for (std::uint64_t i = 0; i < size; ++i) archive& items.emplace_back();
  } else {
    for (Item& item : items) archive& item;
  }
}

/// A shape in the header, as the list of its extents. ShapeError for what no tensor has.
template <class Archive>
void serialize_shape(Archive& archive, Shape& shape) {
  std::uint64_t rank = shape.rank();
  archive& rank;
  std::array<std::int64_t, Shape::max_rank> extents{};
  if (rank > extents.size()) {
    throw ShapeError(fmt::format("a shape has at most {} extents, found {}", extents.size(), rank));
  }
  std::copy(shape.begin(), shape.end(), extents.begin());
  for (std::uint64_t axis = 0; axis < rank; ++axis) archive& extents[axis];
  if constexpr (Archive::is_loading::value) shape = Shape(std::span(extents).first(rank));
}

/// Where a tensor is, counted from the first 64-byte boundary after the header.
struct TensorRecord {
  std::uint8_t dtype = 0;
  Shape shape;
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
  std::uint64_t checksum = 0;

  template <class Archive>
  void serialize(Archive& archive, unsigned int) {
    archive& dtype;
    serialize_shape(archive, shape);
    archive& offset& bytes& checksum;
  }
};

TensorRecord record_of(DType dtype, const Shape& shape, std::uint64_t checksum);
inline DType dtype_of(const TensorRecord& record) { return static_cast<DType>(record.dtype); }

struct Header {
  std::vector<StateRecord> records;
  std::vector<TensorRecord> tensors;

  template <class Archive>
  void serialize(Archive& archive, unsigned int) {
    serialize_list(archive, records);
    serialize_list(archive, tensors);
  }
};

inline constexpr std::uint64_t align(std::uint64_t offset) {
  return (offset + alignment - 1) / alignment * alignment;
}

/// The header's text, and back. CheckpointError where it cannot be parsed, where its records are no
/// tree, and where its tensors do not follow one another as docs/checkpoint_format.md says; takes
/// memory in proportion to the text.
std::string encode(const Header& header);
Header decode(const std::string& text);

/// What encode() has written, without a look at whether it is the header of a file.
Header parse(const std::string& text);

/// A header for a state's tensors, with offsets and checksums.
Header make_header(const FlatState& state);
/// The same of what record_of() gives, in order.
Header make_header(std::vector<StateRecord> records, std::vector<TensorRecord> tensors);

/// The tree of a header's records, in which each tensor stands for the one of that number.
StateDict numbered_tree(std::vector<StateRecord> records, std::size_t tensors);
/// Of a tensor in such a tree.
std::size_t number_of(const Tensor& tensor);

/// Memory for each tensor of a header, with arbitrary contents.
std::vector<Tensor> allocate_tensors(const Header& header);

}  // namespace lockstep::checkpoint
