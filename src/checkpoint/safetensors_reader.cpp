#include "lockstep/checkpoint/safetensors.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include "checkpoint/input_file.hpp"
#include "checkpoint/safetensors_format.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/core/half.hpp"

namespace lockstep::checkpoint {
namespace {

using nlohmann::json;

// How a dtype of the format is read: as it is where there is no `convert`.
struct Format {
  std::string_view name;
  std::uint64_t item_bytes;
  DType dtype;
  void (*convert)(const std::vector<std::byte>& bytes, Tensor& to) = nullptr;
};

template <class From, class To>
void convert(const std::vector<std::byte>& bytes, Tensor& to) {
  const std::byte* next = bytes.data();
  for (To& number : to.span<To>()) {
    From from;
    std::memcpy(&from, next, sizeof from);
    number = static_cast<To>(from);
    next += sizeof from;
  }
}

constexpr std::array formats{
    Format{"F32", 4, DType::f32},
    Format{"F64", 8, DType::f64},
    Format{"I64", 8, DType::i64},
    Format{"U8", 1, DType::u8},
    Format{"BOOL", 1, DType::u8},
    Format{"F16", 2, DType::f32, convert<float16, float>},
    Format{"BF16", 2, DType::f32, convert<bfloat16, float>},
    Format{"I8", 1, DType::i64, convert<std::int8_t, std::int64_t>},
    Format{"I16", 2, DType::i64, convert<std::int16_t, std::int64_t>},
    Format{"I32", 4, DType::i64, convert<std::int32_t, std::int64_t>},
    Format{"U16", 2, DType::i64, convert<std::uint16_t, std::int64_t>},
    Format{"U32", 4, DType::i64, convert<std::uint32_t, std::int64_t>},
};

struct TensorEntry {
  std::string name;
  const Format* format;
  Shape shape;
  std::uint64_t begin, end;  // in the data
};

class SafetensorsReader {
 public:
  SafetensorsReader(const std::filesystem::path& path,
                    const std::function<void(std::uint64_t)>& progress)
      : file_("safetensors file", path), progress_(progress) {}

  SafetensorsFile read() {
    const json header = parse(read_header());
    SafetensorsFile contents;
    std::vector<TensorEntry> tensors;
    for (const auto& [name, value] : header.items()) {
      if (name == metadata_key) {
        contents.metadata = read_metadata(value);
      } else {
        tensors.push_back(read_entry(name, value));
      }
    }
    check_tiling(tensors);
    for (const TensorEntry& tensor : tensors) contents.tensors[tensor.name] = read_tensor(tensor);
    return contents;
  }

 private:
  template <class... Arguments>
  [[noreturn]] void fail(fmt::format_string<const Arguments&...> format,
                         const Arguments&... arguments) const {
    file_.fail(fmt::format(format, arguments...));
  }

  std::string read_header() {
    std::uint64_t bytes = 0;
    if (file_.size() < sizeof bytes) fail("it has only {} bytes", file_.size());
    file_.read(0, &bytes, sizeof bytes);
    if (bytes > std::min(max_safetensors_header_bytes, file_.size() - sizeof bytes)) {
      fail("its header claims {} bytes of a file of {}, and may have {}", bytes, file_.size(),
           max_safetensors_header_bytes);
    }
    std::string text(bytes, '\0');
    file_.read(sizeof bytes, text.data(), bytes);
    data_ = sizeof bytes + bytes;
    data_bytes_ = file_.size() - data_;
    text.resize(text.find_last_not_of(' ') + 1);
    if (!text.starts_with('{') || !text.ends_with('}')) {
      fail("its header is not a JSON object, with nothing but spaces behind it");
    }
    return text;
  }

  json parse(const std::string& text) const {
    std::vector<std::set<std::string>> keys;
    // The parser itself keeps the last of several entries with one key.
    const auto check = [&](int depth, json::parse_event_t event, const json& parsed) {
      if (depth > 3) fail("its header nests deeper than a tensor's shape");
      if (event == json::parse_event_t::object_start) {
        keys.emplace_back();
      } else if (event == json::parse_event_t::object_end) {
        keys.pop_back();
      } else if (event == json::parse_event_t::key) {
        if (!keys.back().insert(parsed.get<std::string>()).second) {
          fail("'{}' comes twice in its header", parsed.get_ref<const std::string&>());
        }
      }
      return true;
    };
    try {
      return json::parse(text, check);
    } catch (const json::parse_error& error) {
      fail("its header is not valid JSON at byte {}", sizeof(std::uint64_t) + error.byte - 1);
    } catch (const json::out_of_range&) {
      fail("its header has a number that is out of range");
    }
  }

  std::map<std::string, std::string> read_metadata(const json& value) const {
    if (!value.is_object())
      fail("{}: expected an object, found {}", metadata_key, value.type_name());
    std::map<std::string, std::string> metadata;
    for (const auto& [name, text] : value.items()) {
      if (!text.is_string()) {
        fail("{} '{}': expected a string, found {}", metadata_key, name, text.type_name());
      }
      metadata.emplace(name, text.get<std::string>());
    }
    return metadata;
  }

