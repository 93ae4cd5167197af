// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Edges where a plausible implementation goes wrong without a crash.
#include <doctest/doctest.h>
#include <strata/strata.hpp>

#include <cstddef>
#include <limits>
#include <vector>

#include "support/print.hpp"

namespace {

TEST_CASE("a double is rounded once on its way to 16 bits") {
  // Through a float each of these would become a tie, and then round down.
  double const x[] = {1 + 0x1p-11 + 0x1p-40, 1 + 0x1p-8 + 0x1p-40, -1 - 0x1p-11 - 0x1p-40};
  std::byte row[6];
  double out[3];
  strata::f16_codec::encode(x, 3, row, nullptr);
  strata::f16_codec::decode(row, nullptr, 3, out);
  CHECK(out[0] == 1 + 0x1p-10);
  CHECK(out[2] == -1 - 0x1p-10);
  strata::bf16_codec::encode(x, 3, row, nullptr);
  strata::bf16_codec::decode(row, nullptr, 3, out);
  CHECK(out[1] == 1 + 0x1p-7);
}

TEST_CASE("a view longer than its blocks is refused") {
  float k[8] = {}, v[8] = {};
  auto view = strata::contiguous_view(k, v, 1, 4, 1, 2, 2);
  CHECK(view.check().ok());
  view.rows.length = 5;
  CHECK(view.check() == strata::status{strata::errc::length_beyond_blocks, {}, 5, 4});
  std::int32_t const table[2] = {0, 0};
  view.k.block_table = view.v.block_table = table;
  view.k.blocks_per_row = view.v.blocks_per_row = 1;
  CHECK_FALSE(view.check().ok());
  view.k.blocks_per_row = view.v.blocks_per_row = 2;
  CHECK(view.check().ok());
}

TEST_CASE("bounds are those of the side that was passed") {
  CHECK(strata::check(strata::tail_map(8, -1)).bound == 0);
  CHECK(strata::check(strata::tail_map(8, 8)).bound == 7);
}

TEST_CASE("a recorded route names the source that it was given") {
  std::vector<std::int32_t> const sources{0, 300};
  auto const plan =
      strata::make_plan(strata::recorded_route(sources), strata::kv_classes::uniform(2), {});
  CHECK(plan.state() == strata::status{strata::errc::illegal_draw, {1}, 300, 2});
}

TEST_CASE("RoPE parameters that are no numbers are refused by name, not as a mismatch") {
  strata::layer_kind kind;
  kind.kv.rope.theta = std::numeric_limits<double>::quiet_NaN();
  auto const classes = strata::kv_classes::uniform(2, kind);
  CHECK(strata::check(strata::identity_map(2), classes).code == strata::errc::bad_rope);
}

}  // namespace
