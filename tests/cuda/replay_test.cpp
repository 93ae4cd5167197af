// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What a captured graph needs: launches that were noted down once serve every later batch within
// their bounds, when nothing but memory behind their pointers has changed. They are noted down on
// numbers that mean nothing, because the host must not read what is the device's, and then run, on
// the host, for other lengths, rows, tables and positions, against the reference in double.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include <strata/attention/reference.hpp>
#include <strata/cache/codec.hpp>

#include "support/cache_tensor.hpp"
#include "support/half_call.hpp"
#include "support/print.hpp"
#include "support/sanitized.hpp"
#include "support/share_executor.hpp"
#include "support/simt_attention.hpp"

namespace {

using strata::bf16_codec;
using strata::bfloat16;
using support::as_size;

/// Notes launches down with their arguments, as a captured graph does.
struct recording_launcher {
  std::vector<std::function<strata::status(std::int32_t)>>* launches = nullptr;

  template <class Body, class Args>
  strata::status start(std::int64_t blocks, std::int32_t shared_bytes,
                       Args const& args) const noexcept {
    launches->push_back([=](std::int32_t number) {
      support::simt_launcher const launcher{simt::order_of(number), simt::arrival_of(number)};
      return launcher.start<Body>(blocks, shared_bytes, args);
    });
    return {};
  }
};

/// A batch, within bounds of 120 tokens and 80 rows of a sequence, 100 rows in all.
struct replayed_batch {
  std::vector<std::int32_t> lengths, rows;  // [3]
};
constexpr std::int32_t replayed_seqs = 3, most_replayed_tokens = 120, most_replayed_rows = 100,
                       most_rows_of_a_seq = 80;
constexpr std::int32_t replayed_q_heads = 8, replayed_kv_heads = 2, replayed_dim = 64;

/// All that a call reads and writes.
struct call_memory {
  support::cache_tensor<bf16_codec> k, v;
  std::vector<std::int32_t> lengths, offsets, positions;
  std::vector<bfloat16> q, out, d_out, d_q;  // [rows, q_heads, dim]
  std::vector<float> lse, dk, dv;            // [rows, q_heads], [seqs, tokens, kv_heads, dim]
  support::cache_layout layout;

  /// Numbers of its own for a batch. Rows and blocks of the cache lie in an order of their own.
  call_memory(replayed_batch const& b, support::cache_layout const& by, std::uint64_t seed)
      : layout(by) {
    k.build(layout, layout.k_block, replayed_seqs, most_replayed_tokens, replayed_kv_heads,
            replayed_dim, seed);
    v.build(layout, layout.v_block, replayed_seqs, most_replayed_tokens, replayed_kv_heads,
            replayed_dim, seed + 1);
    offsets.push_back(0);
    for (std::int32_t s = 0; s < replayed_seqs; ++s) {
      auto const length = b.lengths[as_size(s)], rows = b.rows[as_size(s)];
      lengths.push_back(length);
      offsets.push_back(offsets.back() + rows);
      for (std::int32_t i = 0; i < rows; ++i) positions.push_back(length - rows + i);
      for (std::int32_t h = 0; h < replayed_kv_heads; ++h)
        for (std::int32_t t = 0; t < length; ++t) {
          auto const number =
              seed * 1000 + as_size((s * replayed_kv_heads + h) * most_replayed_tokens + t);
          k.write(s, h, t, support::random_values<float>(replayed_dim, 2 * number));
          v.write(s, h, t, support::random_values<float>(replayed_dim, 2 * number + 1));
        }
    }
    positions.resize(as_size(most_replayed_rows), -1);
    auto const elements = std::int64_t{most_replayed_rows} * replayed_q_heads * replayed_dim;
    q = support::narrowed<bfloat16>(support::random_values<float>(elements, seed + 2, 2));
    d_out = support::narrowed<bfloat16>(support::random_values<float>(elements, seed + 3));
    out.resize(q.size(), nan), d_q.resize(q.size(), nan);
    lse.resize(as_size(most_replayed_rows * replayed_q_heads), NAN);
    dk.resize(as_size(std::int64_t{replayed_seqs} * most_replayed_tokens * replayed_kv_heads *
                      replayed_dim),
              NAN);
    dv.resize(dk.size(), NAN);
  }
  call_memory(call_memory const&) = delete;
  call_memory& operator=(call_memory const&) = delete;

  /// Takes the numbers of another batch, every one where it was.
  void become(call_memory const& other) {
    auto const take = [](auto& to, auto const& from) {
      REQUIRE(to.size() == from.size());
      std::copy(from.begin(), from.end(), to.begin());
    };
    auto const take_tensor = [&](auto& to, auto const& from) {
      take(to.memory, from.memory);
      take(to.table, from.table);
      take(to.row_of, from.row_of);
    };
    take_tensor(k, other.k);
    take_tensor(v, other.v);
    take(lengths, other.lengths), take(offsets, other.offsets), take(positions, other.positions);
    take(q, other.q), take(out, other.out), take(d_out, other.d_out), take(d_q, other.d_q);
    take(lse, other.lse), take(dk, other.dk), take(dv, other.dv);
  }
  /// Makes all tables such that who reads them is lost.
  void spoil() {
    for (auto* const table :
         {&lengths, &offsets, &positions, &k.table, &v.table, &k.row_of, &v.row_of})
      std::fill(table->begin(), table->end(), -0x7F7F7F7F);
  }

