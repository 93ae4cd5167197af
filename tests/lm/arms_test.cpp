// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The models of an experiment keep step with each other.
#include "demo_arms.hpp"

#include <doctest/doctest.h>

#include "tiny_run.hpp"

using tiny::bits;

namespace {

lm::arm const& branching(lm::experiment const& e) { return e["finished"]; }

}  // namespace

TEST_CASE("arms: after every round all models that exist have done as many steps") {
  auto o = tiny::run_options(false);
  o.hold_out = 0;
  lm::corpus const text({tiny::letters(5000)}, 0);
  strata::thread_pool pool(1);
  lm::experiment e(lm::demo_arms(o.model, {}), o, text, pool);
  while (!e.finished()) {
    e.step();
    for (auto const& a : e.arms()) {
      CAPTURE(a.spec().name);
      CHECK(a.steps_done() == (a.exists() ? e.steps_done() : 0));
    }
    CHECK(branching(e).exists() == (e.steps_done() > e.branch_step()));
  }
}

TEST_CASE("arms: the branch begins where plain stood half-way, and sees the same batches") {
  auto o = tiny::run_options(false);
  o.hold_out = 0;
  lm::corpus const text({tiny::letters(5000)}, 0);
  strata::thread_pool pool(1);
  // Branching into plain training must repeat plain itself, step by step.
  auto arms = lm::demo_arms(o.model, {});
  for (auto& spec : arms)
    if (spec.branches) spec.routing = "self";
  lm::experiment e(arms, o, text, pool);
  while (!e.finished()) {
    e.step();
    if (branching(e).exists()) CHECK(bits(branching(e).weights()) == bits(e["plain"].weights()));
  }
  CHECK(branching(e).exists());
}
