// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The queries of streamed attention, laid out as K will be read, and which reader reads it.
#pragma once

#include <cstddef>
#include <cstdint>

#include <strata/attention/cpu/arena.hpp>
#include <strata/attention/cpu/lanes.hpp>
#include <strata/attention/cpu/rotation.hpp>
#include <strata/attention/cpu/row_reader.hpp>
#include <strata/attention/cpu/stream_blocks.hpp>
#include <strata/attention/cpu/stream_spread.hpp>
#include <strata/attention/query.hpp>
#include <strata/config.hpp>

STRATA_NAMESPACE_BEGIN

namespace cpu {
inline namespace STRATA_CPU_ISA {
namespace detail {

/// Heads that are taken up together, at most.
inline constexpr std::int32_t streamed_heads = has_half_vectors ? 32 : 16;

/// Queries of the heads that are taken up together, for K of a codec whose floats Reader makes:
/// rotated as K is, and multiplied by what Reader's floats are short of.
/// Where T and the codec have a dot_reader, each head has the one or the other: that depends on its
/// own rows alone, so that shares agree and a batch changes no bit.
template <class T, class Codec, class Reader>
class stream_queries {
  using dots = dot_reader<T, Codec>;
  static constexpr bool rotated = stored_as<Codec>::rotated;

 public:
  /// scale: what a dot product counts in a score.
  stream_queries(std::int32_t dim, float scale, std::int32_t heads, std::int32_t pairs,
                 arena<float>& memory) noexcept
      : dim_(dim), slots_(slots_of<Reader>(dim)), scale_(scale) {
    head_size_ = std::int64_t{rows_of(pairs)} * slots_;
    data_ = memory.take(heads * head_size_);
    rotated_ = memory.take(rotated ? dim : 0);
    row_ = memory.take(spreads(pairs) ? slots_ : 0);
  }
  /// Elements that the constructor takes.
  static std::int64_t size(std::int32_t dim, std::int32_t heads, std::int32_t pairs) noexcept {
    std::int64_t const slots = slots_of<Reader>(dim);
    return heads * rows_of(pairs) * slots + (rotated ? dim : 0) + (spreads(pairs) ? slots : 0);
  }

  /// Takes up the queries of head h: from(p) is that of pair p.
  template <class From>
  void load(std::int32_t h, std::int32_t pairs, From const& from) noexcept {
    if constexpr (dots::exists) {
      static_assert(dots::elements == Reader::elements);
      bool good = scale_ <= 1;
      for (std::int32_t p = 0; p < pairs && good; ++p) good = dots::takes(from(p), dim_);
      in_dots_[h] = good;
      for (std::int32_t p = 0; p < pairs && good; ++p) copy(from(p), row(h, p));
      if (good) return;
    }
    if constexpr (can_spread)
      if (spreads(pairs)) return load_spread(h, pairs, from);
    for (std::int32_t p = 0; p < pairs; ++p) load_row(from(p), row(h, p));
  }

  /// Calls body(reader, queries, distance of two queries) with the reader that reads K for head h.
  /// Where they are spread, those of each stream_pairs lie as spread_pairs leaves them, from where
  /// their first would begin.
  template <class Body>
  void read(std::int32_t h, Body const& body) const noexcept {
    if constexpr (dots::exists)
      if (in_dots_[h]) return body(dots(), row(h, 0), slots_);
    body(Reader(), row(h, 0), slots_);
  }

 private:
  float* row(std::int32_t h, std::int32_t p) const noexcept {
    return data_ + h * head_size_ + std::int64_t{p} * slots_;
  }

  static constexpr std::int32_t rows_of(std::int32_t pairs) noexcept {
    return spreads(pairs) ? ceil_divide(pairs, stream_pairs) * stream_pairs : pairs;
  }

  template <class From>
  void load_spread(std::int32_t h, std::int32_t pairs, From const& from) noexcept {
    for (std::int32_t first = 0; first < pairs; first += stream_pairs)
      spread_pairs(smaller(pairs - first, stream_pairs), slots_, row_, row(h, first),
                   [&](std::int32_t p, float* to) { load_row(from(first + p), to); });
  }
  void load_row(T const* from, float* to) const noexcept {
    if constexpr (rotated)
      widen(rotate(from), to);
    else
      widen(from, to);
  }
  /// Group by group, with zeros behind the last element: as a row of K.
  void copy(T const* from, float* to) const noexcept {
    cached_row const row{reinterpret_cast<std::byte const*>(from), nullptr};
    for (std::int32_t i = 0; i < dim_; i += dots::elements) {
      float_vec x;
      load_end<dots>(row, i, smaller(dim_ - i, dots::elements), &x);
      float_lanes::store(to + i, x);
    }
  }
  float const* rotate(T const* from) const noexcept {
    for (std::int32_t i = 0; i < dim_; ++i) rotated_[i] = strata::detail::widen(from[i]);
    rotate_row(rotated_, dim_);
    return rotated_;
  }
  /// In the order in which Reader reads K.
  template <class From>
  void widen(From const* from, float* to) const noexcept {
    std::int32_t i = 0;
    for (; dim_ - i >= Reader::elements; i += Reader::elements)
      for (std::int32_t s = 0; s < Reader::elements; ++s)
        to[i + s] = strata::detail::widen(from[i + Reader::element(s)]) * Reader::unit;
    for (; i < slots_; ++i) {
      auto const element = element_of<Reader>(i);
      to[i] = element < dim_ ? strata::detail::widen(from[element]) * Reader::unit : 0.0f;
    }
  }

  std::int32_t dim_, slots_;
  float scale_;
  std::int64_t head_size_;  // elements
  float* data_;             // [heads][pairs, whole stream_pairs where they are spread][slots]
  float* rotated_;          // [dim], of one query
  float* row_;              // [slots], of one that is spread
  bool in_dots_[streamed_heads] = {};
};

}  // namespace detail
}  // namespace STRATA_CPU_ISA
}  // namespace cpu

STRATA_NAMESPACE_END
