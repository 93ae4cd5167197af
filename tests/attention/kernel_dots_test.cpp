// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Queries of bfloat16 on K of bfloat16, which processors with dot products of them multiply as they
// are: against the reference, where such products lose what a float keeps, and whom that concerns.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include <strata/attention/cpu/attention.hpp>
#include <strata/attention/cpu/row_reader.hpp>
#include <strata/cache/codec.hpp>
#include <strata/cache/element.hpp>

#include "support/attention_cases.hpp"
#include "support/half_checks.hpp"
#include "support/sanitized.hpp"

namespace {

using strata::bf16_codec;
using strata::bfloat16;
using support::as_size;
using support::attention_case;
using support::half_call;
using support::same_bits;
using support::sampled;
using problem_bf16 = support::attention_problem<bf16_codec>;
using dots = strata::cpu::detail::dot_reader<bfloat16, bf16_codec>;

#if defined(__AVX512F__) && defined(__AVX512BF16__) && !defined(__AVX512FP16__)
#define STRATA_TEST_DOTS
static_assert(dots::exists);
#endif
static_assert(!strata::cpu::detail::dot_reader<float, bf16_codec>::exists);
static_assert(!strata::cpu::detail::dot_reader<bfloat16, strata::f16_codec>::exists);

/// One row, three, and as many as are streamed, beside a sequence that is not.
attention_case case_of_dots(std::int32_t dim, std::int32_t group) {
  attention_case c{"", {70, 600, 33, 40}, {1, 3, 32 / group, 40}, 2 * group, 2, dim, 64};
  c.name = std::to_string(dim) + " group " + std::to_string(group);
  return c;
}

/// All queries times `of_q`, all K times `of_k`, and what scale makes scores of a sensible size.
void multiply_problem(problem_bf16& problem, float of_q, float of_k) {
  for (auto& x : problem.queries()) x *= of_q;
  auto const view = problem.view();
  std::vector<float> key(as_size(view.k_dim));
  support::for_each_token(view, [&](auto s, auto h, auto t) {
    view.load_k(s, h, t, key.data());
    for (auto& x : key) x *= of_k;
    problem.write_k(s, h, t, key);
  });
  support::round_queries<bfloat16>(problem);
}

struct dotted_outcome {
  std::vector<float> out, lse;

  explicit dotted_outcome(problem_bf16& problem, std::int32_t shares = 1) {
    half_call<bfloat16> call(problem);
    REQUIRE(call.forward(strata::cpu::attention{}, problem.view(), shares).ok());
    out = call.out(), lse = call.lse();
  }
  /// Whether query head `head` of a row is the same in both, to the bit.
  bool same(dotted_outcome const& other, attention_case const& c, std::int32_t row,
            std::int32_t head) const {
    auto const pair = row * c.q_heads + head;
    auto const part = [&](std::vector<float> const& x, std::int32_t size) {
      auto const first = x.begin() + std::int64_t{pair} * size;
      return std::vector<float>(first, first + size);
    };
    return same_bits(part(out, c.v_dim), part(other.out, c.v_dim)) &&
           same_bits(part(lse, 1), part(other.lse, 1));
  }
};

/// What `change` makes of KV head 1 of sequence 1 concerns nobody else.
template <class Change>
void check_others(attention_case const& c, Change&& change) {
  problem_bf16 before(c), after(c);
  support::round_queries<bfloat16>(before);
  change(after);
  support::round_queries<bfloat16>(after);
  dotted_outcome const a(before, 3), b(after, 3);
  auto const group = c.q_heads / c.kv_heads;
  std::int32_t others = 0;
  for (std::int32_t s = 0; s < before.num_seqs(); ++s)
    for (auto row = before.offsets()[as_size(s)]; row < before.offsets()[as_size(s) + 1]; ++row)
      for (std::int32_t head = 0; head < c.q_heads; ++head)
        if (s != 1 || head / group != 1) others += !a.same(b, c, row, head);
  CHECK(others == 0);
}

/// Element `i` of a query of sequence 1 and KV head 1.
float& query_of_one(problem_bf16& problem, std::int32_t i) {
  auto const& c = problem.shape();
  auto const pair = problem.offsets()[1] * c.q_heads + c.q_heads / c.kv_heads;
  return problem.queries()[as_size(pair * c.k_dim + i)];
}

}  // namespace

TEST_CASE("attention: bfloat16 queries on bfloat16 K") {
  for (auto const dim : sampled<std::int32_t>({3, 64, 80, 96, 100, 128, 256}, 4))
    for (auto const group : sampled<std::int32_t>({1, 4, 8}, 1)) {
      auto c = case_of_dots(dim, group);
      support::check_half<bfloat16, bf16_codec>(c);
      c.rule.window = 50, c.name += " window";
      support::check_half<bfloat16, bf16_codec>(c);
      c.rule = {.softcap = 1.5}, c.sinks = true, c.name += " softcap";
      support::check_half<bfloat16, bf16_codec>(c);
    }
}

