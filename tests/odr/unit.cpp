// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Compiled several times, with ODR_UNIT naming the function and with other flags each time.
#include "answers.hpp"

#ifdef ODR_WRAPPED
#define STRATA_NAMESPACE_BEGIN \
  namespace engine {           \
  namespace strata {           \
  inline namespace v0 {
#define STRATA_NAMESPACE_END \
  }                          \
  }                          \
  }
#endif

#include <cstddef>
#include <vector>

#include <strata/attention/cpu/attention.hpp>
#include <strata/strata.hpp>

#ifdef ODR_WRAPPED
namespace strata = engine::strata;
#endif

answers ODR_UNIT() {
  answers result{strata::cpu::isa_name()};

  auto const plan =
      strata::make_plan(strata::random_previous(0.5), strata::kv_classes::uniform(64), {.seed = 7});
  result.slots = plan.ok() ? plan->k_slots : -1;
  result.random_word = strata::draw_words({.seed = 7}, 3).word[0];

  // One query of 8 elements over 100 tokens.
  std::vector<float> keys(100 * 8), values(100 * 8);
  for (std::size_t i = 0; i < keys.size(); ++i) {
    keys[i] = static_cast<float>(i % 37) / 16;
    values[i] = static_cast<float>(i % 41) / 16;
  }
  auto const view = strata::contiguous_view(keys.data(), values.data(), 1, 100, 1, 8, 8);
  float const query[8] = {1, -1, 2, 0.5f};
  strata::query_rows<float> q;
  q.q = query;
  q.out = result.attended;
  q.num_seqs = 1;
  q.q_heads = 1;
  strata::cpu::attention const kernel;
  strata::serial_executor exec;
  std::vector<std::byte> workspace(
      static_cast<std::size_t>(kernel.workspace_bytes(q, view, exec.num_shares())));
  if (!strata::attend(exec, kernel, q, view, workspace).ok()) result.slots = -2;
  return result;
}
