#include "checkpoint/format.hpp"

#include <fmt/format.h>

#include <array>
#include <boost/archive/impl/basic_text_iarchive.ipp>
#include <boost/archive/impl/basic_text_oarchive.ipp>
#include <boost/archive/impl/text_iarchive_impl.ipp>
#include <boost/archive/impl/text_oarchive_impl.ipp>
#include <boost/archive/text_iarchive.hpp>
#include <boost/archive/text_oarchive.hpp>
#include <boost/serialization/string.hpp>
#include <charconv>
#include <sstream>
#include <string_view>
#include <system_error>

#include "lockstep/core/error.hpp"
#include "state/state_hashes.hpp"

// Plain data: no class versions, no object addresses.
BOOST_CLASS_IMPLEMENTATION(lockstep::StateRecord, boost::serialization::object_serializable)
BOOST_CLASS_TRACKING(lockstep::StateRecord, boost::serialization::track_never)
BOOST_CLASS_IMPLEMENTATION(lockstep::checkpoint::TensorRecord,
                           boost::serialization::object_serializable)
BOOST_CLASS_TRACKING(lockstep::checkpoint::TensorRecord, boost::serialization::track_never)
BOOST_CLASS_IMPLEMENTATION(lockstep::checkpoint::Header, boost::serialization::object_serializable)
BOOST_CLASS_TRACKING(lockstep::checkpoint::Header, boost::serialization::track_never)

namespace lockstep::checkpoint {
namespace {

// Boost writes its own version first, and an older Boost refuses a newer one: this file has a
// version.
constexpr unsigned int archive_flags = boost::archive::no_header;

// Reads what a header has, numbers and strings, without the archive's stream: Boost takes the memory for a
// string before it looks whether the text has that many characters, and a stream takes several times as
// long for a number.
class HeaderReader : public boost::archive::text_iarchive_impl<HeaderReader> {
  using Base = boost::archive::text_iarchive_impl<HeaderReader>;

 public:
  HeaderReader(std::istringstream& unused, std::string_view text)
      : Base(unused, archive_flags), rest_(text) {}

  using Base::load;
  void load(std::uint8_t& number) { load_number(number); }
  void load(std::uint64_t& number) { load_number(number); }
  void load(std::int64_t& number) { load_number(number); }
  void load(std::string& text) {
    std::uint64_t size = 0;
    load(size);
    if (size >= rest_.size()) {
      throw CheckpointError(fmt::format("a string of {} bytes is cut off", size));
    }
    text = rest_.substr(1, size);
    rest_.remove_prefix(1 + size);
  }

  bool at_end() {
    skip_space();
    return rest_.empty();
  }

 private:
  template <class Number>
  void load_number(Number& number) {
    skip_space();
    const char* const end = rest_.data() + rest_.size();
    const auto [next, error] = std::from_chars(rest_.data(), end, number);
    if (error != std::errc() || (next != end && !is_space(*next))) {
      throw CheckpointError(fmt::format("expected a number {} bytes before its end", rest_.size()));
    }
    rest_.remove_prefix(static_cast<std::size_t>(next - rest_.data()));
  }

  static bool is_space(char c) { return c == ' ' || c == '\n'; }
  void skip_space() {
    while (!rest_.empty() && is_space(rest_.front())) rest_.remove_prefix(1);
  }

  std::string_view rest_;
};

// Writes what HeaderReader reads, without a stream as well, which does not tell where memory is short.
class HeaderWriter : public boost::archive::text_oarchive_impl<HeaderWriter> {
  using Base = boost::archive::text_oarchive_impl<HeaderWriter>;

 public:
  HeaderWriter(std::ostringstream& unused, std::string& text)
      : Base(unused, archive_flags), text_(text) {}

  using Base::save;
  void save(std::uint8_t number) { save_number(number); }
  void save(std::uint64_t number) { save_number(number); }
  void save(std::int64_t number) { save_number(number); }
  void save(const std::string& text) {
    save_number(text.size());
    newtoken();
    text_ += text;
  }
  void put(char c) { text_ += c; }

