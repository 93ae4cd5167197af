// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A routing sampler of one's own: nearer layers are likelier. A layer reads itself with probability
// one half, the one before with a quarter, and so on; the first candidate takes the rest. A sampler
// is a pure function of its candidates and a key, so that every rank, thread and recomputation
// agrees.
#include <strata/picture.hpp>
#include <strata/strata.hpp>

#include <bit>
#include <cstdio>

struct nearer_is_likelier {
  constexpr strata::layer_id operator()(strata::candidates c, strata::draw_key key) const noexcept {
    auto const words = strata::draw_words(key, c.reader());
    // Leading zero bits of a random word: 0 with probability 1/2, 1 with 1/4, ...
    auto const steps_back = std::countl_zero(words.word[0]);
    return steps_back < c.preceding() ? c[c.preceding() - steps_back] : c.first();
  }
};
static_assert(strata::routing_sampler<nearer_is_likelier>);

int main() {
  auto const model = strata::kv_classes::uniform(8);
  std::fputs(strata::picture(*strata::make_plan(nearer_is_likelier{}, model, {.seed = 7})).c_str(),
             stdout);

  // How often does layer 4 read layers 0 .. 4?
  int const draws = 10000;
  int read[5] = {};
  for (std::uint64_t step = 0; step < draws; ++step) {
    auto const plan = strata::make_plan(nearer_is_likelier{}, model, {.seed = 7, .step = step});
    if (!plan.ok()) return std::puts(strata::describe(plan.state()).c_str()), 1;
    ++read[(*plan)[{4}].k.source.index];
  }
  double const expected[5] = {1.0 / 16, 1.0 / 16, 1.0 / 8, 1.0 / 4, 1.0 / 2};
  bool good = true;
  for (int source = 0; source < 5; ++source) {
    double const share = static_cast<double>(read[source]) / draws;
    std::printf("layer 4 reads layer %d in %4.1f %% of passes, expected %4.1f %%\n", source,
                100 * share, 100 * expected[source]);
    good &= share > expected[source] - 0.02 && share < expected[source] + 0.02;
  }
  return good ? 0 : 1;
}
