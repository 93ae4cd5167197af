// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The inputs that fuzzing found worth keeping: nothing that a target asks for is broken, and they
// still come as far as they did. (A snapshot of another version would be refused at its first line.)
#include <doctest/doctest.h>

#include "fuzz/corpus.hpp"
#include "fuzz/engine_forms_target.hpp"
#include "fuzz/snapshot_target.hpp"
#include "fuzz/strategy_target.hpp"

TEST_CASE("replayed corpus: strategy and routing strings") {
  fuzz::tally<fuzz::strategy::num_reaches> came;
  for (auto const& input : fuzz::corpus_of("strategy")) came.add(fuzz::strategy::one_input(input));
  came.check(5);
}

TEST_CASE("replayed corpus: engines' forms of maps") {
  fuzz::tally<fuzz::engine_forms::num_reaches> came;
  for (auto const& input : fuzz::corpus_of("engine_forms"))
    came.add(fuzz::engine_forms::one_input(input));
  came.check(2);
}

TEST_CASE("replayed corpus: snapshots") {
  fuzz::tally<fuzz::snapshot::num_reaches> came;
  for (auto const& input : fuzz::corpus_of("snapshot")) came.add(fuzz::snapshot::one_input(input));
  came.check(2);
}
