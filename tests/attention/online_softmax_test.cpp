// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The online softmax against the plain formula in long double, in one go and in merged parts.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <random>
#include <vector>

#include <strata/attention/online_softmax.hpp>

#include "support/single_query.hpp"

namespace {

using support::keys;
using support::merge_into;
using support::online;
using support::outcome;
using support::single_dim;

using oracle_t = long double;

/// The plain formula: all scores at once, in long double.
template <class A>
outcome<oracle_t> plain(keys<A> const& k) {
  outcome<oracle_t> o;
  oracle_t max = -HUGE_VALL, sum = 0;
  for (oracle_t const s : k.scores) max = std::max(max, s);
  if (max == -HUGE_VALL) return o;
  for (std::size_t j = 0; j < k.scores.size(); ++j) {
    auto const weight = std::exp(oracle_t{k.scores[j]} - max);
    sum += weight;
    for (std::size_t i = 0; i < single_dim; ++i) o.out[i] += weight * k.values[j * single_dim + i];
  }
  for (auto& x : o.out) x /= sum;
  o.lse = max + std::log(sum);
  return o;
}

/// n roundings of values of at most 1 and a few of each exp. A merge also sees each lse only as
/// finely as its type holds it, and that error is the relative one of a weight.
template <class A>
bool close(outcome<A> const& got, outcome<oracle_t> const& expected, std::size_t n,
           int merges = 0) {
  auto const lse = expected.lse == -HUGE_VALL ? 0 : std::abs(expected.lse);
  auto const epsilon = oracle_t{std::numeric_limits<A>::epsilon()};
  auto const bound = epsilon * (static_cast<oracle_t>(n + 8) + 2 * merges * lse);
  bool right = got.lse == expected.lse || std::abs(got.lse - expected.lse) <= bound + epsilon * lse;
  for (int i = 0; i < single_dim; ++i)
    right = right && std::abs(got.out[i] - expected.out[i]) <= bound;
  return right;
}

enum class score_shape { random, ascending, descending, wide, huge, equal, mostly_masked };
constexpr score_shape score_shapes[] = {
    score_shape::random, score_shape::ascending, score_shape::descending,   score_shape::wide,
    score_shape::huge,   score_shape::equal,     score_shape::mostly_masked};

template <class A>
keys<A> make_keys(score_shape s, std::size_t n, unsigned seed) {
  std::mt19937 bits(seed);
  std::uniform_real_distribution<double> unit(-1, 1);
  keys<A> k;
  for (std::size_t j = 0; j < n; ++j) {
    auto score = 8 * unit(bits);
    if (s == score_shape::wide) score *= 40;   // most weights vanish
    if (s == score_shape::huge) score += 1e3;  // beyond what exp can take
    if (s == score_shape::equal) score = -2.5;
    if (s == score_shape::mostly_masked && bits() % 4 != 0) score = -HUGE_VAL;
    k.scores.push_back(static_cast<A>(score));
    for (int i = 0; i < single_dim; ++i) k.values.push_back(static_cast<A>(unit(bits)));
  }
  if (s == score_shape::ascending) std::sort(k.scores.begin(), k.scores.end());
  if (s == score_shape::descending) std::sort(k.scores.rbegin(), k.scores.rend());
  return k;
}

}  // namespace

TEST_CASE_TEMPLATE("keys one by one give what the plain formula gives", A, float, double) {
  for (auto const s : score_shapes)
    for (std::size_t const n : {1u, 2u, 3u, 17u, 200u}) {
      auto const k = make_keys<A>(s, n, static_cast<unsigned>(n));
      CAPTURE(static_cast<int>(s));
      CAPTURE(n);
      CHECK(close(online(k), plain(k), n));
    }
}

TEST_CASE_TEMPLATE("any split, merged, gives what one call gives", A, float, double) {
  constexpr std::size_t n = 40;
  for (auto const s : score_shapes) {
    auto const k = make_keys<A>(s, n, 1);
    auto const expected = plain(k);
    CAPTURE(static_cast<int>(s));
    for (std::size_t cut = 0; cut <= n; ++cut) {
      auto a = online(k, 0, cut), b = online(k, cut, n);
      auto const first = a;
      merge_into(a, b);
      merge_into(b, first);
      CHECK(close(a, expected, n, 1));
      CHECK(close(b, expected, n, 1));
    }
  }
}

TEST_CASE_TEMPLATE("many parts merge in any order, from either side", A, float, double) {
  constexpr std::size_t n = 64;
  for (auto const s : score_shapes) {
    auto const k = make_keys<A>(s, n, 2);
    auto const expected = plain(k);
    CAPTURE(static_cast<int>(s));
    std::vector<outcome<A>> parts;
    for (std::size_t j = 0; j < n; j += 8) parts.push_back(online(k, j, j + 8));
    std::mt19937 bits(3);
    for (int round = 0; round < 20; ++round) {
      std::shuffle(parts.begin(), parts.end(), bits);
      auto left = parts[0], right = parts.back();
      for (std::size_t p = 1; p < parts.size(); ++p) merge_into(left, parts[p]);
      for (std::size_t p = parts.size() - 1; p-- > 0;) {
        auto lower = parts[p];  // a + (b + (c + ...))
        merge_into(lower, right);
        right = lower;
      }
      CHECK(close(left, expected, n, 7));
      CHECK(close(right, expected, n, 7));
    }
  }
}
