// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The kernels over caches of 16 bits, and over K and V of different codecs: the same
// bounds as with float, against the reference that reads the same bytes.
#include <doctest/doctest.h>

#include "attention/kernel_instances.hpp"
#include "support/attention_cases.hpp"
#include "support/cpu_kernels.hpp"
#include "support/sanitized.hpp"

namespace {

template <class KCodec, class VCodec = KCodec>
void check_codecs(std::size_t first) {
  for (auto const& c : support::sampled(support::attention_cases(), first))
    support::check_bound<support::attention_problem<KCodec, VCodec>>(c);
}

}  // namespace

TEST_CASE("kernels: all cases, f16") { check_codecs<strata::f16_codec>(2); }
TEST_CASE("kernels: all cases, bf16") { check_codecs<strata::bf16_codec>(3); }
TEST_CASE("kernels: all cases, K in f16, V in f32") {
  check_codecs<strata::f16_codec, strata::f32_codec>(4);
}
