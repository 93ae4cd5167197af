// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The softmax of a few query rows over some keys, in a workspace: what is kept apart for every
// split of the keys and merged in ascending order.
#pragma once

#include <cstdint>

#include <strata/attention/cpu/lanes.hpp>
#include <strata/attention/online_softmax.hpp>
#include <strata/config.hpp>

STRATA_NAMESPACE_BEGIN

namespace cpu {
inline namespace STRATA_CPU_ISA {
namespace detail {

/// The softmax of a row tile over some keys, in a workspace.
template <class T>
struct tile_state {
  T* max;     // [rows], in whole vectors
  T* sum;     // [rows], in whole vectors, of exp(score - max)
  T* values;  // [rows][stride], sums of V not yet divided by `sum`

  /// rows: the most that a tile of the call has.
  tile_state(T* data, std::int32_t rows) noexcept
      : max{data}, sum{data + padded<T>(rows)}, values{data + 2 * padded<T>(rows)} {}

  static std::int64_t size(std::int32_t rows, std::int64_t stride) noexcept {
    return 2 * padded<T>(rows) + rows * stride;
  }
  /// `rows` rows that have seen no key, but for their values.
  void begin(std::int32_t rows) const noexcept {
    for (std::int32_t i = 0; i < padded<T>(rows); ++i) max[i] = minus_infinity<T>, sum[i] = 0;
  }
  void clear(std::int32_t rows, std::int64_t stride) const noexcept {
    begin(rows);
    for (std::int64_t i = 0; i < rows * stride; ++i) values[i] = 0;
  }
};

/// row *= factor; factor 0 clears whatever stood there.
template <class T>
void rescale(T* row, T factor, std::int32_t count) noexcept {
  using v = lanes<T>;
  if (factor == 1) return;
  for (std::int32_t i = 0; i < count; i += v::count)
    v::store(row + i, factor == 0 ? v::all(0) : v::load(row + i) * factor);
}

/// Joins what `rows` rows have seen elsewhere into `total`: a chain over the parts, in the order of
/// the calls. A row of which nothing is kept, as one that has seen no key, begins anew, whatever its
/// values. width: elements of a row of values.
template <class T>
void merge(tile_state<T> total, tile_state<T> part, std::int32_t rows, std::int64_t stride,
           std::int32_t width) noexcept {
  using v = lanes<T>;
  for (std::int32_t i = 0; i < rows; ++i) {
    T const max = part.max[i] > total.max[i] ? part.max[i] : total.max[i];
    T const base = max == minus_infinity<T> ? T{0} : max;
    T const kept = exponential_of(total.max[i] - base);
    T const added = exponential_of(part.max[i] - base);
    T* const to = total.values + i * stride;
    T const* const from = part.values + i * stride;
    bool const anew = kept == 0 && added != 0;
    if (!anew) rescale(to, kept, width);
    for (std::int32_t j = 0; j < width && anew; j += v::count)
      v::store(to + j, v::load(from + j) * added);
    for (std::int32_t j = 0; j < width && !anew && added != 0; j += v::count)
      v::store(to + j, v::load(to + j) + v::load(from + j) * added);
    total.max[i] = max;
    total.sum[i] = total.sum[i] * kept + part.sum[i] * added;
  }
}

/// Row i of `state` before any key: its sink, if it has one.
template <class T>
void start_row(tile_state<T> state, std::int32_t i, float const* sink) noexcept {
  if (sink == nullptr) return;
  auto const logit = static_cast<T>(*sink);
  state.max[i] = logit;
  state.sum[i] = logit == minus_infinity<T> ? T{0} : T{1};
}

}  // namespace detail
}  // namespace STRATA_CPU_ISA
}  // namespace cpu

STRATA_NAMESPACE_END
