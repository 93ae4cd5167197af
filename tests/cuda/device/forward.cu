// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Forward calls on a device: what the host's launches of the same bodies have passed.
#include <doctest/doctest.h>

#include <cstdint>

#include <strata/cache/codec.hpp>
#include <strata/cache/int4_codec.hpp>
#include <strata/cache/int8_codec.hpp>
#include <strata/cache/rotated_codec.hpp>

#include "support/device_checks.hpp"
#include "support/device_memory.hpp"

namespace {

using support::device_attention;

constexpr auto vary = [](auto& kernel, std::int32_t i) {
  kernel.multiprocessors = i % 3 == 0 ? 1 + i % 7 : kernel.multiprocessors;
  kernel.split_keys = i % 2 == 0 ? 0 : 64 << i % 3;
};

}  // namespace

TEST_CASE("device: matrix products, bf16") {
  support::check_forward_grid<strata::bfloat16, strata::bf16_codec>(device_attention<64, 128>(), 64,
                                                                    1, vary);
  support::check_forward_grid<strata::bfloat16, strata::bf16_codec>(device_attention<64, 128>(),
                                                                    128, 2, vary);
}
TEST_CASE("device: matrix products, K int8, V f16") {
  support::check_forward_grid<strata::float16, strata::int8_codec, strata::f16_codec>(
      device_attention<128>(), 128, 3, vary);
}
TEST_CASE("device: plain, f32") {
  support::check_forward_grid<float, strata::f32_codec>(device_attention<>(), 0, 4, vary);
}
TEST_CASE("device: plain, int4 under a rotation of K") {
  support::check_forward_grid<strata::bfloat16, strata::rotated_codec<strata::int4_codec>,
                              strata::int4_codec>(device_attention<>(), 0, 5, vary);
}
