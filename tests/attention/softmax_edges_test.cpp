// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The edge cases of the online softmax and of merging, one by one.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include <strata/attention/online_softmax.hpp>

#include "support/single_query.hpp"

namespace {

using support::merge_into;
using support::online;
using support::outcome;
using support::single_dim;

template <class A>
constexpr A inf = std::numeric_limits<A>::infinity();
template <class A>
constexpr A quiet_nan = std::numeric_limits<A>::quiet_NaN();

template <class A>
bool all_nan(outcome<A> const& o) {
  return std::isnan(o.lse) &&
         std::all_of(o.out, o.out + single_dim, [](A x) { return std::isnan(x); });
}

template <class A>
bool same_outcome(outcome<A> const& a, outcome<A> const& b) {
  return a.lse == b.lse && std::equal(a.out, a.out + single_dim, b.out);
}

/// A side that saw no key; its output is whatever memory held before.
template <class A>
outcome<A> unseen() {
  return {{quiet_nan<A>, inf<A>, 7}, -inf<A>};
}

}  // namespace

TEST_CASE_TEMPLATE("an update says what old sums and the new value count", A, float, double) {
  strata::softmax_state<A> state;
  auto u = state.add(2);
  CHECK(u.rescale == 0);  // nothing was there
  CHECK(u.weight == 1);
  u = state.add(1);
  CHECK(u.rescale == 1);
  CHECK(u.weight == std::exp(A{-1}));
  u = state.add(4);
  CHECK(u.rescale == std::exp(A{-2}));
  CHECK(u.weight == 1);
  CHECK(state.max == 4);
  CHECK(state.sum == (1 + std::exp(A{-1})) * std::exp(A{-2}) + 1);
  u = state.add(4);
  CHECK(u.rescale == 1);
  CHECK(u.weight == 1);
}

TEST_CASE_TEMPLATE("equal scores are counted exactly", A, float, double) {
  strata::softmax_state<A> state;
  for (int i = 1; i <= 1000; ++i) state.add(A{-3.25});
  CHECK(state.sum == 1000);
  CHECK(state.max == A{-3.25});
  CHECK(state.lse() == A{-3.25} + std::log(A{1000}));
}

TEST_CASE_TEMPLATE("no key, or masked ones only: empty, -inf and zeros", A, float, double) {
  strata::softmax_state<A> state;
  CHECK(state.empty());
  CHECK(state.lse() == -inf<A>);
  for (int i = 0; i < 3; ++i) {
    auto const u = state.add(-inf<A>);
    CHECK(u.rescale == 1);
    CHECK(u.weight == 0);
  }
  CHECK(state.empty());
  CHECK(state.max == -inf<A>);
  CHECK(state.sum == 0);
  CHECK(state.lse() == -inf<A>);
  state.add(5);
  CHECK_FALSE(state.empty());
  CHECK(state.lse() == 5);
}

TEST_CASE_TEMPLATE("a masked key changes no bit", A, float, double) {
  strata::softmax_state<A> state;
  for (A const score : {A{1}, A{3}, A{2}}) state.add(score);
  auto const before = state;
  auto const u = state.add(-inf<A>);
  CHECK(u.rescale == 1);
  CHECK(u.weight == 0);
  CHECK(state.max == before.max);
  CHECK(state.sum == before.sum);
}

TEST_CASE_TEMPLATE("a score that is NaN or +inf makes the row NaN, wherever it stands", A, float,
                   double) {
  for (A const bad : {quiet_nan<A>, inf<A>})
    for (std::size_t const n : {1u, 2u, 5u})
      for (std::size_t at = 0; at < n; ++at)
        for (auto const masked_rest : {false, true}) {
          support::keys<A> k{std::vector<A>(n, A{2}), std::vector<A>(n * single_dim, A{1})};
          if (masked_rest) std::fill(k.scores.begin(), k.scores.end(), -inf<A>);
          k.scores[at] = bad;
          CHECK(all_nan(online(k)));
        }
}

TEST_CASE_TEMPLATE("decay is 0 where nothing was seen, and never hides a NaN", A, float, double) {
  using state = strata::softmax_state<A>;
  CHECK(state::decay(-inf<A>, -inf<A>) == 0);
  CHECK(state::decay(-inf<A>, 5) == 0);
  CHECK(state::decay(5, 5) == 1);
  CHECK(state::decay(3, 5) == std::exp(A{-2}));
  CHECK(state::decay(-1e30f, 1e30f) == 0);
  CHECK(std::isnan(state::decay(quiet_nan<A>, 1)));
  CHECK(std::isnan(state::decay(1, quiet_nan<A>)));
}

TEST_CASE_TEMPLATE("a side that saw nothing counts nothing, whatever its output holds", A, float,
                   double) {
  outcome<A> const seen{{A{0.125}, A{-2}, A{3e7}}, A{1.5}};
  auto a = seen;
  merge_into(a, unseen<A>());
  CHECK(same_outcome(a, seen));
  auto b = unseen<A>();
  merge_into(b, seen);
  CHECK(same_outcome(b, seen));
  auto neither = unseen<A>();
  merge_into(neither, unseen<A>());
  CHECK(same_outcome(neither, outcome<A>{}));
}

TEST_CASE_TEMPLATE("a NaN on either side is not hidden, not even by an empty one", A, float,
                   double) {
  outcome<A> const seen{{1, 2, 3}, A{0.5}};
  for (A const bad_lse : {quiet_nan<A>, inf<A>}) {
    outcome<A> const bad{{quiet_nan<A>, quiet_nan<A>, quiet_nan<A>}, bad_lse};
    for (auto const& other : {seen, bad, outcome<A>{}}) {
      auto a = bad, b = other;
      merge_into(a, other);
      merge_into(b, bad);
      CHECK(all_nan(a));
      CHECK(all_nan(b));
    }
  }
}

TEST_CASE_TEMPLATE("the weights of a merge are the shares of the sums", A, float, double) {
  auto const even = strata::weigh(A{3}, A{3});
  CHECK(even.a == A{0.5});
  CHECK(even.b == A{0.5});
  CHECK(even.lse == 3 + std::log(A{2}));
  auto const uneven = strata::weigh(std::log(A{3}), A{0});
  CHECK(uneven.a == doctest::Approx(0.75));
  CHECK(uneven.b == doctest::Approx(0.25));
  CHECK(uneven.lse == doctest::Approx(std::log(4.0)));
  auto const far = strata::weigh(A{1e4}, A{-1e4});
  CHECK(far.a == 1);
  CHECK(far.b == 0);
  CHECK(far.lse == A{1e4});
  auto const none = strata::weigh(-inf<A>, -inf<A>);
  CHECK(none.a == 0);
  CHECK(none.b == 0);
  CHECK(none.lse == -inf<A>);
}

TEST_CASE("a merge writes dim elements and no more, and float outputs may have double sums") {
  float out[] = {1, 2, 77};
  float const other[] = {3, 4, 5};
  double lse = 0;
  strata::merge(out, lse, other, 0.0, 2);
  CHECK(out[0] == 2);
  CHECK(out[1] == 3);
  CHECK(out[2] == 77);
  CHECK(lse == std::log(2.0));
  strata::merge(out, lse, other, 0.0, 0);
  CHECK(out[0] == 2);
  CHECK(lse == doctest::Approx(std::log(3.0)));
}
