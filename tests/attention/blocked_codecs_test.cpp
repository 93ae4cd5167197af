// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The blocked attention over caches of 16 bits, and over K and V of different codecs: the same
// bounds as with float, against the reference that reads the same bytes.
#include <doctest/doctest.h>

#include <strata/attention/cpu/blocked.hpp>

#include "support/attention_cases.hpp"
#include "support/kernel_checks.hpp"

namespace {

template <class KCodec, class VCodec = KCodec>
void check_all() {
  for (auto const& c : support::attention_cases())
    support::check_against_reference<support::attention_problem<KCodec, VCodec>>(
        strata::cpu::blocked_attention{}, c);
}

}  // namespace

TEST_CASE("blocked: f16") { check_all<strata::f16_codec>(); }
TEST_CASE("blocked: bf16") { check_all<strata::bf16_codec>(); }
TEST_CASE("blocked: K in f16, V in f32") { check_all<strata::f16_codec, strata::f32_codec>(); }