  TensorEntry read_entry(const std::string& name, const json& value) const {
    if (!value.is_object()) {
      fail("tensor '{}': expected an object, found {}", name, value.type_name());
    }
    for (const auto& [key, field] : value.items()) {
      if (key != "dtype" && key != "shape" && key != "data_offsets") {
        fail("tensor '{}' has the unknown field '{}'", name, key);
      }
    }
    const auto [begin, end] = read_offsets(name, value);
    TensorEntry entry{name, &read_format(name, value), read_shape(name, value), begin, end};
    const std::uint64_t item = entry.format->item_bytes;
    const auto elements = static_cast<std::uint64_t>(entry.shape.size());
    if ((end - begin) % item != 0 || (end - begin) / item != elements) {
      fail("tensor '{}' of shape {} and dtype {}: expected {} elements of {} bytes, found {} bytes",
           name, to_string(entry.shape), entry.format->name, elements, item, end - begin);
    }
    return entry;
  }

  const json& field(const std::string& name, const json& value, const char* key) const {
    const auto found = value.find(key);
    if (found == value.end()) fail("tensor '{}' has no {}", name, key);
    return *found;
  }

  const Format& read_format(const std::string& name, const json& value) const {
    const json& dtype = field(name, value, "dtype");
    if (!dtype.is_string()) {
      fail("tensor '{}': expected a string as dtype, found {}", name, dtype.type_name());
    }
    const auto& found = dtype.get_ref<const std::string&>();
    const auto* format = std::find_if(formats.begin(), formats.end(),
                                      [&](const Format& known) { return known.name == found; });
    if (format == formats.end()) fail("tensor '{}' has dtype '{}', which is not read", name, found);
    return *format;
  }

  std::vector<std::uint64_t> read_numbers(const std::string& name, const json& value,
                                          const char* key) const {
    const json& numbers = field(name, value, key);
    if (!numbers.is_array()) {
      fail("tensor '{}': expected an array as {}, found {}", name, key, numbers.type_name());
    }
    std::vector<std::uint64_t> result;
    for (const json& number : numbers) {
      if (!number.is_number_unsigned()) {
        fail("tensor '{}': expected integers of at least 0 as {}, found {}", name, key,
             number.dump());
      }
      result.push_back(number.get<std::uint64_t>());
    }
    return result;
  }

  Shape read_shape(const std::string& name, const json& value) const {
    std::vector<std::int64_t> extents;
    for (const std::uint64_t extent : read_numbers(name, value, "shape")) {
      if (!std::in_range<std::int64_t>(extent)) fail("tensor '{}' has extent {}", name, extent);
      extents.push_back(static_cast<std::int64_t>(extent));
    }
    try {
      return Shape(extents);
    } catch (const ShapeError& error) {
      fail("tensor '{}': {}", name, error.what());
    }
  }

  std::pair<std::uint64_t, std::uint64_t> read_offsets(const std::string& name,
                                                       const json& value) const {
    const std::vector<std::uint64_t> offsets = read_numbers(name, value, "data_offsets");
    if (offsets.size() != 2 || offsets[0] > offsets[1] || offsets[1] > data_bytes_) {
      fail("tensor '{}': expected a begin and an end in {} bytes of data as data_offsets, found {}",
           name, data_bytes_, value.at("data_offsets").dump());
    }
    return {offsets[0], offsets[1]};
  }

  // That each byte of the data is one tensor's. Sorts them by where they are.
  void check_tiling(std::vector<TensorEntry>& tensors) const {
    std::sort(tensors.begin(), tensors.end(), [](const TensorEntry& a, const TensorEntry& b) {
      return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
    });
    const TensorEntry* before = nullptr;
    std::uint64_t end = 0;
    const auto check_hole = [&](std::uint64_t next) {
      if (next > end) fail("bytes {} to {} of its data belong to no tensor", end, next);
    };
    for (const TensorEntry& tensor : tensors) {
      if (tensor.begin < end) {
        fail("tensor '{}' begins at byte {} of the data, within tensor '{}', which ends at {}",
             tensor.name, tensor.begin, before->name, end);
      }
      check_hole(tensor.begin);
      end = tensor.end;
      before = &tensor;
    }
    check_hole(data_bytes_);
  }

  void read_data(std::uint64_t begin, std::byte* bytes, std::uint64_t size) {
    constexpr std::uint64_t most = std::uint64_t{4} << 20;
    for (std::uint64_t done = 0; done < size;) {
      const std::uint64_t some = std::min(size - done, most);
      file_.read(data_ + begin + done, bytes + done, some);
      done += some;
      if (progress_) progress_(data_ + begin + done);
    }
  }

  Tensor read_tensor(const TensorEntry& entry) {
    Tensor tensor = Tensor::empty(entry.shape, entry.format->dtype);
    if (entry.format->convert != nullptr) {
      std::vector<std::byte> bytes(entry.end - entry.begin);
      read_data(entry.begin, bytes.data(), bytes.size());
      entry.format->convert(bytes, tensor);
      return tensor;
    }
    read_data(entry.begin, static_cast<std::byte*>(tensor.raw()), tensor.bytes());
    if (entry.format->name == "BOOL") {
      for (const std::uint8_t value : std::as_const(tensor).span<std::uint8_t>()) {
        if (value > 1) fail("tensor '{}' of dtype BOOL has the element {}", entry.name, value);
      }
    }
    return tensor;
  }

  InputFile file_;
  const std::function<void(std::uint64_t)>& progress_;
  std::uint64_t data_ = 0, data_bytes_ = 0;  // where the data begin, and how many they are
};

}  // namespace

SafetensorsFile read_safetensors(const std::string& path) {
  return read_safetensors(path, nullptr);
}

SafetensorsFile read_safetensors(const std::string& path,
                                 const std::function<void(std::uint64_t bytes_done)>& progress) {
  return SafetensorsReader(path, progress).read();
}

}  // namespace lockstep::checkpoint
