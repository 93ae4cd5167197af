// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Serving with launches on a device.
#include <doctest/doctest.h>

#include "support/device_memory.hpp"
#include "support/device_serving.hpp"

TEST_CASE("device serving: chunks and tokens of mixed depths, as on the host") {
  support::serving::check(support::device_attention<64>());
}
TEST_CASE("device serving: in an engine's memory") {
  support::serving::check_borrowing(support::device_attention<64>());
}
TEST_CASE("device serving: fp8, every head with a scale of its own") {
  support::serving::check_head_scales(support::device_attention<64>());
}
