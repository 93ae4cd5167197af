// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// An attention kernel of one's own: one pass over the keys per query head, with the library's
// online softmax. A kernel sees queries and a view, and takes whatever share of the rows it is
// told; it works with every storage, codec and plan, because it never meets them.
#include <strata/strata.hpp>
#include <strata/thread_pool.hpp>

#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

struct one_pass_attention {
  // Per share: one decoded row of K or V, and the sum of weighted values.
  template <class T, class View>
  std::int64_t workspace_bytes(strata::query_rows<T> const&, View const& view,
                               std::int32_t num_shares) const noexcept {
    return num_shares * scratch_size(view) * static_cast<std::int64_t>(sizeof(T)) +
           strata::workspace_slack;
  }

  template <class T, class View>
  strata::status partial(strata::share part, strata::query_rows<T> const& q, View const& view,
                         std::span<std::byte> workspace) const noexcept {
    if (auto const s = strata::check(part); !s.ok()) return s;
    if (auto const s = strata::check(q, view); !s.ok()) return s;
    auto const given = static_cast<std::int64_t>(workspace.size());
    auto const needed = workspace_bytes(q, view, part.nth);
    if (given < needed) return {strata::errc::workspace_too_small, strata::no_layer, given, needed};
    // This example takes plain rules only, and says so.
    if (q.rule.sink_logits != nullptr || q.rule.softcap > 0) return {strata::errc::unsupported};
    auto* const scratch =
        reinterpret_cast<T*>(strata::workspace_start(workspace)) + part.ith * scratch_size(view);
    for (std::int32_t seq = 0; seq < q.num_seqs; ++seq)
      for (auto row = q.row_begin(seq); row < q.row_end(seq); ++row)
        for (std::int32_t head = 0; head < q.q_heads; ++head)
          if ((row * q.q_heads + head) % part.nth == part.ith)
            one_head(q, view, seq, row, head, scratch);
    return {};
  }

  template <class T, class View>
  strata::status combine(strata::share, strata::query_rows<T> const&, View const&,
                         std::span<std::byte>) const noexcept {
    return {};  // no row was split
  }

 private:
  template <class View>
  static std::int64_t scratch_size(View const& view) noexcept {
    return view.k_dim + 2 * view.v_dim;
  }

  template <class T, class View>
  static void one_head(strata::query_rows<T> const& q, View const& view, std::int32_t seq,
                       std::int32_t row, std::int32_t head, T* scratch) noexcept {
    auto const kv_head = head / (q.q_heads / view.kv_heads);
    auto const length = view.length(seq, kv_head);
    auto const* const positions = view.positions(seq, kv_head);
    auto const position_of = [&](std::int32_t t) {
      return positions == nullptr ? t : positions[t];
    };
    auto const query_position = q.position(seq, row, length == 0 ? 0 : position_of(length - 1) + 1);
    T const* const query = q.q + (std::int64_t{row} * q.q_heads + head) * view.k_dim;
    T* const key = scratch;             // [k_dim]
    T* const value = key + view.k_dim;  // [v_dim]
    T* const sum = value + view.v_dim;  // [v_dim]
    auto const scale =
        q.rule.scale > 0 ? q.rule.scale : 1 / std::sqrt(static_cast<double>(view.k_dim));

    strata::softmax_state<T> state;
    for (std::int32_t i = 0; i < view.v_dim; ++i) sum[i] = 0;
    for (std::int32_t t = 0; t < length; ++t) {
      if (t < q.key_begin || t >= q.key_end) continue;
      if (!q.rule.sees(query_position, position_of(t))) continue;
      view.load_k(seq, kv_head, t, key);
      view.load_v(seq, kv_head, t, value);
      T dot = 0;
      for (std::int32_t i = 0; i < view.k_dim; ++i) dot += query[i] * key[i];
      auto const [rescale, weight] = state.add(static_cast<T>(scale) * dot);
      for (std::int32_t i = 0; i < view.v_dim; ++i) sum[i] = sum[i] * rescale + weight * value[i];
    }
    auto const at = std::int64_t{row} * q.q_heads + head;
    for (std::int32_t i = 0; i < view.v_dim; ++i)
      q.out[at * view.v_dim + i] = state.empty() ? T{0} : sum[i] / state.sum;
    if (q.lse != nullptr) q.lse[at] = state.lse();
  }
};
static_assert(
    strata::attention_kernel<one_pass_attention, float, strata::kv_view<strata::f16_codec>>);

int main() {
  // 3 sequences of 40 tokens, 4 query heads over 2 KV heads of 24.
  int const seqs = 3, length = 40, q_heads = 4, kv_heads = 2, dim = 24;
  std::mt19937 generator(1);
  std::normal_distribution<float> normal;
  auto const random = [&](int count) {
    std::vector<float> tensor(static_cast<std::size_t>(count));
    for (auto& x : tensor) x = normal(generator);
    return tensor;
  };
  auto const q = random(seqs * length * q_heads * dim);
  auto const k = random(seqs * length * kv_heads * dim), v = random(seqs * length * kv_heads * dim);
  auto const view = strata::contiguous_view(k.data(), v.data(), seqs, length, kv_heads, dim, dim);

  strata::thread_pool pool(2);
  auto const run = [&](auto const& kernel) {
    std::vector<float> out(q.size());
    strata::query_rows<float> rows;
    rows.q = q.data();
    rows.out = out.data();
    rows.rows_per_seq = length;
    rows.num_seqs = seqs;
    rows.q_heads = q_heads;
    rows.rule.window = 17;
    std::vector<std::byte> workspace(
        static_cast<std::size_t>(kernel.workspace_bytes(rows, view, pool.num_shares())));
    auto const s = strata::attend(pool, kernel, rows, view, workspace);
    if (!s.ok()) std::puts(strata::describe(s).c_str());
    return out;
  };
  auto const mine = run(one_pass_attention{}), reference = run(strata::reference_attention{});
  float largest = 0;
  for (std::size_t i = 0; i < mine.size(); ++i)
    largest = std::fmax(largest, std::fabs(mine[i] - reference[i]));
  std::printf("one pass against the reference: largest difference %g\n", largest);
  return largest < 2e-6f ? 0 : 1;
}
