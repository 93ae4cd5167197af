// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Decode on a device, its launches run on the host: against the reference in double.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include <strata/cache/codec.hpp>
#include <strata/cache/fp8_codec.hpp>
#include <strata/cache/int4_codec.hpp>
#include <strata/cache/int8_codec.hpp>
#include <strata/cache/rotated_codec.hpp>

#include "support/device_checks.hpp"
#include "support/exact_numbers.hpp"
#include "support/simt_attention.hpp"

namespace {

using strata::bf16_codec;
using strata::bfloat16;
using strata::f16_codec;
using strata::f32_codec;
using strata::float16;
using strata::int8_codec;
using support::attention_case;
using support::attention_problem;
using support::half_call;
using support::simt_attention;

/// Widths, orders of threads, arrivals of copies and splits in turn.
constexpr auto vary_decode = [](auto& kernel, std::int32_t i) {
  kernel.launcher.order = simt::order_of(i);
  kernel.launcher.copies = simt::arrival_of(i);
  kernel.multiprocessors = 1 + i % 4;
  kernel.split_keys = i % 2 == 0 ? 0 : 64 << i % 3;
};

template <class T, class KCodec, class VCodec = KCodec>
void check_tiled(std::int32_t dim, std::uint64_t seed) {
  std::int32_t second_tries = 0;
  auto kernel = simt_attention<64, 128>();
  kernel.launcher.second_tries = &second_tries;
  support::check_forward_grid<T, KCodec, VCodec>(kernel, dim, seed, vary_decode);
  CHECK(second_tries == 0);  // the plain path would hide what is wrong here
}
template <class T, class KCodec, class VCodec = KCodec>
void check_plain(std::uint64_t seed) {
  support::check_forward_grid<T, KCodec, VCodec>(simt_attention<>(), 0, seed, vary_decode);
}

/// What a call makes of a problem, in bits.
template <class T, class Problem, class Kernel>
std::vector<float> result_of(Kernel const& kernel, Problem& problem) {
  half_call<T> call(problem);
  REQUIRE(call.forward(support::bounded(kernel, problem), problem.view()).ok());
  auto all = call.out();
  all.insert(all.end(), call.lse().begin(), call.lse().end());
  return all;
}

}  // namespace

TEST_CASE("cuda decode: matrix products, bf16") { check_tiled<bfloat16, bf16_codec>(64, 1); }
TEST_CASE("cuda decode: matrix products, f16") { check_tiled<float16, f16_codec>(128, 2); }
TEST_CASE("cuda decode: matrix products, int8") { check_tiled<bfloat16, int8_codec>(128, 3); }
TEST_CASE("cuda decode: matrix products, K int8, V f16") {
  check_tiled<float16, int8_codec, f16_codec>(64, 4);
}
TEST_CASE("cuda decode: matrix products, fp8") {
  check_tiled<float16, strata::fp8_codec>(64, 8);
  check_tiled<bfloat16, bf16_codec, strata::fp8_codec>(64, 9);
}
TEST_CASE("cuda decode: plain, f32") { check_plain<float, f32_codec>(5); }
TEST_CASE("cuda decode: plain, bf16 queries on q8_0") {
  check_plain<bfloat16, strata::q8_0_codec>(6);
}
TEST_CASE("cuda decode: plain, int4 under a rotation of K") {
  check_plain<bfloat16, strata::rotated_codec<strata::int4_codec>, strata::int4_codec>(16);
  check_plain<float, strata::rotated_codec<int8_codec>, f32_codec>(17);
}
TEST_CASE("cuda decode: plain, f16 on K f32 and V int8") {
  check_plain<float16, f32_codec, int8_codec>(7);
}

TEST_CASE("cuda decode: heads of up to 1024") {
  for (auto const dim : {257, 512, 1000, 1024}) {
    attention_case c{"dim " + std::to_string(dim), {70, 3}, {1, 2}, 2, 1, dim, dim};
    attention_problem<f32_codec> problem(c);
    support::check_forward<float>(simt_attention<>(), problem, 0);
  }
  attention_case c{"too large", {2}, {1}, 1, 1, 1025, 8};
  attention_problem<f32_codec> problem(c);
  support::attention_call<float> call(problem);
  auto const refused = call.forward(support::bounded(simt_attention<>(), problem), problem.view());
  CHECK(refused == strata::status{strata::errc::head_too_large, strata::no_layer, 1025, 1024});
}

TEST_CASE(
    "cuda decode: with splits of one size bits are a sequence's own, however wide the launch") {
  attention_case batch{"batch", {700, 64, 0, 1030, 5}, {1, 2, 1, 1, 3}, 8, 2, 64, 64};
  attention_problem<bf16_codec> together(batch);
  support::round_queries<bfloat16>(together);
  auto const first = result_of<bfloat16>(simt_attention<64>(128), together);
  for (auto const width : {1, 3, 40})
    for (auto const order : {simt::order::descending, simt::order::shuffled}) {
      auto kernel = simt_attention<64>(128, width, order);
      kernel.launcher.copies = simt::arrival::at_once;
      CHECK(support::same_bits(result_of<bfloat16>(kernel, together), first));
    }
}

