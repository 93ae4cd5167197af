// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Layers that read one source, beside plain attention in double: what goes wrong in engines that share
// caches between layers.
#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include <strata/attention/reference.hpp>
#include <strata/cache/fp8_codec.hpp>
#include <strata/cache/int8_codec.hpp>
#include <strata/cache/paged_storage.hpp>
#include <strata/cache/rope.hpp>
#include <strata/map/grouped_map.hpp>
#include <strata/stack.hpp>

#include "support/dense_attention.hpp"
#include "support/exact_numbers.hpp"
#include "support/print.hpp"

using strata::layer_id;

namespace {

using float_list = std::vector<float>;

float_list random_floats(std::int64_t count, std::uint64_t seed) {
  return support::random_values<float>(count, seed);
}
std::vector<double> widened_floats(float_list const& x) { return {x.begin(), x.end()}; }
std::vector<std::int32_t> positions_from(std::int32_t first, std::int32_t count) {
  std::vector<std::int32_t> positions;
  for (std::int32_t i = 0; i < count; ++i) positions.push_back(first + i);
  return positions;
}

/// Some layers that all read layer 0, in blocks of 2 tokens.
template <class Codec>
struct one_source {
  using storage_type = strata::paged_storage<Codec>;

  std::int32_t layers;
  strata::layer_kind kind;
  strata::stack<storage_type, strata::reference_attention> server;
  strata::sequence_id id;

  one_source(std::int32_t num_layers, strata::layer_kind const& k,
             strata::head_scales const& scales = {})
      : layers(num_layers),
        kind(k),
        server(storage_type(classes(), {1, 64, 2, 64 * layers, 64 * layers}, {}, scales)),
        id(*server.open(*make_plan(strata::grouped_map(layers, layers), classes()))) {}
  strata::kv_classes classes() const { return strata::kv_classes::uniform(layers, kind); }

  /// Attention of a layer in a step. q: [rows, q_heads, k_dim]; the result: [rows, q_heads, v_dim].
  static float_list attend(auto& step, layer_id l, float_list const& q, std::int32_t q_heads,
                           std::int32_t v_dim) {
    float_list out(static_cast<std::size_t>(step.num_rows() * q_heads * v_dim), NAN);
    strata::layer_queries<float> const queries{
        .q = q.data(), .out = out.data(), .q_heads = q_heads};
    strata::serial_executor here;
    std::vector<std::byte> workspace(
        static_cast<std::size_t>(*step.workspace_bytes(l, queries, 1)));
    REQUIRE(step.attend(here, l, queries, workspace).ok());
    return out;
  }
};

strata::layer_kind kind_of(std::int32_t kv_heads, std::int32_t k_dim, std::int32_t v_dim,
                           std::int32_t window = strata::unbounded_window) {
  strata::layer_kind kind;
  kind.kv = {.kv_heads = kv_heads, .k_dim = k_dim, .v_dim = v_dim};
  kind.window = window;
  return kind;
}

}  // namespace

