// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The memory that callers bring, by name.
#pragma once

#include <cstdint>
#include <string_view>

#include <strata/config.hpp>

STRATA_NAMESPACE_BEGIN

/// Which tensor a status with errc::null_pointer (or errc::bad_head_scale) is about: its value.
enum class tensor : std::int64_t {
  q,
  out,
  lse,
  d_out,
  d_q,
  k,
  v,
  k_scales,
  v_scales,
  rope_cos,
  rope_sin,
  k_head_scales,
  v_head_scales,
  rows_read,
  rows_written,
  row_list,
  row_values,
  row_table,
  scores,
};

namespace detail {

/// What a tensor is called where it is given.
constexpr std::string_view name(tensor which) noexcept {
  switch (which) {
    case tensor::q:
      return "q";
    case tensor::out:
      return "out";
    case tensor::lse:
      return "lse";
    case tensor::d_out:
      return "d_out";
    case tensor::d_q:
      return "d_q";
    case tensor::k:
      return "k.data";
    case tensor::v:
      return "v.data";
    case tensor::k_scales:
      return "k.scales";
    case tensor::v_scales:
      return "v.scales";
    case tensor::rope_cos:
      return "rotary::cos";
    case tensor::rope_sin:
      return "rotary::sin";
    case tensor::k_head_scales:
      return "head_scales::k";
    case tensor::v_head_scales:
      return "head_scales::v";
    case tensor::rows_read:
      return "what rows are read from";
    case tensor::rows_written:
      return "what rows are written to";
    case tensor::row_list:
      return "a list of rows";
    case tensor::row_values:
      return "the values of rows";
    case tensor::row_table:
      return "a table of rows";
    case tensor::scores:
      return "scores.data";
  }
  return "a tensor";
}

}  // namespace detail

STRATA_NAMESPACE_END
