// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What a call refuses before any kernel looks at it, and the strides of gradients.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <limits>

#include <strata/attention/query.hpp>
#include <strata/cache/view.hpp>

#include "support/print.hpp"

using strata::errc;
using strata::status;

namespace {

float numbers[64];

/// Two sequences of 3 tokens with one query each, 2 query heads on 1 KV head.
template <class T>
struct call {
  strata::query_rows<T> q;
  strata::kv_view<strata::f32_codec> view =
      strata::contiguous_view(numbers, numbers, 2, 3, 1, 4, 4);

  call() {
    static T queries[16], out[16];
    q.q = queries;
    q.out = out;
    q.num_seqs = 2;
    q.q_heads = 2;
  }
};

template <class T = float, class Change>
status refusal(Change change) {
  call<T> c;
  change(c);
  return check(c.q, c.view);
}

}  // namespace

TEST_CASE("rows begin at 0 and ascend") {
  static constexpr std::int32_t good[] = {0, 1, 1}, late[] = {1, 2, 3}, early[] = {-1, 0, 1};
  static constexpr std::int32_t back[] = {0, 2, 1};
  auto const with = [](std::int32_t const* offsets) {
    return refusal([&](auto& c) { c.q.offsets = offsets; });
  };
  CHECK(with(nullptr).ok());
  CHECK(with(good).ok());
  CHECK(with(late) == status{errc::shape_mismatch, {}, 1, 0});
  CHECK(with(early) == status{errc::shape_mismatch, {}, -1, 0});
  CHECK(with(back) == status{errc::shape_mismatch, {}, 1, 2});
}

TEST_CASE("lengths that the view has no room for are refused with the call") {
  static constexpr std::int32_t good[] = {3, 0}, negative[] = {3, -1}, beyond[] = {4, 3};
  auto const with = [](std::int32_t const* lengths) {
    return refusal([&](auto& c) { c.view.rows.lengths = lengths; });
  };
  CHECK(with(good).ok());
  CHECK(with(negative) == status{errc::shape_mismatch, {}, -1, 3});
  CHECK(with(beyond) == status{errc::shape_mismatch, {}, 4, 3});
}

TEST_CASE("scale and softcap are finite, in the type that scores are made in") {
  auto const scale = [](double x) { return refusal([&](auto& c) { c.q.rule.scale = x; }); };
  auto const softcap = [](double x) { return refusal([&](auto& c) { c.q.rule.softcap = x; }); };
  double const infinity = std::numeric_limits<double>::infinity();
  CHECK(scale(0).ok());
  CHECK(scale(0.5).ok());
  CHECK(softcap(30).ok());
  for (double const bad : {-1.0, -infinity, infinity, std::nan(""), 1e300}) {
    CAPTURE(bad);
    CHECK(scale(bad) == status{errc::not_finite, {}, 0, 0});
    CHECK(softcap(bad) == status{errc::not_finite, {}, 1, 0});
  }
  CHECK(refusal<double>([](auto& c) { c.q.rule.scale = c.q.rule.softcap = 1e300; }).ok());
  CHECK(refusal<double>([&](auto& c) { c.q.rule.softcap = infinity; }).code == errc::not_finite);
}

TEST_CASE("a call is checked at compile time as well") {
  static constexpr std::int32_t offsets[] = {1, 1};
  constexpr auto state = [] {
    strata::query_rows<float> q;
    q.offsets = offsets;
    q.q_heads = 1;
    strata::kv_view<strata::f32_codec> view;
    view.kv_heads = view.k_dim = view.v_dim = 1;
    return check(q, view);
  }();
  static_assert(state == status{errc::shape_mismatch, {}, 1, 0});
}

TEST_CASE("strides of gradients are 64-bit from the first factor on") {
  constexpr auto grad =
      strata::kv_grad<float>::dense(nullptr, nullptr, 1 << 20, 1 << 12, 1 << 8, 1 << 4);
  static_assert(grad.dk_stride.seq == std::int64_t{1} << 40);
  static_assert(grad.dk_stride.token == 1 << 20 && grad.dk_stride.head == 1 << 8);
  static_assert(grad.dv_stride.seq == std::int64_t{1} << 36);
  static_assert(grad.dv_stride.token == 1 << 16 && grad.dv_stride.head == 1 << 4);
}
