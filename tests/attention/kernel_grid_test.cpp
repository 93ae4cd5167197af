// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Every kernel, with every codec, over calls in which any two features meet: errors at most twice
// those of the float reference, which reads the same bytes.
#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>

#include <strata/cache/codec.hpp>
#include <strata/cache/fp8_codec.hpp>
#include <strata/cache/int8_codec.hpp>

#include "attention/kernel_instances.hpp"
#include "support/attention_cases.hpp"
#include "support/attention_grid.hpp"
#include "support/cpu_kernels.hpp"
#include "support/kernel_checks.hpp"
#include "support/print.hpp"
#include "support/sanitized.hpp"

namespace {

using strata::bf16_codec;
using strata::f16_codec;
using strata::f32_codec;

constexpr std::int64_t most_work = 2'000'000;  // a pass of the float reference in some 8 ms

/// Two designs: in all of them together, many triples of levels meet as well. Under a sanitizer some
/// calls of one do, others for other codecs.
template <class KCodec, class VCodec = KCodec>
void check_designs(std::uint64_t seed) {
  for (auto const design : {seed, seed + 1000}) {
    if (design != seed && support::case_step() > 1) continue;
    for (auto const& c : support::sampled(support::attention_design(design, most_work), seed))
      support::check_bound<support::attention_problem<KCodec, VCodec>>(support::grid::case_of(c));
  }
}

}  // namespace

TEST_CASE("grid: any two features meet, in 150 to 250 cases") {
  auto const design = support::attention_design(1, most_work);
  support::met_pairs met(support::grid::levels());
  for (auto const& c : design) {
    CHECK(support::grid::work(c) <= most_work);
    met.add(c);
  }
  met.for_each_missing([](auto i, auto a, auto j, auto b) {
    CAPTURE(i);
    CAPTURE(a);
    CAPTURE(j);
    CAPTURE(b);
    FAIL_CHECK("these levels never meet");
  });
  CHECK(design.size() >= 150);
  CHECK(design.size() <= 250);
}

// One line for every codec, or pair of them.
TEST_CASE("kernels: any two features, f32") { check_designs<f32_codec>(1); }
TEST_CASE("kernels: any two features, f16") { check_designs<f16_codec>(2); }
TEST_CASE("kernels: any two features, bf16") { check_designs<bf16_codec>(3); }
TEST_CASE("kernels: any two features, K f16, V f32") { check_designs<f16_codec, f32_codec>(4); }
TEST_CASE("kernels: any two features, int8") { check_designs<strata::int8_codec>(5); }
TEST_CASE("kernels: any two features, q8_0") { check_designs<strata::q8_0_codec>(6); }
TEST_CASE("kernels: any two features, fp8") { check_designs<strata::fp8_codec>(7); }
