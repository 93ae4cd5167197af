// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The threads of an engine that ask a step for view and queries, each for itself and all at once.
#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include <strata/attention/reference.hpp>
#include <strata/map/identity_map.hpp>
#include <strata/thread_pool.hpp>

#include "support/print.hpp"
#include "support/storage_types.hpp"
#include "support/unwritten_step.hpp"

TEST_CASE("threads: all of an engine's threads get the same rows") {
  using storage = strata::contiguous_storage<strata::f32_codec>;
  constexpr std::int32_t layers = 20;
  strata::layer_kind kind;
  kind.kv.kv_heads = 1;
  kind.kv.k_dim = kind.kv.v_dim = 4;
  auto const classes = strata::kv_classes::uniform(layers, kind);
  strata::stack<storage, strata::reference_attention> stack(
      support::make_storage<storage>(classes));
  auto const id = *stack.open(*make_plan(strata::identity_map(layers), classes));
  std::vector<float> q(5 * 4), out(5 * 4);
  strata::layer_queries<float> const queries{.q = q.data(), .out = out.data(), .q_heads = 1};

  strata::thread_pool pool(4);
  auto step = stack.begin({id, 5});
  support::mark_all_stored(step, layers - 1);
  for (strata::layer_id l{0}; l.index < layers; ++l.index) {
    bool const stored = l.index < layers - 1;
    auto const s = pool.run([&](strata::share) noexcept -> strata::status {
      auto const keys = step.view(l);
      if (!keys.ok()) return keys.state();
      auto const rows = step.queries(l, queries);
      if (rows.ok() && rows->num_rows() != 5) return {strata::errc::unsupported};
      return rows.state();
    });
    CHECK(s ==
          (stored ? strata::status{} : strata::status{strata::errc::rows_not_stored, l, 5, 5}));
  }
}
