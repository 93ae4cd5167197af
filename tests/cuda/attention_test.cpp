// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Whole calls of the attention kernel of devices, its launches on the host: which kernels it
// starts, and training through a router.
#include <doctest/doctest.h>

#include <cstdint>
#include <string>
#include <vector>

#include <strata/cache/codec.hpp>

#include "support/device_checks.hpp"
#include "support/device_training.hpp"
#include "support/simt_attention.hpp"

namespace {

using strata::bf16_codec;
using strata::bfloat16;
using support::attention_case;
using support::attention_problem;

using simt_kernel = decltype(support::simt_attention<64>());
static_assert(strata::differentiable_kernel<simt_kernel, bfloat16, strata::kv_view<bf16_codec>>);
static_assert(
    strata::differentiable_kernel<simt_kernel, float, strata::kv_view<strata::f32_codec>>);

/// Notes down which kernels are started, and starts none.
struct noting_launcher {
  std::vector<std::string>* names = nullptr;

  template <class Body, class Args>
  strata::status start(std::int64_t blocks, std::int32_t, Args const&) const noexcept {
    if (blocks > 0) names->push_back(name(static_cast<Body*>(nullptr)));
    return {};
  }

 private:
  template <std::int32_t N>
  static char const* name(strata::cuda::detail::decode_mma_kernel<N>*) {
    return "decode";
  }
  template <std::int32_t N>
  static char const* name(strata::cuda::detail::decode_fma_kernel<N>*) {
    return "plain";
  }
  template <std::int32_t N>
  static char const* name(strata::cuda::detail::prefill_mma_kernel<N>*) {
    return "prefill";
  }
  static char const* name(strata::cuda::detail::combine_kernel*) { return "combine"; }
};

/// What a forward call of these rows starts.
template <class T, class Codec = strata::plain_codec<T>>
std::vector<std::string> started(std::vector<std::int32_t> const& rows, std::int32_t q_heads,
                                 std::int32_t dim, bool uniform = false) {
  std::vector<std::int32_t> const lengths(rows.size(), 100);
  attention_case c{"", lengths, rows, q_heads, 2, dim, dim};
  c.no_offsets = uniform;
  attention_problem<Codec> problem(c);
  support::half_call<T> call(problem);
  std::vector<std::string> names;
  strata::cuda::detail::attention_on<noting_launcher, 64, 128> kernel;
  kernel.launcher.names = &names;
  REQUIRE(call.forward(support::bounded(kernel, problem), problem.view()).ok());
  return names;
}

}  // namespace

TEST_CASE("cuda attention: which kernels a call starts") {
  using names = std::vector<std::string>;
  CHECK(started<bfloat16>({1, 1}, 8, 64) == names{"decode", "combine"});
  CHECK(started<bfloat16>({1, 1}, 8, 128) == names{"decode", "combine"});
  CHECK(started<bfloat16>({1, 1}, 2, 64) == names{"plain", "combine"});  // nothing is shared
  CHECK(started<bfloat16>({1, 1}, 8, 80) == names{"plain", "combine"});  // no such head
  CHECK(started<bfloat16>({1, 90}, 8, 64) == names{"decode", "prefill", "combine"});
  CHECK(started<bfloat16>({90, 90}, 8, 64, true) == names{"prefill"});
  CHECK(started<bfloat16>({16, 16}, 8, 64, true) == names{"decode", "combine"});
  CHECK(started<bfloat16>({90}, 8, 80) == names{"plain", "combine"});
  CHECK(started<bfloat16, strata::f16_codec>({1}, 8, 64) == names{"plain", "combine"});
  CHECK(started<bfloat16, strata::int8_codec>({1}, 8, 64) == names{"decode", "combine"});
}

TEST_CASE("cuda attention: decode and prefill in one batch") {
  attention_case c{"mixed", {200, 70, 150, 3}, {1, 70, 40, 2}, 8, 2, 64, 64};
  for (auto const width : {1, 3}) {
    attention_problem<bf16_codec> problem(c);
    support::check_forward<bfloat16>(support::simt_attention<64>(0, width, simt::order::shuffled),
                                     problem, 0x1p-8);
  }
}

TEST_CASE("cuda attention: a router trains with queries of 16 bits") {
  auto kernel = support::simt_attention<64>();
  for (bool const deterministic : {true, false}) {
    kernel.deterministic = deterministic;
    support::check_training(kernel);
  }
}
