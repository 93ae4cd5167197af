// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Copies units of equal width from where one place says to where another does. A place is a
// function of the unit's number: its address, or null where the unit is to be left out.
#pragma once

#include <cstddef>
#include <cstdint>

#include <strata/bulk/detail/policy.hpp>
#include <strata/bulk/rows.hpp>
#include <strata/config.hpp>
#include <strata/detail/math.hpp>

STRATA_NAMESPACE_BEGIN

namespace bulk::detail {

/// Units are rows, in order from `first` on.
template <class Byte>
struct row_place {
  Byte* data;
  std::int64_t stride;
  std::int64_t first = 0;

  STRATA_HOST_DEVICE Byte* operator()(std::int64_t unit) const noexcept {
    return data + (first + unit) * stride;
  }
};

/// Unit i is row list[first + i].
template <class Byte, class Index>
struct listed_place {
  Byte* data;
  std::int64_t count;
  std::int64_t stride;
  Index const* list;
  std::int64_t first = 0;

  STRATA_HOST_DEVICE Byte* operator()(std::int64_t unit) const noexcept {
    std::int64_t const row = list[first + unit];
    return row < 0 || row >= count ? nullptr : data + row * stride;
  }
};

/// Copies one piece of a unit: `Piece` bytes, which all addresses and widths are multiples of.
template <int Piece, class From, class To>
struct copy_piece {
  From from;
  To to;
  std::int64_t pieces;  // of a unit

  STRATA_HOST_DEVICE void operator()(std::int64_t i) const noexcept {
    auto const* const read = from(i / pieces);
    auto* const written = to(i / pieces);
    if (read == nullptr || written == nullptr) return;
    auto const at = i % pieces * Piece;
    __builtin_memcpy(__builtin_assume_aligned(written + at, Piece),
                     __builtin_assume_aligned(read + at, Piece), Piece);
  }
};

/// The same for threads of a host, which like longer pieces; the last one may be shorter.
template <class From, class To>
struct copy_stretch {
  static constexpr std::int64_t most = 64 * 1024;
  From from;
  To to;
  std::int64_t width;
  std::int64_t stretches;  // of a unit

  void operator()(std::int64_t i) const noexcept {
    auto const* const read = from(i / stretches);
    auto* const written = to(i / stretches);
    if (read == nullptr || written == nullptr) return;
    auto const at = i % stretches * most;
    auto const bytes = strata::detail::smaller(width - at, most);
    __builtin_memcpy(written + at, read + at, static_cast<std::size_t>(bytes));
  }
};

/// What the addresses of all rows are multiples of: the lowest bit that is set.
template <class Byte>
std::uintptr_t alignment_of(basic_byte_rows<Byte> const& rows) noexcept {
  return reinterpret_cast<std::uintptr_t>(rows.data) | static_cast<std::uintptr_t>(rows.stride) |
         static_cast<std::uintptr_t>(rows.width);
}

template <int Piece, class Policy, class From, class To>
void copy_pieces(Policy const& policy, std::int64_t units, std::int64_t width, From const& from,
                 To const& to) {
  for_each_index(policy, units * (width / Piece),
                 copy_piece<Piece, From, To>{from, to, width / Piece});
}

/// alignment: of all addresses that the places give, or'ed together with the width.
template <class Policy, class From, class To>
void copy_units(Policy const& policy, std::int64_t units, std::int64_t width,
                std::uintptr_t alignment, From const& from, To const& to) {
  if (units == 0 || width == 0) return;
  if constexpr (host_policy<Policy>) {
    using stretch = copy_stretch<From, To>;
    auto const stretches = strata::detail::ceil_divide(width, stretch::most);
    for_each_index(policy, units * stretches, stretch{from, to, width, stretches});
  } else if (alignment % 16 == 0) {
    copy_pieces<16>(policy, units, width, from, to);
  } else if (alignment % 4 == 0) {
    copy_pieces<4>(policy, units, width, from, to);
  } else {
    copy_pieces<1>(policy, units, width, from, to);
  }
}

/// How many rows go through temporary memory at a time: enough to keep a device busy.
constexpr std::int64_t rows_at_once(std::int64_t count, std::int64_t bytes_per_row) noexcept {
  constexpr std::int64_t most = 32 * 1024 * 1024;
  if (count < 1 || bytes_per_row < 1) return 1;
  return strata::detail::smaller(count,
                                 strata::detail::larger<std::int64_t>(most / bytes_per_row, 1));
}

}  // namespace bulk::detail

STRATA_NAMESPACE_END
