// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What a call refuses before any kernel looks at it, and the strides of gradients.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>

#include <strata/attention/query.hpp>
#include <strata/cache/view.hpp>

#include "support/print.hpp"

using strata::errc;
using strata::status;
using strata::tensor;

namespace {

float numbers[64];
constexpr std::int32_t late_offsets[] = {1, 2, 3};

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
  CHECK(with(late) == status{errc::offsets_not_from_zero, {}, 1, 0});
  CHECK(with(early) == status{errc::offsets_not_from_zero, {}, -1, 0});
  CHECK(with(back) == status{errc::offsets_descend, {}, 1, 2});
}

TEST_CASE("lengths that the view has no room for are refused with the call") {
  static constexpr std::int32_t good[] = {3, 0}, negative[] = {3, -1}, beyond[] = {4, 3};
  auto const with = [](std::int32_t const* lengths) {
    return refusal([&](auto& c) { c.view.rows.lengths = lengths; });
  };
  CHECK(with(good).ok());
  CHECK(with(negative) == status{errc::length_beyond_blocks, {}, -1, 3});
  CHECK(with(beyond) == status{errc::length_beyond_blocks, {}, 4, 3});
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
    CHECK(scale(bad) == status{errc::bad_scale});
    CHECK(softcap(bad) == status{errc::bad_softcap});
  }
  CHECK(refusal<double>([](auto& c) { c.q.rule.scale = c.q.rule.softcap = 1e300; }).ok());
  // A softcap that float does not hold would be none, one that it holds in part no longer itself.
  CHECK(softcap(1e-50) == status{errc::bad_softcap});
  CHECK(softcap(1e-40) == status{errc::bad_softcap});
  CHECK(softcap(static_cast<double>((std::numeric_limits<float>::min)())).ok());
  CHECK(refusal<double>([](auto& c) { c.q.rule.softcap = 1e-50; }).ok());
  CHECK(refusal<double>([](auto& c) { c.q.rule.softcap = 1e-310; }) == status{errc::bad_softcap});
  CHECK(refusal<double>([&](auto& c) { c.q.rule.softcap = infinity; }).code == errc::bad_softcap);
}

TEST_CASE("what is missing or out of range is named") {
  auto const sentence = [](auto change, strata::layer_id layer = {}) {
    auto s = refusal(change);
    s.layer = layer;
    return std::string(describe(s).c_str());
  };
  CHECK(sentence([](auto& c) { c.q.q = nullptr; }) == "q is null");
  CHECK(sentence([](auto& c) { c.q.out = nullptr; }, {3}) == "layer 3: out is null");
  CHECK(sentence([](auto& c) { c.q.rule.window = -1; }, {3}) ==
        "layer 3: the window of the rule is -1; at least 1 is needed");
  CHECK(sentence([](auto& c) { c.q.key_begin = -5, c.q.key_end = 2; }) ==
        "keys from -5 to 2 are no range: 0 <= key_begin <= key_end");
  CHECK(sentence([](auto& c) { c.q.num_seqs = 3; }) ==
        "the queries are those of 3 sequences, the view has 2");
  CHECK(sentence([](auto& c) { c.q.q_heads = 0; }, {0}) ==
        "layer 0: q_heads is 0; a multiple of the 1 KV heads is needed, and not 0");
  CHECK(sentence([](auto& c) { c.q.offsets = late_offsets; }) ==
        "the offsets of query rows begin with 1; the first is 0");
}

TEST_CASE("a backward call needs what forward wrote, and both gradients") {
  call<float> c;
  float lse[4] = {}, gradient[16] = {};
  c.q.lse = lse;
  CHECK(check(c.q, c.view, gradient, gradient).ok());
  CHECK(check<float>(c.q, c.view, nullptr, gradient) == null_pointer(tensor::d_out));
  CHECK(check<float>(c.q, c.view, gradient, nullptr) == null_pointer(tensor::d_q));
  c.q.lse = nullptr;
  CHECK(check(c.q, c.view, gradient, gradient) == null_pointer(tensor::lse));
  c.q.rows_per_seq = 0;
  CHECK(check<float>(c.q, c.view, nullptr, nullptr).ok());
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
  static_assert(state == status{errc::offsets_not_from_zero, {}, 1, 0});
}

TEST_CASE("strides of gradients are 64-bit from the first factor on") {
  constexpr auto grad =
      strata::kv_grad<float>::dense(nullptr, nullptr, 1 << 20, 1 << 12, 1 << 8, 1 << 4);
  static_assert(grad.dk_stride.seq == std::int64_t{1} << 40);
  static_assert(grad.dk_stride.token == 1 << 20 && grad.dk_stride.head == 1 << 8);
  static_assert(grad.dv_stride.seq == std::int64_t{1} << 36);
  static_assert(grad.dv_stride.token == 1 << 16 && grad.dv_stride.head == 1 << 4);
}
