// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The same steps on real threads: same bits, and nothing for a thread sanitizer to find. Rows of a
// run may be stored by different threads.
#include <doctest/doctest.h>

#include <cstdint>
#include <vector>

#include <strata/thread_pool.hpp>

#include "support/print.hpp"
#include "support/toy_plans.hpp"

namespace {

using storage = strata::paged_storage<strata::f64_codec>;

/// Two layers of a mixed batch on an executor, K and V stored by its threads as well.
template <class Kernel, class Exec>
std::vector<double> run(Exec& exec) {
  support::toy_shape shape;
  shape.layers.resize(2);
  strata::stack<storage, Kernel> stack(support::make_storage<storage>(shape.classes()));
  std::vector<strata::batch_entry> batch;
  for (std::int32_t group : {1, 2, 1})
    batch.push_back({*stack.open(*make_plan(strata::grouped_map(2, group), shape.classes())), 5,
                     strata::logits::all});
  auto const heads = support::random_values<double>(15 * 12, 70);
  auto const q = support::random_values<double>(15 * 24, 71);
  std::vector<double> all;
  for (int round = 0; round < 3; ++round) {
    auto step = stack.begin(batch);
    for (strata::layer_id l{0}; l.index < 2; ++l.index) {
      auto const store = [&](strata::share s) noexcept -> strata::status {
        for (auto const& run : step.k_writers(l))
          for (auto i = s.begin(run.num_rows()); i < s.end(run.num_rows()); ++i)
            run.store(static_cast<std::int32_t>(i), heads.data() + (run.first_row() + i) * 12);
        for (auto const& run : step.v_writers(l))
          for (auto i = s.begin(run.num_rows()); i < s.end(run.num_rows()); ++i)
            run.store(static_cast<std::int32_t>(i), heads.data() + (run.first_row() + i) * 8);
        return {};
      };
      CHECK(exec.run(store).ok());
      std::vector<double> out(15 * 16);
      strata::layer_queries<double> const queries{q.data(), out.data(), nullptr, 4};
      support::workspace_memory workspace;
      auto const bytes = *step.workspace_bytes(l, queries, exec.num_shares());
      CHECK(step.attend(exec, l, queries, workspace.get(bytes)).ok());
      all.insert(all.end(), out.begin(), out.end());
    }
    CHECK(step.commit().ok());
  }
  return all;
}

}  // namespace

TEST_CASE_TEMPLATE("steps on a pool of threads give the serial bits", Kernel,
                   strata::reference_attention, strata::cpu::blocked_attention) {
  strata::serial_executor serial;
  auto const expected = run<Kernel>(serial);
  CHECK(expected.size() == 3 * 2 * 15 * 16);
  for (std::int32_t const threads : {1, 2, 5}) {
    strata::thread_pool pool(threads);
    CHECK(support::same_bits(run<Kernel>(pool), expected));
  }
}
