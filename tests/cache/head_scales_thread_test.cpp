// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Threads that store rows of one block all write its scales: the same bytes as one thread, and
// nothing for a thread sanitizer to find.
#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include <strata/attention/reference.hpp>
#include <strata/cache/fp8_codec.hpp>
#include <strata/map/identity_map.hpp>
#include <strata/stack.hpp>
#include <strata/thread_pool.hpp>

#include "support/exact_numbers.hpp"
#include "support/print.hpp"
#include "support/storage_types.hpp"

namespace {

/// The memory of K and V after three steps, every row by the thread whose turn it is.
template <class S, class Exec>
std::pair<std::vector<std::byte>, std::vector<std::byte>> stored(Exec&& exec) {
  strata::layer_kind kind;
  kind.kv = {.kv_heads = 3, .k_dim = 5, .v_dim = 5};
  auto const classes = strata::kv_classes::uniform(2, kind);
  support::storage_room const room{.max_sequences = 1, .max_tokens = 48};
  std::vector<float> const scales{0.5f, 0.25f, 3, 0.1f, 7, 0.01f};
  auto memory = support::memory_for<S>(classes, room);
  strata::stack<S, strata::reference_attention> stack(
      support::make_storage<S>(classes, room, memory.borrow(), {scales, scales}));
  auto const id = *stack.open(*make_plan(strata::identity_map(2), classes));
  auto const rows = support::random_values<float>(16 * 15, 5, 20);
  for (int round = 0; round < 3; ++round) {
    auto step = stack.begin({id, 16});
    auto const s = exec.run([&](strata::share share) noexcept -> strata::status {
      for (strata::layer_id l{0}; l.index < 2; ++l.index)
        for (auto i = share.ith; i < 16; i += share.nth) {
          step.k_writers(l)[0].store(i, rows.data() + i * 15);
          step.v_writers(l)[0].store(i, rows.data() + i * 15);
        }
      return {};
    });
    CHECK(s.ok());
    CHECK(step.commit().ok());
  }
  CHECK(memory.guards_intact());
  auto const lent = memory.borrow();
  return {{lent.k.begin(), lent.k.end()}, {lent.v.begin(), lent.v.end()}};
}

}  // namespace

TEST_CASE_TEMPLATE("threads: rows of one block, and the scales that they share", S,
                   strata::contiguous_storage<strata::fp8_codec>,
                   strata::paged_storage<strata::fp8_codec>) {
  auto const expected = stored<S>(strata::serial_executor{});
  for (std::int32_t const threads : {2, 5})
    CHECK(stored<S>(strata::thread_pool(threads)) == expected);
}
