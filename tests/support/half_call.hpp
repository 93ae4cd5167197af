// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Attention calls with queries and outputs of 16 bits.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <vector>

#include <strata/cache/element.hpp>

#include "attention_cases.hpp"
#include "share_executor.hpp"

namespace support {

template <class T>
std::vector<T> narrowed(std::vector<float> const& x) {
  std::vector<T> y(x.size());
  std::transform(x.begin(), x.end(), y.begin(),
                 [](float e) { return strata::detail::narrow<T>(e); });
  return y;
}
template <class T>
std::vector<float> widened(std::vector<T> const& x) {
  std::vector<float> y(x.size());
  std::transform(x.begin(), x.end(), y.begin(), [](T e) { return strata::detail::widen(e); });
  return y;
}

template <class T>
std::vector<double> as_doubles(std::vector<T> const& x) {
  auto const y = widened(x);
  return {y.begin(), y.end()};
}

/// A forward call with queries and outputs of T: the problem's, which T holds.
template <class T>
class half_call {
 public:
  template <class Problem>
  explicit half_call(Problem& problem)
      : floats_(problem), q_(narrowed<T>(floats_.q)), out_(narrowed<T>(floats_.out)) {
    rows.q = q_.data();
    rows.out = out_.data();
    rows.lse = floats_.lse.data();
    rows.offsets = floats_.rows.offsets;
    rows.positions = floats_.rows.positions;
    rows.rows_per_seq = floats_.rows.rows_per_seq;
    rows.num_seqs = floats_.rows.num_seqs;
    rows.q_heads = floats_.rows.q_heads;
    rows.key_begin = floats_.rows.key_begin;
    rows.key_end = floats_.rows.key_end;
    rows.rule = floats_.rows.rule;
  }

  template <class Kernel, class View>
  strata::status forward(Kernel const& kernel, View const& view, std::int32_t shares = 1) {
    share_executor const exec{shares};
    auto const bytes = kernel.workspace_bytes(rows, view, shares);
    return strata::attend(exec, kernel, rows, view, workspace_.get(bytes));
  }
  std::vector<float> out() const { return widened(out_); }
  std::vector<float> const& lse() const { return floats_.lse; }

  strata::query_rows<T> rows;

 private:
  attention_call<float> floats_;
  std::vector<T> q_, out_;
  workspace_memory workspace_;
};

/// Half a unit in the last place of a number of T.
template <class T>
double half_unit(double x) {
  constexpr int fraction_bits = std::is_same_v<T, strata::float16> ? 10 : 7;
  return x == 0 ? 0 : std::ldexp(1, std::ilogb(x) - fraction_bits - 1);
}

/// Numbers that T holds.
template <class T, class Problem>
void round_queries(Problem& problem) {
  problem.queries() = widened(narrowed<T>(problem.queries()));
}

}  // namespace support
