// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A user's program: plans a model of 8 layers of which 3 keep a cache, on all threads of a pool.
#include <cstdio>

#include <strata/strata.hpp>
#include <strata/thread_pool.hpp>

#ifdef CONSUMER_HAS_CUDA
#include <cuda_runtime_api.h>
#endif
#ifdef CONSUMER_HAS_BULK
#include <thrust/system/cpp/execution_policy.h>

#include <strata/bulk/row_tables.hpp>
#endif

int main() {
  constexpr strata::leader_set map(8, {0, 3, 6});
  static_assert(strata::check(map).ok());

  strata::thread_pool pool(2);
  auto const state = pool.run([&](strata::share) noexcept {
    auto const plan = strata::make_plan(map);
    if (!plan.ok()) return plan.state();
    bool const right = plan->k_slots == 3 && (*plan)[{5}].k.source == strata::layer_id{3};
    return right ? strata::status{} : strata::status{strata::errc::plan_mismatch};
  });
  std::printf("strata %d.%d.%d: %s\n", strata::version_major, strata::version_minor,
              strata::version_patch, strata::describe(state).c_str());
#ifdef CONSUMER_HAS_CUDA
  int version = 0;  // of the library: there may be no driver
  if (cudaRuntimeGetVersion(&version) != cudaSuccess || version != CUDART_VERSION) return 2;
#endif
#ifdef CONSUMER_HAS_BULK
  std::int32_t const depths[] = {1, 3};
  std::int32_t order[2] = {};
  if (!strata::bulk::order_by_depth(thrust::cpp::par, depths, order).ok() || order[0] != 1)
    return 3;
#endif
  return state.ok() ? 0 : 1;
}
