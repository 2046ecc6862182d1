// libFuzzer's target for the reader of safetensors files. What it accepts can be written and read
// again, to the bit, and where it makes items of a checkpoint, these can as well; what it does not
// is a CheckpointError, and nothing else.
#include <cstdint>
#include <cstring>
#include <nlohmann/json.hpp>
#include <random>
#include <string>

#include "checkpoint/safetensors_format.hpp"
#include "checkpoint/safetensors_items.hpp"
#include "fuzz/fuzz.hpp"
#include "lockstep/core/error.hpp"

namespace lockstep::checkpoint {
namespace {

using nlohmann::json;

void write(MemoryFile& to, const SafetensorsFile& file) {
  write_safetensors("", file.tensors, file.metadata, to);
}

void check_is_written_and_read(const SafetensorsFile& file) {
  MemoryFile first, second;
  write(first, file);
  const SafetensorsFile again = read_safetensors(first.path());
  require(bit_equal(file.tensors, again.tensors), "tensors are what was written");
  require(file.metadata == again.metadata, "metadata are what was written");
  write(second, again);
  require(first.bytes() == second.bytes(), "equal contents have equal bytes");
}

void check_items(SafetensorsFile file) {
  MemoryFile packed;
  StateDict items;
  try {
    items = unpack_items(file);
    write(packed, pack_items(items, find_roles(items)));
  } catch (const Error&) {
    return;  // they contradict themselves, or two would have one name
  }
  SafetensorsFile again = read_safetensors(packed.path());
  require(bit_equal(unpack_items(again), items), "items are what was packed");
  require(again.metadata.empty(), "no text is left of what was packed");
}

}  // namespace

void read(const std::uint8_t* data, std::size_t size) {
  static Counts counts("the header's JSON");
  const MemoryFile input(data, size);
  SafetensorsFile file;
  try {
    file = read_safetensors(input.path());
  } catch (const CheckpointError& error) {
    const std::string message = error.what();
    const bool behind = message.find("tensor '") != message.npos ||
                        message.find("belong to no tensor") != message.npos ||
                        message.find("__metadata__") != message.npos;
    ++(behind ? counts.behind : counts.before);
    return;
  }
  ++counts.accepted;
  check_is_written_and_read(file);
  check_items(file);
}

namespace {

std::uint64_t item_bytes(const json& dtype) {
  if (dtype == "F64" || dtype == "I64") return 8;
  if (dtype == "F32" || dtype == "I32" || dtype == "U32") return 4;
  if (dtype == "F16" || dtype == "BF16" || dtype == "I16" || dtype == "U16") return 2;
  return 1;
}

// Gives a tensor another shape and dtype, and all tensors a place of their size, if the text is a
// header.
void repair_tensors(json& header, std::string& data, std::minstd_rand& random) {
  std::uint64_t end = 0;
  for (auto& [name, tensor] : header.items()) {
    if (!tensor.is_object() || name == metadata_key) continue;
    if (random() % 4 == 0) {
      constexpr const char* dtypes[] = {"F32",  "F64", "I64", "U8",  "BOOL", "F16",
                                        "BF16", "I8",  "I16", "I32", "U16",  "U32"};
      tensor["dtype"] = dtypes[random() % std::size(dtypes)];
      tensor["shape"] = json::array();
      for (auto axes = random() % 4; axes > 0; --axes) tensor["shape"].push_back(random() % 6);
    }
    const json shape = tensor.value("shape", json());
    std::uint64_t bytes = item_bytes(tensor.value("dtype", json()));
    for (const json& extent : shape) {
      if (!extent.is_number_unsigned() || extent > 65536) return;
      bytes *= extent.get<std::uint64_t>();
      if (bytes > 65536) return;
    }
    tensor["data_offsets"] = {end, end + bytes};
    end += bytes;
    if (end > 65536) return;
  }
  data.resize(end);
}

// Puts something else in the place of a field of a tensor, or of one of its numbers.
void change_field(json& header, std::minstd_rand& random) {
  const auto one_of = [&random](json& values) -> json& {
    auto value = values.begin();
    for (auto skip = random() % values.size(); skip > 0; --skip) ++value;
    return *value;
  };
  json* value = &header;
  while (value->is_structured() && !value->empty() && (value == &header || random() % 4 != 0)) {
    value = &one_of(*value);
  }
  const json values[] = {0,      1,          5,         -1,    1.5,           nullptr,
                         true,   UINT64_MAX, INT64_MAX, "F32", json::array(), json::object(),
                         {0, 4}, {4, 0},     {2, 3}};
  *value = values[random() % std::size(values)];
}

// Changes one of the texts, which are JSON themselves where this library has written them.
void mutate_text(json& header, std::size_t max_size, std::minstd_rand& random) {
  const auto metadata = header.find(metadata_key);
  if (metadata == header.end() || !metadata->is_object() || metadata->empty()) return;
  auto entry = metadata->begin();
  for (auto skip = random() % metadata->size(); skip > 0; --skip) ++entry;
  if (!entry->is_string()) return;
  std::string text = *entry;
  mutate(text, max_size);
  *entry = text;
}

std::string put_together(const std::string& text, const std::string& data) {
  const std::uint64_t size = text.size();
  return std::string(reinterpret_cast<const char*>(&size), sizeof size) + text + data;
}

}  // namespace

const unsigned plain_seeds = 16;

// Changes the header or the data, and makes a file of them again.
std::string mutated(const std::string& file, std::size_t max_size, unsigned seed) {
  std::minstd_rand random(seed);
  std::string text = file, data;
  std::uint64_t size = 0;
  if (file.size() >= sizeof size) {
    std::memcpy(&size, file.data(), sizeof size);
    text = file.substr(sizeof size, size);
    data = file.substr(sizeof size + text.size());
  }
  // Several of these make one input, so that what breaks the JSON is to be rare.
  const auto what = random() % 16;
  if (what == 0) mutate(text, max_size / 2);
  if (what == 1) mutate(data, max_size / 2);
  json header = json::parse(text, nullptr, false);
  if (header.is_object()) {
    if (what >= 12) mutate_text(header, max_size / 2, random);
    if (what > 1) repair_tensors(header, data, random);
    if (what >= 2 && what < 5) change_field(header, random);
    text = header.dump(-1, ' ', false, json::error_handler_t::replace);
  }
  return put_together(text, data);
}

}  // namespace lockstep::checkpoint