TEST_CASE("cuda decode: alone and in a batch, the same bits") {
  // Sequence 0 has the same numbers in both: they are drawn by its number.
  attention_case alone{"alone", {700}, {2}, 8, 2, 64, 64};
  auto batch = alone;
  batch.lengths = {700, 1, 900};
  batch.rows = {2, 1, 4};
  attention_problem<bf16_codec> single(alone), among(batch);
  support::round_queries<bfloat16>(single);
  support::round_queries<bfloat16>(among);
  auto const kernel = simt_attention<64>(256);
  half_call<bfloat16> a(single), b(among);
  REQUIRE(a.forward(support::bounded(kernel, single), single.view()).ok());
  REQUIRE(b.forward(support::bounded(kernel, among), among.view()).ok());
  auto const count = a.out().size();
  auto out = b.out();
  out.resize(count);
  CHECK(support::same_bits(out, a.out()));
}

TEST_CASE("cuda decode: a neighbour of more rows changes no bits, nor where heads share nothing") {
  attention_case alone{"alone", {300}, {1}, 2, 2, 64, 64};
  auto batch = alone;
  batch.lengths = {300, 90};
  batch.rows = {1, 3};
  attention_problem<bf16_codec> single(alone), among(batch);
  support::round_queries<bfloat16>(single);
  support::round_queries<bfloat16>(among);
  auto const a = result_of<bfloat16>(simt_attention<64>(128), single);
  auto const b = result_of<bfloat16>(simt_attention<64>(128), among);
  CHECK(std::equal(a.begin(), a.begin() + 2 * 64, b.begin()));
}

TEST_CASE(
    "cuda decode: heads whose int8 scales no copy brings, and devices of little shared memory") {
  attention_case c{"96", {300}, {2}, 8, 2, 96, 96};
  attention_problem<int8_codec> odd(c);
  support::check_forward<bfloat16>(simt_attention<96>(), odd, 0x1p-8);
  c.k_dim = c.v_dim = 256;
  attention_problem<bf16_codec> large(c);
  support::check_forward<bfloat16>(simt_attention<256>(), large, 0x1p-8);  // 205 KB: the plain path
}

TEST_CASE("cuda decode: K and V are read once for all query heads of a KV head, and no more") {
  attention_case c{"16 heads on 2", {1000, 24}, {1, 1}, 16, 2, 128, 128};
  attention_problem<bf16_codec> problem(c);
  simt::traffic moved;
  auto kernel = support::bounded(simt_attention<128>(0, 3), problem);
  kernel.launcher.moved = &moved;
  half_call<bfloat16> call(problem);
  std::vector<std::byte> workspace(
      support::as_size(kernel.workspace_bytes(call.rows, problem.view(), 1)));
  REQUIRE(kernel.partial({0, 1}, call.rows, problem.view(), workspace).ok());
  CHECK(moved.async_bytes == 1024 * 2 * 2 * 128 * 2);  // tokens, heads, K and V, head_dim, bytes
  CHECK(moved.loaded_bytes == 0);
}

TEST_CASE("cuda decode: a masked key counts nothing, whatever its value") {
  constexpr auto infinity = std::numeric_limits<float>::infinity();
  attention_case c{"drafts", {90}, {4}, 4, 1, 64, 64};
  attention_problem<bf16_codec> problem(c);
  problem.write_v(0, 0, 89, std::vector<float>(64, infinity));  // only the last row sees it
  problem.write_k(0, 0, 88, std::vector<float>(64, std::nanf("")));
  support::round_queries<bfloat16>(problem);
  half_call<bfloat16> call(problem);
  support::attention_call<double> exact(problem);
  REQUIRE(exact.forward(strata::reference_attention{}, problem.view()).ok());
  std::int32_t second_tries = 0;
  auto kernel = support::bounded(simt_attention<64>(), problem);
  kernel.launcher.second_tries = &second_tries;
  REQUIRE(call.forward(kernel, problem.view()).ok());
  CHECK(support::tensor_distance(call.out(), exact.out).error < 0.02);
  CHECK(second_tries == 1);
  CHECK(std::isnan(call.out().back()));  // 88 is NaN to who sees it
  CHECK(std::isfinite(call.out().front()));
}

TEST_CASE("cuda decode: bounds may be larger than what comes, and must be there") {
  attention_case c{"bounds", {130, 40}, {1, 2}, 4, 2, 64, 64};
  attention_problem<f16_codec> problem(c);
  support::round_queries<float16>(problem);
  auto const kernel = support::bounded(simt_attention<64>(64), problem);
  auto const expected = result_of<float16>(kernel, problem);
  half_call<float16> call(problem);
  auto larger = kernel;
  larger.bounds = {40, 20, 100000};
  REQUIRE(call.forward(larger, problem.view()).ok());
  auto all = call.out();
  all.insert(all.end(), call.lse().begin(), call.lse().end());
  CHECK(support::same_bits(all, expected));
  CHECK(larger.workspace_bytes(call.rows, problem.view(), 1) >
        kernel.workspace_bytes(call.rows, problem.view(), 1));

  auto none = kernel;
  none.bounds = {};
  std::vector<std::byte> workspace(1 << 22);
  CHECK(none.partial({0, 1}, call.rows, problem.view(), workspace).code ==
        strata::errc::bounds_missing);
  none.bounds.rows = -1;
  CHECK(none.partial({0, 1}, call.rows, problem.view(), workspace).code ==
        strata::errc::value_too_small);
  CHECK(kernel.partial({0, 1}, call.rows, problem.view(), std::span(workspace).first(100)).code ==
        strata::errc::workspace_too_small);
  CHECK(kernel.partial({1, 1}, call.rows, problem.view(), workspace).code ==
        strata::errc::bad_share);
}