 private:
  template <class Number>
  void save_number(Number number) {
    newtoken();
    std::array<char, 20> digits;
    text_.append(digits.data(),
                 std::to_chars(digits.data(), digits.data() + digits.size(), number).ptr);
  }

  std::string& text_;
};

}  // namespace

std::string encode(const Header& header) {
  std::ostringstream unused;
  std::string text;
  HeaderWriter(unused, text) << header;
  return text += '\n';
}

Header parse(const std::string& text) {
  std::istringstream unused;
  HeaderReader reader(unused, text);
  Header header;
  reader >> header;
  if (!reader.at_end()) throw CheckpointError("something follows it");
  return header;
}

namespace {

// That the tensors lie one after the other, each as large as its shape and dtype say.
void check_tensors(const std::vector<TensorRecord>& tensors) {
  std::uint64_t end = 0;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const TensorRecord& tensor = tensors[i];
    if (tensor.dtype > static_cast<std::uint8_t>(DType::u8)) {
      throw CheckpointError(fmt::format("tensor {} has the unknown dtype {}", i, tensor.dtype));
    }
    const Shape& shape = tensor.shape;
    const auto elements = static_cast<std::uint64_t>(shape.size());
    const std::uint64_t item = item_size(dtype_of(tensor));
    if (elements > (max_data_bytes - align(end)) / item) {
      throw CheckpointError(
          fmt::format("tensor {} of shape {} is too large for a checkpoint", i, to_string(shape)));
    }
    if (tensor.bytes != elements * item || tensor.offset != align(end)) {
      throw CheckpointError(
          fmt::format("tensor {} of shape {}: expected {} bytes at {}, found {} at {}", i,
                      to_string(shape), elements * item, align(end), tensor.bytes, tensor.offset));
    }
    end = tensor.offset + tensor.bytes;
  }
}

}  // namespace

Header decode(const std::string& text) {
  try {
    Header header = parse(text);
    check_tensors(header.tensors);
    check_records(header.records, header.tensors.size());
    return header;
  } catch (const std::bad_alloc&) {
    throw;  // which says nothing about the text
  } catch (const std::exception& error) {
    throw CheckpointError(fmt::format("its header cannot be used: {}", error.what()));
  }
}

TensorRecord record_of(DType dtype, const Shape& shape, std::uint64_t checksum) {
  TensorRecord record;
  record.dtype = static_cast<std::uint8_t>(dtype);
  record.shape = shape;
  record.checksum = checksum;
  return record;
}

Header make_header(const FlatState& state) {
  std::vector<TensorRecord> tensors;
  for (const Tensor& tensor : state.tensors) {
    tensors.push_back(record_of(tensor.dtype(), tensor.shape(), checksum(tensor)));
  }
  return make_header(state.records, std::move(tensors));
}

Header make_header(std::vector<StateRecord> records, std::vector<TensorRecord> tensors) {
  std::uint64_t end = 0;
  for (TensorRecord& tensor : tensors) {
    tensor.bytes = static_cast<std::uint64_t>(tensor.shape.size()) * item_size(dtype_of(tensor));
    tensor.offset = align(end);
    end = tensor.offset + tensor.bytes;
  }
  return {.records = std::move(records), .tensors = std::move(tensors)};
}

StateDict numbered_tree(std::vector<StateRecord> records, std::size_t tensors) {
  const auto count = static_cast<std::int64_t>(tensors);
  Tensor all = Tensor::empty({count}, DType::i64);
  std::vector<Tensor> numbers;
  numbers.reserve(tensors);
  for (std::int64_t i = 0; i < count; ++i) {
    all.data<std::int64_t>()[i] = i;
    numbers.push_back(all.window(i, {}));
  }
  return unflatten(std::move(records), numbers);
}

std::size_t number_of(const Tensor& tensor) {
  return static_cast<std::size_t>(tensor.data<std::int64_t>()[0]);
}

std::vector<Tensor> allocate_tensors(const Header& header) {
  std::vector<Tensor> tensors;
  for (const TensorRecord& record : header.tensors) {
    tensors.push_back(Tensor::empty(record.shape, dtype_of(record)));
  }
  return tensors;
}

}  // namespace lockstep::checkpoint
