// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The codecs of 8 and 4 bits, and their pairs: over calls in which any two features meet, in batches
// and shares, at the ends of their numbers and beside what is none.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "attention/kernel_instances.hpp"
#include "support/attention_cases.hpp"
#include "support/attention_grid.hpp"
#include "support/cpu_kernels.hpp"
#include "support/kernel_checks.hpp"
#include "support/print.hpp"
#include "support/sanitized.hpp"

namespace {

using strata::bf16_codec, strata::fp8_codec, strata::int4_codec, strata::int8_codec;
using rot_int4_codec = strata::rotated_codec<int4_codec>;
using support::as_size;
using support::attention_call;
using support::attention_case;
using support::same_bits;

/// Queries of 60 make large scores, where naive sums of a few cases are lucky beyond any bound: the
/// grid of the other codecs has them.
template <class KCodec, class VCodec = KCodec>
void check_design(std::uint64_t seed) {
  for (auto const& levels : support::sampled(support::attention_design(seed, 200'000))) {
    auto c = support::grid::case_of(levels);
    c.query_scale = std::min(c.query_scale, 4.0);
    support::check_bound<support::attention_problem<KCodec, VCodec>>(c);
  }
}

/// Streams and tiles, heads whose last spans are short, and keys in several splits.
std::vector<attention_case> batches_of_pairs() {
  std::vector<attention_case> list = {
      {"decode", {1100, 3, 64, 0, 513}, {1, 1, 1, 1, 1}, 8, 2, 128, 128},
      {"all kinds", {70, 1100, 300, 20, 1, 1030}, {0, 1, 30, 0, 1, 5}, 8, 2, 80, 100}};
  list[0].layout = {16, 16};
  list[1].layout = {16, 3, true};
  list[1].rule.window = 700;
  return list;
}

template <class Problem>
void check_pair_in_shares() {
  for (auto const& c : batches_of_pairs()) {
    CAPTURE(c.name);
    Problem problem(c);
    support::for_each_kernel([&](auto const& kernel) {
      attention_call<float> serial(problem);
      REQUIRE(serial.forward(kernel, problem.view()).ok());
      for (std::int32_t const shares : {2, 5, 16})
        for (bool const descending : {false, true}) {
          attention_call<float> call(problem);
          support::share_executor const exec{shares, descending};
          REQUIRE(call.forward(kernel, problem.view(), exec).ok());
          CHECK(same_bits(call.out, serial.out));
          CHECK(same_bits(call.lse, serial.lse));
        }
    });
  }
}

/// The scale of a head-scaled tensor's head h becomes `first` / (1 + h), beside every token.
template <class View>
void change_scales(strata::tensor_blocks const& blocks, View const& view, float first) {
  support::for_each_token(view, [&](auto s, auto h, auto t) {
    auto const row = blocks.row(s, h, view.kv_heads);
    auto const scale = first / static_cast<float>(1 + h);
    std::memcpy(const_cast<std::byte*>(blocks.scales_at(row, h, t)), &scale, sizeof(scale));
  });
}

/// All elements of V's token t in the first sequence and KV head become `number`.
template <class Problem>
void fill_v(Problem& problem, std::int32_t t, float number) {
  problem.write_v(0, 0, t, std::vector<float>(as_size(problem.shape().v_dim), number));
}
template <class Problem>
void fill_k(Problem& problem, std::int32_t t, float number) {
  problem.write_k(0, 0, t, std::vector<float>(as_size(problem.shape().k_dim), number));
}

/// A NaN in a token's K or V shows in the rows that see the token, and in no others.
template <class Problem>
void check_nan() {
  constexpr std::int32_t rows = 40, length = 600;
  for (std::int32_t const first : {0, 39})  // tiled; streamed, one row
    for (bool const in_k : {false, true}) {
      CAPTURE(in_k);
      attention_case c{"", {length}, {rows - first}, 2, 2, 96, 80};
      Problem clean(c), changed(c);
      auto const token = length - 10;
      in_k ? fill_k(changed, token, NAN) : fill_v(changed, token, NAN);
      support::for_each_kernel([&](auto const& kernel) {
        attention_call<float> a(clean), b(changed);
        REQUIRE(a.forward(kernel, clean.view()).ok());
        REQUIRE(b.forward(kernel, changed.view()).ok());
        for (std::int32_t row = 0; row < rows - first; ++row) {
          auto const sees = length - (rows - first) + row >= token;
          auto const at = as_size(row * c.q_heads * c.v_dim);
          std::int32_t nans = 0, others = 0;
          for (std::size_t i = 0; i < 80; ++i) {
            nans += std::isnan(b.out[at + i]);
            others += !(std::abs(a.out[at + 80 + i] - b.out[at + 80 + i]) <= 1e-6f);
          }
          CHECK(nans == (sees ? 80 : 0));
          CHECK(others == 0);
        }
      });
    }
}

}  // namespace

TEST_CASE("kernels: any two features, K fp8, V bf16") { check_design<fp8_codec, bf16_codec>(11); }
TEST_CASE("kernels: any two features, int4") { check_design<int4_codec>(12); }
TEST_CASE("kernels: any two features, K int8, V int4") { check_design<int8_codec, int4_codec>(13); }
TEST_CASE("kernels: any two features, K rotated int4, V int4") {
  check_design<rot_int4_codec, int4_codec>(14);
}

TEST_CASE("kernels: shares change no bit, codecs of 8 and 4 bits") {
  check_pair_in_shares<support::attention_problem<fp8_codec>>();
  check_pair_in_shares<support::attention_problem<fp8_codec, bf16_codec>>();
  check_pair_in_shares<support::attention_problem<rot_int4_codec, int4_codec>>();
}

TEST_CASE("kernels: NaN in codecs of 8 and 4 bits") {
  check_nan<support::attention_problem<fp8_codec>>();
  check_nan<support::attention_problem<fp8_codec, bf16_codec>>();
  check_nan<support::attention_problem<int4_codec>>();
  check_nan<support::attention_problem<rot_int4_codec, int4_codec>>();
}

TEST_CASE("kernels: head scales of fp8 of many bits") {
  // What a codec rounds for every element, and the kernels do not: 2^-24 of what is summed.
  attention_case c{"", {600, 70}, {1, 40}, 8, 2, 64, 80};
  support::attention_problem<fp8_codec> problem(c);
  auto const view = problem.view();
  change_scales(view.k, view, 0.0234567f);
  change_scales(view.v, view, 0.0345678f);
  double sum = 0;  // of the magnitudes of a score's products, the greatest
  std::vector<float> key(as_size(c.k_dim));
  support::for_each_token(view, [&](auto s, auto h, auto t) {
    view.load_k(s, h, t, key.data());
    double of_key = 0;
    for (float const x : key) of_key += std::abs(x) * c.query_scale / std::sqrt(c.k_dim);
    support::keep_worst(sum, of_key);
  });
  support::reference_results const expected(problem);
  support::for_each_kernel([&](auto const& kernel) {
    attention_call<float> call(problem);
    REQUIRE(call.forward(kernel, view).ok());
    auto const check = [](auto const& got, auto const& naive, auto const& exact, double more) {
      support::tensor_distance const mine(got, exact), yardstick(naive, exact);
      CHECK(mine.error <= 2 * yardstick.error + 0x1p-24 * (yardstick.magnitude + more));
    };
    auto const& [naive, exact] = expected;
    check(call.lse, naive.lse, exact.lse, sum);
    check(call.out, naive.out, exact.out,
          (1 + 2 * sum) * support::tensor_distance(exact.out, exact.out).magnitude);
  });
}

TEST_CASE("kernels: head scales of fp8 from the least to the greatest") {
  using problem_type = support::attention_problem<fp8_codec>;
  struct {
    float k, v;
    double scale;
  } const sizes[] = {{0x1p-117f, 0x1p-117f, 1e34}, {0x1p-117f, 1, 1},
                     {0x1p110f, 0x1p110f, 1e-34},  {1, 0x1p110f, 1},
                     {0x1p110f, 1, 1e-37},         {0x1p-126f, 0x1p-126f, 1e37}};
  for (auto const& size : sizes)
    for (double const softcap : {0.0, 3.0}) {
      attention_case c{"", {90, 40}, {1, 20}, 8, 2, 64, 80};
      c.name = std::to_string(std::log2(size.k)) + " " + std::to_string(std::log2(size.v));
      c.rule.scale = size.scale;
      c.rule.softcap = softcap;
      support::check_bound<problem_type>(c, [&](problem_type& problem) {
        auto const view = problem.view();
        change_scales(view.k, view, size.k);
        change_scales(view.v, view, size.v);
        for (auto& x : problem.d_out()) x *= 1e-30f;  // else gradients are infinite
      });
    }
}

TEST_CASE("kernels: scales of int4 that are subnormal or large") {
  auto const check = []<class K, class V>(strata::codec_pair<K, V>) {
    using problem_type = support::attention_problem<K, V>;
    for (float const size : {0x1p-24f, 0x1p-21f, 3e4f, 4e5f}) {
      attention_case c{"", {90, 40}, {1, 20}, 8, 2, 96, 80};
      c.name = std::to_string(size);
      c.rule.scale = 0.1 / size;
      support::check_bound<problem_type>(c, [&](problem_type& problem) {
        auto const view = problem.view();
        support::for_each_token(view, [&](auto s, auto h, auto t) {
          auto const seed = as_size((s * 2 + h) * 1000 + t);
          problem.write_k(s, h, t, support::random_values<float>(view.k_dim, seed, size));
          problem.write_v(s, h, t, support::random_values<float>(view.v_dim, seed + 7, size));
        });
      });
    }
  };
  check(strata::codec_pair<int4_codec>());
  check(strata::codec_pair<rot_int4_codec, int4_codec>());
}

TEST_CASE("kernels: what stands out in one element of K, rotated") {
  using problem_type = support::attention_problem<rot_int4_codec, int4_codec>;
  for (std::int32_t const dim : {80, 100, 128, 320})
    for (std::int32_t const rows : {1, 40}) {
      attention_case c{std::to_string(dim), {90}, {rows}, 2, 1, dim, 64};
      support::check_bound<problem_type>(c, [&](problem_type& problem) {
        support::for_each_token(problem.view(), [&](auto s, auto h, auto t) {
          auto key = support::random_values<float>(dim, as_size(h * 1000 + t));
          key[as_size(dim - 1)] = 50 + key[as_size(dim - 1)];
          problem.write_k(s, h, t, key);
        });
      });
    }
}
