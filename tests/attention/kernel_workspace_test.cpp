// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A workspace for the largest of many calls serves all of them: a larger call of the same kind never
// needs less, whichever way it is larger.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <strata/cache/codec.hpp>
#include <strata/cache/int8_codec.hpp>
#include <strata/cache/view.hpp>

#include "attention/kernel_instances.hpp"
#include "support/cpu_kernels.hpp"
#include "support/exact_numbers.hpp"

namespace {

/// What of a call the size of its workspace may depend on. Nothing is read but lengths.
struct call_size {
  std::int32_t q_heads = 1, kv_heads = 1, k_dim = 1, v_dim = 1;  // its kind
  std::vector<std::int32_t> rows, lengths;                       // [num_seqs]
  std::int32_t shares = 1;

  template <class T, class Kernel, class View>
  std::vector<std::int64_t> bytes(Kernel const& kernel, View view) const {
    std::vector<std::int32_t> offsets = {0};
    for (auto const n : rows) offsets.push_back(offsets.back() + n);
    strata::query_rows<T> q;
    q.offsets = offsets.data();
    q.num_seqs = view.rows.num_seqs = static_cast<std::int32_t>(rows.size());
    q.q_heads = q_heads;
    view.rows.lengths = lengths.data();
    view.kv_heads = kv_heads;
    view.k_dim = k_dim;
    view.v_dim = v_dim;
    return {kernel.workspace_bytes(q, view, shares),
            kernel.backward_workspace_bytes(q, view, shares)};
  }
};

/// A call of up to 4 sequences, often on an edge between what is streamed, tiled and split.
call_size draw_call(support::number_stream& stream) {
  constexpr std::int32_t groups[] = {1, 2, 4, 7, 16};
  constexpr std::int32_t dims[] = {1, 20, 64, 80, 128, 129};
  constexpr std::int32_t lengths[] = {0, 1, 64, 511, 512, 513, 1024, 1025, 5000};
  call_size c;
  c.kv_heads = 1 + stream.below(9);
  c.q_heads = c.kv_heads * groups[stream.below(5)];
  c.k_dim = dims[stream.below(6)];
  c.v_dim = dims[stream.below(6)];
  for (auto n = stream.below(5); n > 0; --n) {
    c.rows.push_back(stream.below(4) == 0 ? 0 : stream.below(65));
    c.lengths.push_back(lengths[stream.below(9)]);
  }
  c.shares = 1 + stream.below(20);
  return c;
}

/// Larger in one way.
call_size enlarge(call_size c, support::number_stream& stream) {
  auto const way = c.rows.empty() ? 2 + stream.below(2) : stream.below(4);
  auto const seq = c.rows.empty() ? 0 : stream.below(static_cast<std::int32_t>(c.rows.size()));
  auto const at = static_cast<std::size_t>(seq);
  if (way == 0) c.rows[at] += 1 + stream.below(3);
  if (way == 1) c.lengths[at] += 1 + stream.below(600);
  if (way == 2) {  // one sequence more, before another one or behind all
    c.rows.insert(c.rows.begin() + seq, stream.below(65));
    c.lengths.insert(c.lengths.begin() + seq, stream.below(1100));
  }
  if (way == 3) c.shares += 1 + stream.below(3);
  return c;
}

/// From an empty or a small call on, in steps.
template <class T, class View>
void check_never_less(View const& view) {
  support::for_each_kernel([&](auto const& kernel) {
    support::number_stream stream(7);
    std::int64_t less = 0;
    for (int walk = 0; walk < 300; ++walk) {
      auto call = draw_call(stream);
      auto before = call.bytes<T>(kernel, view);
      for (int step = 0; step < 20; ++step) {
        call = enlarge(call, stream);
        auto const after = call.bytes<T>(kernel, view);
        for (std::size_t i = 0; i < 2; ++i) less += after[i] < before[i];
        before = after;
      }
    }
    CHECK(less == 0);
  });
}

/// Rows one by one, over the edge between streams and tiles.
template <class T, class View>
void check_rows(View const& view) {
  support::for_each_kernel([&](auto const& kernel) {
    for (std::int32_t const shares : {1, 2, 8})
      for (std::int32_t const group : {1, 3, 4, 16}) {
        call_size call{group * 2, 2, 128, 128, {1, 1}, {4096, 100}, shares};
        for (auto before = call.bytes<T>(kernel, view); call.rows[1] < 64;) {
          ++call.rows[1];
          auto const after = call.bytes<T>(kernel, view);
          CHECK(after[0] >= before[0]);
          CHECK(after[1] >= before[1]);
          before = after;
        }
      }
  });
}

}  // namespace

TEST_CASE("kernels: a larger call never needs a smaller workspace") {
  check_never_less<float>(strata::kv_view<strata::f32_codec>{});
  check_never_less<float>(strata::kv_view<strata::bf16_codec, strata::int8_codec>{});
  check_never_less<double>(strata::kv_view<strata::f64_codec>{});
}

TEST_CASE("kernels: one row more never needs a smaller workspace") {
  check_rows<float>(strata::kv_view<strata::f16_codec>{});
  check_rows<double>(strata::kv_view<strata::f32_codec>{});
}
