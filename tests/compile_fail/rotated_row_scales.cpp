// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// expect: strata: of a rotated codec row_bytes and scale_bytes are constexpr
#include <strata/cache/int8_codec.hpp>
#include <strata/cache/rotated_codec.hpp>

/// int8 whose rows have one scale more, for all of the row.
struct row_scaled : strata::int8_codec {
  static constexpr std::int64_t scale_bytes(std::int32_t n) noexcept {
    return strata::int8_codec::scale_bytes(n) + 4;
  }
};

#ifdef STRATA_SHOULD_FAIL
template struct strata::rotated_codec<row_scaled>;
#else
template struct strata::rotated_codec<strata::int8_codec>;
#endif
