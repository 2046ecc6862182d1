// libFuzzer's target for the reader of NPY files. What it accepts is a tensor that can be written and
// read again, to the bit; what it does not is a CheckpointError, and nothing else.
#include <cstdint>
#include <cstring>
#include <random>
#include <string>

#include "checkpoint/npy.hpp"
#include "fuzz/fuzz.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/state/state_dict.hpp"

namespace lockstep::checkpoint {
namespace {

constexpr std::size_t preface_bytes = 10;  // in version 1.0

}  // namespace

void read(const std::uint8_t* data, std::size_t size) {
  static Counts counts("the length of the header");
  const MemoryFile input(data, size);
  Tensor tensor;
  try {
    tensor = read_npy(input.path());
  } catch (const CheckpointError& error) {
    const std::string message = error.what();
    const bool before = message.find("it has only") != message.npos ||
                        message.find("does not begin") != message.npos ||
                        message.find("version 1.0 or 2.0") != message.npos ||
                        message.find("its header claims") != message.npos;
    ++(before ? counts.before : counts.behind);
    return;
  }
  ++counts.accepted;
  MemoryFile first, second;
  write_npy("", tensor, first);
  const Tensor again = read_npy(first.path());
  require(bit_equal(StateValue(tensor), StateValue(again)), "a tensor is what was written");
  write_npy("", again, second);
  require(first.bytes() == second.bytes(), "equal tensors have equal bytes");
}

namespace {

// One that is right, or nearly so, and as many data as it asks for.
std::string header(std::string& data, std::minstd_rand& random) {
  constexpr const char* dtypes[] = {"<f4", "<f8", "<i8", "|u1", ">f4"};
  const auto dtype = random() % std::size(dtypes);
  std::size_t bytes = dtype == 3 ? 1 : dtype % 4 == 0 ? 4 : 8;
  std::string shape;
  const auto axes = random() % 5;
  for (auto axis = axes; axis > 0; --axis) {
    const auto extent = random() % 5;
    bytes *= extent;
    shape += std::to_string(extent) + (axis > 1 ? ", " : axes == 1 ? "," : "");
  }
  if (random() % 8 != 0) data.resize(bytes);
  return std::string("{'descr': '") + dtypes[dtype] +
         "', 'fortran_order': " + (random() % 8 == 0 ? "True" : "False") + ", 'shape': (" + shape +
         "), }" + std::string(random() % 4, ' ') + "\n";
}

}  // namespace

const unsigned plain_seeds = 4;

// Changes the header or the data, and makes a file of them again.
std::string mutated(const std::string& file, std::size_t max_size, unsigned seed) {
  std::minstd_rand random(seed);
  std::string text, data;
  if (file.size() >= preface_bytes) {
    std::uint16_t size = 0;
    std::memcpy(&size, file.data() + preface_bytes - sizeof size, sizeof size);
    text = file.substr(preface_bytes, size);
    data = file.substr(preface_bytes + text.size());
  }
  switch (random() % 4) {
    case 0:
      mutate(data, max_size / 2);
      break;
    case 1:
      mutate(text, max_size / 2);
      break;
    default:
      text = header(data, random);
  }
  const auto size = static_cast<std::uint16_t>(text.size());
  std::string result("\x93NUMPY\x01\x00", preface_bytes - sizeof size);
  return result.append(reinterpret_cast<const char*>(&size), sizeof size) + text + data;
}

}  // namespace lockstep::checkpoint
