// What libFuzzer calls of each target.
#include <cstring>

#include "fuzz/fuzz.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  lockstep::checkpoint::read(data, size);
  return 0;
}

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                               std::size_t max_size, unsigned seed) {
  if (seed % lockstep::checkpoint::plain_seeds == 0) return LLVMFuzzerMutate(data, size, max_size);
  const std::string file = lockstep::checkpoint::mutated(
      std::string(reinterpret_cast<const char*>(data), size), max_size, seed);
  if (file.size() > max_size) return LLVMFuzzerMutate(data, size, max_size);
  std::memcpy(data, file.data(), file.size());
  return file.size();
}
