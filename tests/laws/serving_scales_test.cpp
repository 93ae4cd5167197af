// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Codecs with scales, apart and between the numbers, ours and a user's, through everything that a cache goes through: every storage, both
// ways to store a row, views of mixed depth, both kernels. Judged by attention in double over what
// the codec makes of K and V, and by law 5.
#include <doctest/doctest.h>

#include <cstdint>
#include <tuple>
#include <type_traits>
#include <vector>

#include "support/dense_attention.hpp"
#include "support/encode_row.hpp"
#include "support/print.hpp"
#include "support/row_scaled_codec.hpp"
#include "support/toy_plans.hpp"

using strata::layer_id;

namespace {

using strata::fp8_codec;
using strata::int8_codec;
using strata::q8_0_codec;
using custom = support::row_scaled_codec;
using blocked = strata::cpu::blocked_attention;

using scaled_toys =
    std::tuple<support::toy_stack<strata::contiguous_storage<custom, int8_codec>>,
               support::toy_stack<strata::paged_storage<int8_codec, strata::f16_codec>>,
               support::toy_stack<strata::borrowed_storage<custom, int8_codec>>,
               support::toy_stack<strata::borrowed_storage<q8_0_codec, int8_codec>>,
               support::toy_stack<strata::paged_storage<fp8_codec>>,
               support::toy_stack<strata::contiguous_storage<int8_codec>, blocked>,
               support::toy_stack<strata::paged_storage<custom, q8_0_codec>, blocked>,
               support::toy_stack<strata::paged_storage<int8_codec, q8_0_codec>, blocked>,
               support::toy_stack<strata::borrowed_storage<strata::f32_codec, int8_codec>, blocked>,
               support::toy_stack<strata::borrowed_storage<fp8_codec, int8_codec>, blocked>>;

constexpr std::int32_t scaled_layers = 3, scaled_q_heads = 4, scaled_kv_heads = 2, scaled_k_dim = 6,
                       scaled_v_dim = 5;

support::toy_shape scaled_shape() {
  support::toy_shape s;
  s.layers =
      std::vector(scaled_layers, support::toy_kind(scaled_kv_heads, scaled_k_dim, scaled_v_dim));
  return s;
}

/// What a codec makes of rows of `dim` elements.
template <class Codec>
std::vector<double> through(std::vector<float> const& rows, std::int32_t dim) {
  std::vector<std::byte> row(static_cast<std::size_t>(Codec::row_bytes(dim)));
  std::vector<std::byte> scales(static_cast<std::size_t>(Codec::scale_bytes(dim)));
  std::vector<double> decoded(rows.size());
  for (std::size_t at = 0; at < rows.size(); at += static_cast<std::size_t>(dim)) {
    support::encode_row<Codec>(&rows[at], dim, row.data(), scales.data());
    Codec::decode(row.data(), scales.data(), dim, &decoded[at]);
  }
  return decoded;
}

/// K (or V) of all layers of one sequence, as the cache should hold them: [token, kv_heads, dim].
using held = std::vector<std::vector<double>>;

/// One sequence under test.
struct scaled_sequence {
  support::toy_plan plan;
  strata::sequence_id id = {};
  held k = held(scaled_layers), v = held(scaled_layers);
};

std::vector<scaled_sequence> scaled_sequences() {
  auto const classes = scaled_shape().classes();
  return {{support::named_plan("identity", strata::identity_map(3), classes)},
          {support::named_plan("one leader", strata::grouped_map(3, 3), classes)},
          {support::named_plan("K shared, V not", strata::grouped_map(3, 2),
                               strata::identity_map(3), classes)}};
}

/// Stores random rows, of other sizes in every head, one by one or all at once.
template <class Codec, class Runs>
void store(Runs const& runs, std::vector<scaled_sequence>& all, std::int32_t tokens, layer_id l,
           std::int32_t dim, held scaled_sequence::* where, bool at_once, std::uint64_t seed) {
  auto const row = std::int64_t{scaled_kv_heads} * dim;
  auto rows = support::random_values<float>(std::ssize(all) * tokens * row, seed, 4);
  for (std::size_t i = 0; i < rows.size(); ++i)
    rows[i] *= static_cast<float>(i / static_cast<std::size_t>(dim) % 7) / 2;  // some rows are zero
  for (auto const& run : runs) {
    auto const* const first = rows.data() + run.first_row() * row;
    if (at_once) run.store_all(first);
    for (std::int32_t i = 0; i < run.num_rows() && !at_once; ++i) run.store(i, first + i * row);
  }
  auto const decoded = through<Codec>(rows, dim);
  auto from = decoded.begin();
  for (auto& m : all) {
    auto& to = (m.*where)[static_cast<std::size_t>(l.index)];
    to.insert(to.end(), from, from + tokens * row);
    from += tokens * row;
  }
}

/// Attention of a layer for all members over what they should hold.
std::vector<double> expected(std::vector<scaled_sequence> const& all, std::vector<double> const& q,
                             std::int32_t tokens, layer_id l) {
  support::dense_attention const dense{scaled_q_heads, scaled_kv_heads, scaled_k_dim, scaled_v_dim};
  auto const at = static_cast<std::size_t>(l.index);
  auto const q_size = std::int64_t{tokens} * scaled_q_heads * scaled_k_dim;
  std::vector<double> out;
  auto from = q.begin();
  for (auto const& m : all) {
    auto const& k = m.k[static_cast<std::size_t>(m.plan.sources.k[at])];
    auto const& v = m.v[static_cast<std::size_t>(m.plan.sources.v[at])];
    auto const keys = support::first_positions(k.size() / (scaled_kv_heads * scaled_k_dim));
    auto const r =
        dense.forward({from, from + q_size}, {keys.end() - tokens, keys.end()}, k, v, keys);
    out.insert(out.end(), r.out.begin(), r.out.end());
    from += q_size;
  }
  return out;
}

}  // namespace