TEST_CASE("attention: bfloat16 queries and K, small and large ones") {
  struct sizes_of {
    float q, k;
    double scale;
  };
  std::vector<sizes_of> const all = {
      {0x1p-130f, 0x1p126f, 1},  // queries that are denormal, with weight
      {0x1p126f, 0x1p-130f, 1},  // K
      {0x1p70f, 0x1p-130f, 1e18}, {0x1p76f, 0x1p-130f, 1},  // K, below all rounding
      {0x1p79f, 0x1p-80f, 1},                               // large ones, but below 2^80, and above
      {0x1p82f, 0x1p-80f, 1},     {1e30f, 1e-30f, 0},
      {0x1p-125f, 0x1p124f, 0},  // a few of these are denormal
      {0x1p-70f, 0x1p-70f, 1e38}, {0x1p-20f, 0x1p-90f, 1e33},
  };
  for (auto const size : sampled(all))
    for (std::int32_t const dim : {64, 100}) {
      CAPTURE(size.q);
      CAPTURE(size.k);
      auto c = case_of_dots(dim, 4);
      c.rule.scale = size.scale;
      problem_bf16 problem(c, 2);
      multiply_problem(problem, size.q, size.k);
      CHECK(support::half_excess<bfloat16>(problem) <= 1);
    }
}

TEST_CASE("attention: a bfloat16 query that is denormal or huge in one head alone") {
  for (auto const number :
       sampled<float>({0x1p-130f, -0x1p-133f, 0x1p81f, 1e38f, -0.0f, INFINITY, NAN}, 6)) {
    CAPTURE(number);
    auto const c = case_of_dots(96, 4);
    check_others(c, [&](problem_bf16& problem) { query_of_one(problem, 7) = number; });
    problem_bf16 problem(c);
    query_of_one(problem, 7) = number;
    support::round_queries<bfloat16>(problem);
    CHECK(support::half_excess<bfloat16>(problem) <= 1);
  }
}

TEST_CASE("attention: infinities, NaN and large numbers in K of bfloat16") {
  for (auto const number : sampled<float>({NAN, INFINITY, -INFINITY, 1e37f, -1e37f, 0x1p-133f}, 1))
    for (auto const token : sampled<std::int32_t>({0, 40, 599}, 1))
      for (auto const element : sampled<std::int32_t>({0, 1, 66, 99}, 2)) {
        CAPTURE(number);
        CAPTURE(token);
        CAPTURE(element);
        auto const c = case_of_dots(100, 4);
        auto const change = [&](problem_bf16& problem) {
          std::vector<float> key(as_size(c.k_dim));
          problem.view().load_k(1, 1, token, key.data());
          key[as_size(element)] = number;
          problem.write_k(1, 1, token, key);
        };
        check_others(c, change);
        problem_bf16 problem(c);
        change(problem);
        support::round_queries<bfloat16>(problem);
        CHECK(support::half_excess<bfloat16>(problem) <= 1);
        for (auto& x : problem.queries()) x = x > 0 ? x : 0.0f;  // 0 * infinity
        CHECK(support::half_excess<bfloat16>(problem) <= 1);
      }
}

TEST_CASE("attention: bits of bfloat16 queries, alone and in a batch, by any number of shares") {
  for (std::int32_t const group : {1, 4, 8}) {
    auto const c = case_of_dots(128, group);
    problem_bf16 problem(c);
    support::round_queries<bfloat16>(problem);
    dotted_outcome const whole(problem);
    for (std::int32_t const shares : {2, 3, 4}) {
      dotted_outcome const other(problem, shares);
      CHECK(same_bits(whole.out, other.out));
      CHECK(same_bits(whole.lse, other.lse));
    }
    auto view = problem.view();
    half_call<bfloat16> first(problem);
    first.rows.num_seqs = view.rows.num_seqs = 1;
    REQUIRE(first.forward(strata::cpu::attention{}, view).ok());
    auto const n = static_cast<std::ptrdiff_t>(c.q_heads) * c.v_dim;
    CHECK(std::equal(whole.out.begin(), whole.out.begin() + n, first.out().begin()));
  }
}

#if defined(STRATA_TEST_DOTS)
TEST_CASE("attention: which bfloat16 queries are multiplied as they are") {
  auto const takes = [](std::uint32_t bits) {
    bfloat16 const row[3] = {{0x3F80}, {static_cast<std::uint16_t>(bits)}, {0xBF80}};
    return dots::takes(row, 3);
  };
  std::int32_t wrong = 0;
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    auto const x = std::abs(strata::to_float(bfloat16{static_cast<std::uint16_t>(bits)}));
    wrong += takes(bits) != (x == 0 || (x >= 0x1p-126f && x <= 0x1p80f));
  }
  CHECK(wrong == 0);
}
#endif