TEST_CASE("RoPE turns a shared K exactly once and every reader's query by its own position") {
  constexpr std::int32_t dim = 4, tokens = 7;
  one_source<strata::f32_codec> m(3, kind_of(1, dim, dim));
  float_list cos, sin;
  for (std::int32_t at = 0; at < 16; ++at)
    for (std::int32_t j = 0; j < dim / 2; ++j) {
      cos.push_back(static_cast<float>(std::cos(at * std::pow(100.0, -j))));
      sin.push_back(static_cast<float>(std::sin(at * std::pow(100.0, -j))));
    }
  auto const rope = strata::rotary<float>::of(cos.data(), sin.data(), 16, dim);
  auto const k = random_floats(tokens * dim, 1), v = random_floats(tokens * dim, 2);
  std::vector<double> turned;  // by the definition
  for (std::int32_t t = 0; t < tokens; ++t)
    for (std::int32_t i = 0; i < dim; ++i) {
      auto const angle = t * std::pow(100.0, -(i % 2));
      auto const row = static_cast<std::size_t>(t * dim);
      double const a = k[row + static_cast<std::size_t>(i % 2)];
      double const b = k[row + static_cast<std::size_t>(i % 2) + 2];
      turned.push_back(i < 2 ? a * std::cos(angle) - b * std::sin(angle)
                             : b * std::cos(angle) + a * std::sin(angle));
    }
  support::dense_attention const dense{1, 1, dim, dim};
  for (std::int32_t done = 0; done < tokens;) {
    auto const count = done == 0 ? 4 : 1;
    auto step = m.server.begin({m.id, count});
    // Where new tokens stand is where the sequence ended before they came.
    REQUIRE(step.positions()[0] == done);
    for (layer_id l{0}; l.index < 3; ++l.index) {
      for (auto const& run : step.k_writers(l))
        for (std::int32_t i = 0; i < count; ++i)
          run.store_rotated(i, &k[static_cast<std::size_t>((done + i) * dim)], rope);
      for (auto const& run : step.v_writers(l))
        run.store_all(&v[static_cast<std::size_t>(done * dim)]);
      auto q = random_floats(count * dim, 10 + static_cast<std::uint64_t>(l.index));
      for (std::int32_t i = 0; i < count; ++i)
        rope.rotate(&q[static_cast<std::size_t>(i * dim)],
                    step.positions()[static_cast<std::size_t>(i)]);
      auto const keys = done + count;
      auto const expected =
          dense.forward(widened_floats(q), positions_from(done, count),
                        {turned.begin(), turned.begin() + keys * dim},
                        {v.begin(), v.begin() + keys * dim}, positions_from(0, keys));
      CHECK(support::worst_error(m.attend(step, l, q, 1, dim), expected.out) < 1e-5);
    }
    REQUIRE(step.commit().ok());
    done += count;
  }
}

// Within a step the last row's window has passed what the first row still reads, at followers too.
TEST_CASE("a follower reads what its source's window passes within the same step") {
  constexpr std::int32_t dim = 3, window = 5;
  one_source<strata::f32_codec> m(3, kind_of(1, dim, dim, window));
  auto const k = random_floats(64 * dim, 3), v = random_floats(64 * dim, 4);
  support::dense_attention dense{2, 1, dim, dim};
  dense.window = window;
  std::int32_t done = 0;
  for (auto const count : {13, 1, 9, 2, 16}) {
    auto step = m.server.begin({m.id, count});
    REQUIRE(step.state().ok());
    step.k_writers({0})[0].store_all(&k[static_cast<std::size_t>(done * dim)]);
    step.v_writers({0})[0].store_all(&v[static_cast<std::size_t>(done * dim)]);
    auto const keys = done + count;
    for (layer_id const l : {layer_id{2}, layer_id{0}, layer_id{1}}) {
      auto const q = random_floats(count * 2 * dim, 20 + static_cast<std::uint64_t>(l.index));
      auto const expected = dense.forward(
          widened_floats(q), positions_from(done, count), {k.begin(), k.begin() + keys * dim},
          {v.begin(), v.begin() + keys * dim}, positions_from(0, keys));
      CHECK(support::worst_error(m.attend(step, l, q, 2, dim), expected.out) < 1e-5);
    }
    REQUIRE(step.commit().ok());
    done = keys;
    // Tokens from done - 4 on are there, in blocks of 2.
    CHECK(m.server.storage().first_token(m.id, {0}, strata::tensor::k) == (done - 4) / 2 * 2);
  }
}

TEST_CASE_TEMPLATE("a follower reads its source's scales and sees them change", Codec,
                   strata::int8_codec, strata::fp8_codec) {
  constexpr std::int32_t dim = 4;
  constexpr bool per_head = strata::head_scaled_codec<Codec>;
  // Scales of layer 0; those of layer 1, which keeps nothing, are others.
  float const scales[] = {.5F, .25F, 8, 16};
  strata::head_scales const given =
      per_head ? strata::head_scales{scales, scales} : strata::head_scales{};
  one_source<Codec> m(2, kind_of(2, dim, dim), given);
  auto const rows = random_floats(3 * 2 * dim, 5), q = random_floats(2 * dim, 6);
  auto const outs = [&](bool store) {
    auto step = m.server.begin({m.id, 1});
    REQUIRE(step.state().ok());
    for (auto const& run : step.k_writers({0})) run.store_all(rows.data());
    for (auto const& run : step.v_writers({0})) run.store_all(&rows[4]);
    std::pair const both{m.attend(step, {0}, q, 2, dim), m.attend(step, {1}, q, 2, dim)};
    if (store) REQUIRE(step.commit().ok());
    return both;
  };
  for (int i = 0; i < 2; ++i) {  // a whole block, so that the tokens to come write no scale into it
    auto const before = outs(true);
    CHECK(before.first == before.second);
  }
  auto const again = outs(false);
  CHECK(again.first == again.second);
  // One KV head's V counts twice as much from here on.
  auto& storage = m.server.between_steps();
  auto const blocks = storage.v_blocks({0});
  auto* const at = blocks.scales_at(storage.v_row(m.id, {0}), 0, 0);
  if constexpr (per_head) {
    float const twice = 1;
    std::memcpy(at, &twice, sizeof(twice));
  } else {
    strata::float16 half;
    std::memcpy(&half, at, sizeof(half));
    half = strata::detail::narrow<strata::float16>(2 * strata::to_float(half));
    std::memcpy(at, &half, sizeof(half));
  }
  auto const after = outs(false);
  CHECK(after.first == after.second);
  CHECK(after.first != again.first);
}

