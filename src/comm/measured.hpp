#pragma once

#include <cstddef>
#include <span>

#include "comm/job.hpp"
#include "core/squares.hpp"

namespace lockstep::comm {

/// Lines of a block: so many behind a cut, or less, there is another one.
constexpr std::size_t block_lines = squares_block_bytes / line_bytes;

/// Where lines of a job that end at the cut `end` are cut in two: at `line`, or before it where that
/// would cut a block; at the end where that is not behind.
std::size_t cut_at(std::span<const Measured> measured, std::size_t line, std::size_t end) noexcept;

/// Which of the lines of a job belong to one of `shares` that are as equal as cuts allow. A few lines
/// are not cut: that would cost more than it gains. So some ranks may have no share of a job at all.
LineRange share_of(std::span<const Measured> measured, std::size_t lines, std::size_t share,
                   std::size_t shares) noexcept;

/// Sums the squares of the blocks in these lines of the result, which begin and end at cuts.
void measure(std::span<const Measured> measured, LineRange lines, std::byte* result);

}  // namespace lockstep::comm
