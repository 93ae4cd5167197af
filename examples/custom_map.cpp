// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A layer map of one's own: the "sandwich", in which the first and the last `bread` layers keep
// their own K/V and the filling reads its own first layer. A map is two functions; the laws are
// checked by the library, at compile time where the numbers are known.
#include <strata/picture.hpp>
#include <strata/strata.hpp>

#include <cstdio>

struct sandwich_map {
  std::int32_t layers = 0;
  std::int32_t bread = 0;  // layers at either end that lead

  constexpr std::int32_t num_layers() const noexcept { return layers; }
  constexpr strata::layer_id source(strata::layer_id layer) const noexcept {
    bool const filling = layer.index > bread && layer.index < layers - bread;
    return filling ? strata::layer_id{bread} : layer;
  }

  // Optional: parameters that make no sense are refused with their numbers.
  constexpr strata::status check() const noexcept {
    if (bread >= 0 && 2 * bread < layers) return {};
    return {strata::errc::value_out_of_range, strata::no_layer, bread, (layers - 1) / 2};
  }
};

// A proof, not a test: 12 layers, 2 leaders at either end and one for the filling.
static_assert(strata::check(sandwich_map{12, 2}).ok());
static_assert(strata::num_leaders(sandwich_map{12, 2}) == 5);

int main() {
  auto const plan = strata::make_plan(sandwich_map{12, 2});
  if (!plan.ok()) return std::puts(strata::describe(plan.state()).c_str()), 1;
  std::fputs(strata::picture(*plan).c_str(), stdout);

  // A map that serves also trains: as a fixed route, or behind a coin per layer.
  auto const model = strata::kv_classes::uniform(12);
  strata::coin_to_map const routing(sandwich_map{12, 2}, 0.5);
  std::fputs(strata::picture(*strata::make_plan(routing, model, {.seed = 1})).c_str(), stdout);

  // What the library says to a map that cannot be.
  auto const refused = strata::make_plan(sandwich_map{12, 7}).state();
  std::printf("refused: %s\n", strata::describe(refused).c_str());
  return plan->k_slots == 5 && refused.code == strata::errc::value_out_of_range ? 0 : 1;
}