namespace {

/// Some heads of a model, as a rank of tensor parallelism holds them: attention of two layers, which
/// share, over 6 tokens and one more. out: [layer, token, head, dim].
struct rank {
  std::vector<std::int32_t> kv_heads, q_heads;

  float_list out(std::int32_t all_kv, std::int32_t all_q) const {
    constexpr std::int32_t dim = 3, tokens = 7;
    auto const mine_kv = static_cast<std::int32_t>(kv_heads.size());
    auto const mine_q = static_cast<std::int32_t>(q_heads.size());
    one_source<strata::bf16_codec> m(2, kind_of(mine_kv, dim, dim));
    float_list all;
    for (std::int32_t done = 0; done < tokens;) {
      auto const count = done == 0 ? 6 : 1;
      auto const rows = [&](std::vector<std::int32_t> const& heads, std::int32_t of,
                            std::uint64_t seed) {
        auto const whole = random_floats(tokens * of * dim, seed);
        float_list some;
        for (auto t = done; t < done + count; ++t)
          for (auto const h : heads)
            for (std::int32_t i = 0; i < dim; ++i)
              some.push_back(whole[static_cast<std::size_t>((t * of + h) * dim + i)]);
        return some;
      };
      auto step = m.server.begin({m.id, count});
      step.k_writers({0})[0].store_all(rows(kv_heads, all_kv, 7).data());
      step.v_writers({0})[0].store_all(rows(kv_heads, all_kv, 8).data());
      for (layer_id l{0}; l.index < 2; ++l.index) {
        auto const q = rows(q_heads, all_q, 9 + static_cast<std::uint64_t>(l.index));
        auto const one = m.attend(step, l, q, mine_q, dim);
        all.insert(all.end(), one.begin(), one.end());
      }
      REQUIRE(step.commit().ok());
      done += count;
    }
    return all;
  }
};

/// The heads of several ranks, put together as those of one.
float_list joined(std::vector<rank> const& ranks, std::int32_t all_kv, std::int32_t all_q) {
  float_list whole(static_cast<std::size_t>(2 * 7 * all_q * 3), NAN);
  for (auto const& r : ranks) {
    auto const part = r.out(all_kv, all_q);
    auto const mine = r.q_heads.size();
    for (std::size_t i = 0; i < part.size(); ++i) {
      auto const row = i / 3 / mine, head = static_cast<std::size_t>(r.q_heads[i / 3 % mine]);
      whole[(row * static_cast<std::size_t>(all_q) + head) * 3 + i % 3] = part[i];
    }
  }
  return whole;
}

}  // namespace

TEST_CASE("tensor parallel ranks of unequal size give the bits of the whole") {
  auto const whole = rank{{0, 1, 2, 3, 4}, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}}.out(5, 10);
  CHECK(joined({{{0, 1, 2}, {0, 1, 2, 3, 4, 5}}, {{3, 4}, {6, 7, 8, 9}}}, 5, 10) == whole);
  CHECK(joined({{{0}, {0, 1}}, {{1, 2, 3, 4}, {2, 3, 4, 5, 6, 7, 8, 9}}}, 5, 10) == whole);
}

TEST_CASE("more tensor parallel ranks than KV heads: those that share a head give the same bits") {
  auto const whole = rank{{0, 1}, {0, 1, 2, 3, 4, 5, 6, 7}}.out(2, 8);
  CHECK(joined({{{0}, {0, 1}}, {{0}, {2, 3}}, {{1}, {4, 5}}, {{1}, {6, 7}}}, 2, 8) == whole);
}
