// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The kernels over the views that several files of this folder test, compiled once
// (kernel_instances*.cpp): no other code of the tests takes as long.
#pragma once

#include <strata/attention/cpu/attention.hpp>
#include <strata/attention/cpu/blocked.hpp>
#include <strata/attention/reference.hpp>
#include <strata/cache/codec.hpp>
#include <strata/cache/codec_pairs.hpp>
#include <strata/cache/view.hpp>

#include "support/attention_cases.hpp"

// clang-format off
#define STRATA_TEST_CALL(prefix, T, Kernel, ...)                                              \
  prefix template strata::status support::attention_call<T>::forward_on<Kernel, __VA_ARGS__>( \
      Kernel const&, __VA_ARGS__ const&, support::executor_ref);                              \
  prefix template strata::status support::attention_call<T>::backward_on<Kernel, __VA_ARGS__>(\
      Kernel const&, __VA_ARGS__ const&, support::executor_ref);
#define STRATA_TEST_CALLS(prefix, ...)                                         \
  STRATA_TEST_CALL(prefix, float, strata::cpu::attention, __VA_ARGS__)         \
  STRATA_TEST_CALL(prefix, float, strata::cpu::blocked_attention, __VA_ARGS__) \
  STRATA_TEST_CALL(prefix, float, strata::reference_attention, __VA_ARGS__)    \
  STRATA_TEST_CALL(prefix, double, strata::reference_attention, __VA_ARGS__)
// clang-format on

STRATA_TEST_CALLS(extern, strata::kv_view<strata::f32_codec>)
STRATA_TEST_CALLS(extern, strata::kv_view<strata::f16_codec>)
STRATA_TEST_CALLS(extern, strata::kv_view<strata::bf16_codec>)
STRATA_TEST_CALLS(extern, strata::kv_view<strata::f16_codec, strata::f32_codec>)
STRATA_TEST_CALLS(extern, strata::kv_view<strata::fp8_codec>)
STRATA_TEST_CALLS(extern, strata::kv_view<strata::fp8_codec, strata::bf16_codec>)
STRATA_TEST_CALLS(extern, strata::kv_view<strata::int8_codec, strata::int4_codec>)
STRATA_TEST_CALLS(extern, strata::kv_view<strata::int4_codec>)
STRATA_TEST_CALLS(extern,
                  strata::kv_view<strata::rotated_codec<strata::int4_codec>, strata::int4_codec>)
