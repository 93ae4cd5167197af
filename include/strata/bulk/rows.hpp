// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Rows of bytes and lists of rows: what the functions of bulk/ take. They work on many rows at once
// on any device system of Thrust: the first argument is its execution policy, thrust::cpp::par,
// thrust::omp::par, thrust::tbb::par or thrust::cuda::par_nosync.on(stream), whose header the
// caller includes. All pointers are of memory which that system can reach. What a system computes,
// the others compute, too, to the bit.
//
// Refused is what the host can know: sizes, null pointers, and what stands in lists where the
// system is one of the host's. On a CUDA device that would mean to wait for it; there nothing is
// read or written outside of the rows given, and a list is the caller's to get right, or
// `check_list`'s to find wrong. A function that says so needs temporary memory and takes it from
// the policy: thrust::cuda::par_nosync(allocator).on(stream) brings an allocator of one's own,
// whose memory is given back in stream order, while the device may still use it. Thrust throws, so
// that these headers need exceptions; what it throws comes back as a status.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include <strata/config.hpp>
#include <strata/ids.hpp>
#include <strata/status.hpp>
#include <strata/tensor.hpp>

STRATA_NAMESPACE_BEGIN

namespace bulk {

/// Row i is the `width` bytes from data + i * stride. Byte is `std::byte` for who may write,
/// `std::byte const` for readers.
template <class Byte>
struct basic_byte_rows {
  Byte* data = nullptr;
  std::int64_t count = 0;
  std::int64_t width = 0;
  std::int64_t stride = 0;

  template <class Reader>
    requires(std::same_as<Reader, basic_byte_rows<std::byte const>> && !std::is_const_v<Byte>)
  constexpr operator Reader() const noexcept {
    return {data, count, width, stride};
  }
};

using byte_rows = basic_byte_rows<std::byte const>;
using writable_rows = basic_byte_rows<std::byte>;

/// Rows of `per_row` elements, one behind the other.
template <class T>
  requires(std::is_trivially_copyable_v<T>)
auto rows_of(T* data, std::int64_t count, std::int64_t per_row = 1) noexcept {
  using byte = std::conditional_t<std::is_const_v<T>, std::byte const, std::byte>;
  auto const width = per_row * static_cast<std::int64_t>(sizeof(T));
  return basic_byte_rows<byte>{reinterpret_cast<byte*>(data), count, width, width};
}

namespace detail {

template <class List>
using index_of = std::remove_cvref_t<decltype(*std::declval<List const&>().data())>;

}  // namespace detail

/// A std::span or std::vector of 32 or 64 bit numbers of rows; a negative one stands for no row.
template <class List>
concept row_list =
    requires(List const& list) {
      list.data();
      list.size();
    } && (std::same_as<detail::index_of<List>, std::int32_t> ||
          std::same_as<detail::index_of<List>, std::int64_t>);

namespace detail {

/// Bytes from the first row's first to the last row's last.
constexpr result<std::int64_t> extent(byte_rows const& rows) noexcept {
  if (rows.count == 0) return std::int64_t{0};
  auto const before = checked_multiply(rows.count - 1, rows.stride);
  std::int64_t bytes = 0;
  if (!before.ok()) return before.state();
  if (__builtin_add_overflow(*before, rows.width, &bytes))
    return status{errc::size_overflow, no_layer, rows.count, rows.stride};
  return bytes;
}

constexpr status check(byte_rows const& rows, tensor which) noexcept {
  if (rows.count < 0) return {errc::value_too_small, no_layer, rows.count, 0};
  if (rows.width < 0) return {errc::value_too_small, no_layer, rows.width, 0};
  if (rows.count > 1 && rows.stride < rows.width)
    return {errc::value_too_small, no_layer, rows.stride, rows.width};
  if (auto const bytes = extent(rows); !bytes.ok()) return bytes.state();
  if (rows.count > 0 && rows.width > 0 && rows.data == nullptr) return null_pointer(which);
  return {};
}

/// `from` may be read, and `to` be written with rows of the same width.
constexpr status check(byte_rows const& from, byte_rows const& to) noexcept {
  if (auto const s = check(from, tensor::rows_read); !s.ok()) return s;
  if (auto const s = check(to, tensor::rows_written); !s.ok()) return s;
  if (to.width != from.width) return {errc::row_width_mismatch, no_layer, to.width, from.width};
  return {};
}

/// Whether two sets of rows share a byte, those between the rows included.
inline bool overlap(byte_rows const& a, byte_rows const& b) noexcept {
  auto const first = [](byte_rows const& rows) {
    return reinterpret_cast<std::uintptr_t>(rows.data);
  };
  auto const end = [&](byte_rows const& rows) {
    return first(rows) + static_cast<std::uintptr_t>(*extent(rows));
  };
  return first(a) < end(b) && first(b) < end(a);
}

template <class List>
constexpr std::int64_t size_of(List const& list) noexcept {
  return static_cast<std::int64_t>(list.size());
}

template <class List>
constexpr status check_span(List const& list, tensor which) noexcept {
  if (size_of(list) > 0 && list.data() == nullptr) return null_pointer(which);
  return {};
}

}  // namespace detail
}  // namespace bulk

STRATA_NAMESPACE_END