  strata::kv_view<bf16_codec> view() {
    strata::kv_view<bf16_codec> view;
    view.k = k.at;
    view.v = v.at;
    view.rows.num_seqs = replayed_seqs;
    view.rows.lengths = lengths.data();
    view.kv_heads = replayed_kv_heads;
    view.k_dim = view.v_dim = replayed_dim;
    return view;
  }
  template <class T, class A>
  strata::query_rows<T> rows(T const* queries, T* outputs, A* sums) {
    strata::query_rows<T> rows;
    rows.q = queries;
    rows.out = outputs;
    rows.lse = sums;
    rows.offsets = offsets.data();
    rows.positions = positions.data();
    rows.num_seqs = replayed_seqs;
    rows.q_heads = replayed_q_heads;
    rows.rule.window = 90;
    return rows;
  }
  template <class A>
  strata::kv_grad<A> grad(A* of_k, A* of_v) const {
    return strata::kv_grad<A>::dense(of_k, of_v, most_replayed_tokens, replayed_kv_heads,
                                     replayed_dim, replayed_dim);
  }

 private:
  static constexpr bfloat16 nan{0x7FC0};
};

using recording_kernel = strata::cuda::detail::attention_on<recording_launcher, replayed_dim>;

/// Launches of a call on some memory.
class recorded_call {
 public:
  recorded_call(call_memory& memory, bool backward, bool deterministic) {
    recording_kernel kernel;
    kernel.launcher.launches = &launches_;
    kernel.multiprocessors = 2;
    kernel.bounds = {.rows = most_replayed_rows, .rows_per_seq = most_rows_of_a_seq};
    kernel.deterministic = deterministic;
    auto const rows = memory.rows<bfloat16>(memory.q.data(), memory.out.data(), memory.lse.data());
    auto const view = memory.view();
    support::share_executor here;
    auto const forward = strata::attend(here, kernel, rows, view,
                                        forward_memory_.get(kernel.workspace_bytes(rows, view, 1)));
    REQUIRE(forward.ok());
    if (!backward) return;
    bfloat16 const* const d_out = memory.d_out.data();
    auto const done = strata::attend_backward(
        here, kernel, rows, view, d_out, memory.d_q.data(),
        memory.grad(memory.dk.data(), memory.dv.data()),
        backward_memory_.get(kernel.backward_workspace_bytes(rows, view, 1)));
    REQUIRE(done.ok());
  }
  /// Threads and copies in the order of that number.
  void replay(std::int32_t number) const {
    for (auto const& launch : launches_) REQUIRE(launch(number).ok());
  }
  std::size_t num_launches() const { return launches_.size(); }

 private:
  std::vector<std::function<strata::status(std::int32_t)>> launches_;
  support::workspace_memory forward_memory_, backward_memory_;
};

/// What the reference answers, in double.
struct exact_call {
  std::vector<double> q, out, lse, d_out, d_q, dk, dv;

  explicit exact_call(call_memory& m)
      : q(support::as_doubles(m.q)),
        out(q.size(), NAN),
        lse(m.lse.size(), NAN),
        d_out(support::as_doubles(m.d_out)),
        d_q(q.size(), NAN),
        dk(m.dk.size(), NAN),
        dv(m.dv.size(), NAN) {
    constexpr strata::reference_attention reference;
    auto const rows = m.rows<double>(q.data(), out.data(), lse.data());
    support::share_executor here;
    support::workspace_memory memory;
    auto const view = m.view();
    REQUIRE(strata::attend(here, reference, rows, view,
                           memory.get(reference.workspace_bytes(rows, view, 1)))
                .ok());
    double const* const gradient = d_out.data();
    REQUIRE(strata::attend_backward(here, reference, rows, view, gradient, d_q.data(),
                                    m.grad(dk.data(), dv.data()),
                                    memory.get(reference.backward_workspace_bytes(rows, view, 1)))
                .ok());
  }
};

/// The greatest difference; what nobody writes is NaN in both.
template <class T>
double worst_replayed(std::vector<T> const& got, std::vector<double> const& exact) {
  return support::tensor_distance(support::widened(got), exact).error;
}

void check_replays(support::cache_layout const& layout, bool backward, bool deterministic = true) {
  replayed_batch const batches[] = {{{40, 120, 7}, {1, 1, 1}},
                                    {{120, 3, 99}, {1, 0, 2}},
                                    {{80, 0, 120}, {80, 0, 20}},
                                    {{1, 64, 120}, {1, 40, 0}},
                                    {{0, 90, 33}, {0, 1, 1}}};
  call_memory memory(batches[0], layout, 1);
  memory.spoil();
  recorded_call const call(memory, backward, deterministic);
  std::uint64_t seed = 10;
  for (auto const& b : batches) {
    seed += 10;
    CAPTURE(seed);
    call_memory next(b, layout, seed);
    memory.become(next);
    call.replay(static_cast<std::int32_t>(seed / 10));
    exact_call const exact(next);
    CHECK(worst_replayed(memory.out, exact.out) < 0.02);
    CHECK(worst_replayed(memory.lse, exact.lse) < 1e-3);
    if (!backward) continue;
    CHECK(worst_replayed(memory.d_q, exact.d_q) < 0.05);
    CHECK(worst_replayed(memory.dk, exact.dk) < 0.1);
    CHECK(worst_replayed(memory.dv, exact.dv) < 0.1);
  }
}

}  // namespace

TEST_CASE("cuda replay: a forward call noted down once, other batches behind its pointers") {
  check_replays({}, false);
  check_replays({16, 24}, false);
}
TEST_CASE("cuda replay: forward and backward") {
  for (bool const deterministic : support::sampled<bool>({true, false}))
    check_replays({16, 16}, true, deterministic);
}
