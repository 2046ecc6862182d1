#include "comm/measured.hpp"

#include <algorithm>

namespace lockstep::comm {
namespace {

// The last that begins at a line or before it; the first where none does.
std::span<const Measured>::iterator find_at(std::span<const Measured> measured, std::size_t line) {
  const auto begins_after = [](std::size_t begin, const Measured& one) { return begin < one.line; };
  const auto next = std::upper_bound(measured.begin(), measured.end(), line, begins_after);
  return next == measured.begin() ? next : next - 1;
}

template <class T>
double squares_of(const Measured& numbers, std::size_t block, const std::byte* result) {
  const std::size_t first = block * squares_block<T>;
  return block_squares(std::min(squares_block<T>, numbers.numbers - first),
                       reinterpret_cast<const T*>(result + numbers.offset) + first);
}

}  // namespace

std::size_t cut_at(std::span<const Measured> measured, std::size_t line, std::size_t end) noexcept {
  if (line >= end) return end;
  const auto found = find_at(measured, line);
  if (found == measured.end() || line < found->line) return line;
  return line - (line - found->line) % block_lines;
}

LineRange share_of(std::span<const Measured> measured, std::size_t lines, std::size_t share,
                   std::size_t shares) noexcept {
  constexpr std::size_t few = 8;
  if (lines <= few) return {share + 1 < shares ? lines : 0, lines};
  return {cut_at(measured, lines * share / shares, lines),
          cut_at(measured, lines * (share + 1) / shares, lines)};
}

void measure(std::span<const Measured> measured, LineRange lines, std::byte* result) {
  for (auto numbers = find_at(measured, lines.begin);
       numbers != measured.end() && numbers->line < lines.end; ++numbers) {
    const bool single = numbers->element == Element::f32;
    const std::size_t blocks = squares_blocks(numbers->numbers * item_size(numbers->element));
    const auto before = [&](std::size_t line) {
      return line <= numbers->line ? 0 : (line - numbers->line + block_lines - 1) / block_lines;
    };
    auto* sums = reinterpret_cast<double*>(result + numbers->sums);
    const std::size_t end = std::min(blocks, before(lines.end));
    for (std::size_t block = before(lines.begin); block < end; ++block) {
      sums[block] = single ? squares_of<float>(*numbers, block, result)
                           : squares_of<double>(*numbers, block, result);
    }
  }
}

}  // namespace lockstep::comm