TEST_CASE_TEMPLATE_DEFINE("scales go where their rows go", Toy, scales_attended) {
  using T = typename Toy::number;
  using storage = typename Toy::storage_type;
  Toy toy(scaled_shape(), {2, false}, {.max_tokens = 96, .k_tensors = 9, .v_tensors = 9});
  auto all = scaled_sequences();
  for (auto& m : all) m.id = *toy.stack.open(m.plan.plan);
  std::uint64_t seed = 90;
  for (std::int32_t const tokens : {1, 70, 3, 1, 6}) {
    std::vector<strata::batch_entry> batch;
    for (auto const& m : all) batch.push_back({m.id, tokens, strata::logits::all});
    auto step = toy.stack.begin(batch);
    REQUIRE(step.state().ok());
    for (layer_id l{0}; l.index < scaled_layers; ++l.index) {
      bool const at_once = seed % 2 == 0;
      store<typename storage::k_codec>(step.k_writers(l), all, tokens, l, scaled_k_dim,
                                       &scaled_sequence::k, at_once, ++seed);
      store<typename storage::v_codec>(step.v_writers(l), all, tokens, l, scaled_v_dim,
                                       &scaled_sequence::v, !at_once, ++seed);
      auto const q = support::random_values<T>(
          std::ssize(all) * tokens * scaled_q_heads * scaled_k_dim, ++seed);
      std::vector<T> out(
          all.size() * static_cast<std::size_t>(tokens * scaled_q_heads * scaled_v_dim), T(NAN));
      strata::layer_queries<T> const queries{q.data(), out.data(), nullptr, scaled_q_heads};
      support::share_executor exec{2, true};
      support::workspace_memory workspace;
      auto const bytes = *step.workspace_bytes(l, queries, 2);
      REQUIRE(step.attend(exec, l, queries, workspace.get(bytes)).ok());
      CHECK(support::worst_error(out, expected(all, {q.begin(), q.end()}, tokens, l)) < 1e-5);
    }
    CHECK(step.commit().ok());
  }
}
TEST_CASE_TEMPLATE_APPLY(scales_attended, scaled_toys);

TEST_CASE_TEMPLATE_DEFINE("passes over rows with scales agree bit for bit", Toy, scales_passes) {
  auto const tokens = support::toy_tokens(9, 12);
  support::toy_shape const six;
  Toy toy(six, {3, true});
  for (auto const& p : support::plans_of_six(six.classes())) {
    CAPTURE(p.name);
    auto const whole = toy.alone(p.plan, tokens, {tokens.size()});
    CHECK_FALSE(whole.empty());
    for (std::vector<std::size_t> const& chunks : {std::vector<std::size_t>{1}, {4}, {2, 5, 1}})
      CHECK(support::same_bits(toy.alone(p.plan, tokens, chunks), whole));
  }
}
TEST_CASE_TEMPLATE_APPLY(scales_passes, scaled_toys);
