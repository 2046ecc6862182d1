#pragma once

#include <cstdint>

#include "lockstep/autograd/variable.hpp"

#pragma GCC visibility push(default)

namespace lockstep {

struct AttentionOptions {
  std::int64_t heads = 1;
  bool causal = false;  ///< query i sees the keys up to i
  /// (n, keys) as u8: 1 where a key is not seen, such as those that fill up short sequences. May be undefined.
  Tensor key_padding_mask = {};
};

/// softmax(q · kᵀ / √d) · v by heads, each of which has d = features / heads neighbouring features of queries of
/// (n, queries, features), and of keys and values of (n, keys, features): Vaswani et al., arXiv:1706.03762, in
/// f32 and f64. A query that sees no key gets zeros. Needs memory for n · heads · queries · keys numbers.
/// ShapeError and DTypeError where operands do not fit; OptionError unless heads ≥ 1 divide the features, and, where
/// it is causal, there are as many keys as queries.
Variable attention(const Variable& queries, const Variable& keys, const Variable& values,
                   const AttentionOptions& options = {});

}  // namespace lockstep

#pragma GCC visibility pop
