// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Training with launches on a device.
#include <doctest/doctest.h>

#include "support/device_memory.hpp"
#include "support/device_training.hpp"

TEST_CASE("device training: sums of a source are its readers'") {
  support::check_training(support::device_attention<64>());
}
TEST_CASE("device training: dQ added up by atomics") {
  auto kernel = support::device_attention<64>();
  kernel.deterministic = false;
  support::check_training(kernel);
}
