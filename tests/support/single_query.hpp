// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Attention of a single query over a few keys, as the online softmax computes it.
#pragma once

#include <cstddef>
#include <limits>
#include <vector>

#include <strata/attention/online_softmax.hpp>

namespace support {

inline constexpr int single_dim = 3;

/// Output and log-sum-exp of some keys.
template <class A>
struct outcome {
  A out[single_dim] = {};
  A lse = -std::numeric_limits<A>::infinity();
};

template <class A>
struct keys {
  std::vector<A> scores;
  std::vector<A> values;  // [scores, dim]
};

/// One key after the other, as a kernel does it; keys begin .. end - 1.
template <class A>
outcome<A> online(keys<A> const& k, std::size_t begin, std::size_t end) {
  outcome<A> o;
  strata::softmax_state<A> state;
  for (std::size_t j = begin; j < end; ++j) {
    auto const u = state.add(k.scores[j]);
    for (std::size_t i = 0; i < single_dim; ++i)
      o.out[i] = o.out[i] * u.rescale + u.weight * k.values[j * single_dim + i];
  }
  if (!state.empty())
    for (auto& x : o.out) x /= state.sum;
  o.lse = state.lse();
  return o;
}

template <class A>
outcome<A> online(keys<A> const& k) {
  return online(k, 0, k.scores.size());
}

template <class A>
void merge_into(outcome<A>& a, outcome<A> const& b) {
  strata::merge(a.out, a.lse, b.out, b.lse, single_dim);
}

}  // namespace support
