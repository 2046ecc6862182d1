// libFuzzer's target for the reader of checkpoints. What the reader accepts is a state that can be
// written and read again, to the bit; what it does not is a CheckpointError, and nothing else.
#include <xxhash.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "checkpoint/file.hpp"
#include "checkpoint/file_of.hpp"
#include "fuzz/fuzz.hpp"
#include "lockstep/core/error.hpp"

namespace lockstep::checkpoint {
namespace {

StateDict tree(const FileContents& contents) {
  return unflatten(contents.header.records, contents.tensors);
}

}  // namespace

void read(const std::uint8_t* data, std::size_t size) {
  static Counts counts("the checksum of the header");
  const MemoryFile input(data, size);
  FileContents contents;
  try {
    contents = read_contents(input.path());
  } catch (const CheckpointError& error) {
    const std::string message = error.what();
    const bool behind = std::ranges::any_of(
        std::initializer_list<const char*>{"header cannot be used", "its header describes",
                                           "the checksum of '", "the padding"},
        [&](const char* part) { return message.find(part) != message.npos; });
    ++(behind ? counts.behind : counts.before);
    return;
  }
  ++counts.accepted;
  const StateDict state = tree(contents);
  MemoryFile first, second;
  const FlatState flat = flatten(state);
  write_state("", flat, make_header(flat), first);
  const StateDict again = tree(read_contents(first.path()));
  require(bit_equal(state, again), "a state is what was written");
  const FlatState flat_again = flatten(again);
  write_state("", flat_again, make_header(flat_again), second);
  require(first.bytes() == second.bytes(), "equal states have equal bytes");
}

namespace {

// Gives a tensor another shape and dtype, and all tensors the checksums of their data, if the header
// is one.
void repair_tensors(std::string& text, std::string& data, std::minstd_rand& random) {
  Header header;
  try {
    header = decode(text);
  } catch (const CheckpointError&) {
    return;
  }
  if (!header.tensors.empty() && random() % 2 == 0) {
    TensorRecord& tensor = header.tensors[random() % header.tensors.size()];
    tensor.dtype = static_cast<std::uint8_t>(random() % 4);
    std::vector<std::int64_t> extents(random() % 4);
    for (std::int64_t& extent : extents) extent = static_cast<std::int64_t>(random() % 6);
    tensor.shape = Shape(extents);
  }
  std::uint64_t end = 0;
  for (TensorRecord& tensor : header.tensors) {
    tensor.offset = align(end);
    tensor.bytes = static_cast<std::uint64_t>(tensor.shape.size()) * item_size(dtype_of(tensor));
    if (tensor.offset + tensor.bytes > 65536) return;
    end = tensor.offset + tensor.bytes;
    data.resize(std::max<std::size_t>(data.size(), end));
    tensor.checksum = XXH3_64bits(data.data() + tensor.offset, tensor.bytes);
  }
  data.resize(end);
  text = encode(header);
}

}  // namespace

const unsigned plain_seeds = 4;

// Changes the header or the data, and makes a file of them again.
std::string mutated(const std::string& file, std::size_t max_size, unsigned seed) {
  std::minstd_rand random(seed);
  constexpr std::size_t frame = sizeof(Preface) + sizeof(Trailer);
  std::string text = file, data;
  if (file.size() >= frame) {
    Preface preface;
    std::memcpy(&preface, file.data(), sizeof preface);
    const std::size_t size = std::min<std::size_t>(preface.header_bytes, file.size() - frame);
    const std::size_t begin = align(sizeof preface + size), end = file.size() - sizeof(Trailer);
    text = file.substr(sizeof preface, size);
    if (begin < end) data = file.substr(begin, end - begin);
  }
  mutate(random() % 2 == 0 ? data : text, max_size / 2);
  if (random() % 2 == 0) repair_tensors(text, data, random);
  return file_of(text, data.empty() ? std::nullopt : std::optional(data));
}

}  // namespace lockstep::checkpoint
