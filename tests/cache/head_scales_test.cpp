// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// One scale for all rows of a KV head: through every storage, steps of mixed depth and layers that
// differ, and what is refused.
#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <strata/attention/reference.hpp>
#include <strata/cache/fp8_codec.hpp>
#include <strata/map/identity_map.hpp>
#include <strata/map/table_map.hpp>
#include <strata/stack.hpp>

#include "support/cache_tensor.hpp"
#include "support/encode_row.hpp"
#include "support/engine_cache.hpp"
#include "support/print.hpp"
#include "support/share_executor.hpp"
#include "support/toy_model.hpp"

using strata::errc;
using strata::fp8_codec;
using strata::layer_id;
using strata::sequence_id;
using strata::status;
using strata::tensor;
using support::as_size;
using support::mixed_toy_classes;

namespace {

using exact_storage = strata::contiguous_storage<strata::f64_codec>;
using fp8_contiguous = strata::contiguous_storage<fp8_codec>;
using fp8_paged = strata::paged_storage<fp8_codec>;
using fp8_borrowed = strata::borrowed_storage<fp8_codec>;

/// A user's storage, which knows nothing of scales.
struct plain_storage : fp8_paged {
  explicit plain_storage(fp8_paged&& s) : fp8_paged(std::move(s)) {}
  void k_head_scales(layer_id) const = delete;
};
static_assert(strata::head_scaled_storage<fp8_contiguous> &&
              strata::head_scaled_storage<fp8_borrowed>);
static_assert(strata::cache_storage<plain_storage> && !strata::head_scaled_storage<plain_storage>);

constexpr std::int32_t scaled_layers = 6, most_scaled_heads = 2, scaled_q_heads = 4;

constexpr float never_read = -std::numeric_limits<float>::quiet_NaN();

/// Other scales for every layer and KV head, of K and V. Where there is no head, none is read.
struct scale_table {
  std::vector<float> k = std::vector(scaled_layers * most_scaled_heads, never_read), v = k;

  scale_table() {
    for (layer_id l{0}; l.index < scaled_layers; ++l.index)
      for (std::int32_t h = 0;
           mixed_toy_classes()[l].has_kv && h < mixed_toy_classes()[l].kv.kv_heads; ++h) {
        auto const at = as_size(l.index * most_scaled_heads + h);
        k[at] = 0.01f * static_cast<float>(3 * at + 1);
        v[at] = 0.7f / static_cast<float>(at + 2);
      }
  }
  strata::head_scales given() const { return {k, v}; }
};

/// What the codec makes of rows, [row, kv_heads, dim]. scales: [kv_heads], or null.
std::vector<double> through_fp8(std::vector<float> const& rows, std::int32_t kv_heads,
                                std::int32_t dim, float const* scales) {
  std::vector<double> decoded(rows.size());
  std::vector<std::byte> row(as_size(dim)), scale(4);
  auto const count = static_cast<std::int32_t>(rows.size()) / dim;
  for (std::int32_t i = 0; i < count; ++i) {
    auto const at = as_size(i * dim);
    support::encode_row<fp8_codec>(&rows[at], dim, row.data(), scale.data(),
                                   scales == nullptr ? 1 : scales[i % kv_heads]);
    fp8_codec::decode(row.data(), scale.data(), dim, &decoded[at]);
  }
  return decoded;
}

/// Sequences of every kind side by side: all leaders, followers, K and V of different sources.
template <class Stack>
std::vector<sequence_id> open_all(Stack& stack) {
  std::vector<std::vector<std::int32_t>> const sources = {
      {0, 1, 2, 3, 4, 5}, {0, 1, 2, 0, 1, 0}, {0, 1, 2, 3, 4, 3}, {0, 1, 2, 0, 1, 5}};
  std::vector<sequence_id> ids;
  for (std::size_t s = 0; s < sources.size(); ++s)
    ids.push_back(*stack.open(*make_plan(*strata::table_map::make(sources[s]),
                                         *strata::table_map::make(sources[(s + s / 2) % 4]),
                                         mixed_toy_classes())));
  return ids;
}

support::storage_room scaled_room() {
  return {.max_sequences = 4, .max_tokens = 14, .k_tensors = 20, .v_tensors = 20};
}

template <class Step>
std::vector<double> attended(Step& step, layer_id l, std::vector<double> const& q) {
  support::workspace_memory workspace;
  std::vector<double> out(
      as_size(step.num_rows() * scaled_q_heads * mixed_toy_classes()[l].kv.v_dim));
  strata::layer_queries<double> const queries{q.data(), out.data(), nullptr, scaled_q_heads};
  auto const bytes = *step.workspace_bytes(l, queries, 1);
  support::share_executor exec;
  REQUIRE(step.attend(exec, l, queries, workspace.get(bytes)).ok());
  return out;
}

/// A layer of two steps that do the same. One stores random rows in fp8, the other what fp8 should
/// make of them in double: attention must have the same bits.
template <class Step, class ExactStep>
void check_layer(Step& step, ExactStep& exact_step, layer_id l, scale_table const* scales,
                 std::uint64_t& seed) {
  auto const kv = mixed_toy_classes()[l].kv;
  auto const store = [&](auto const& runs, auto const& exact_runs, std::int32_t dim,
                         std::vector<float> const* table) {
    auto const width = std::int64_t{kv.kv_heads} * dim;
    auto const* const of_layer = table ? &(*table)[as_size(l.index * most_scaled_heads)] : nullptr;
    auto const rows = support::random_values<float>(step.num_rows() * width, ++seed, 30);
    auto const decoded = through_fp8(rows, kv.kv_heads, dim, of_layer);
    for (auto const& run : runs) run.store_all(rows.data() + run.first_row() * width);
    for (auto const& run : exact_runs) run.store_all(decoded.data() + run.first_row() * width);
  };
  store(step.k_writers(l), exact_step.k_writers(l), kv.k_dim, scales ? &scales->k : nullptr);
  store(step.v_writers(l), exact_step.v_writers(l), kv.v_dim, scales ? &scales->v : nullptr);
  auto const q =
      support::random_values<double>(step.num_rows() * scaled_q_heads * kv.k_dim, ++seed);
  CHECK(support::same_bits(attended(step, l, q), attended(exact_step, l, q)));
}

/// Serves a batch of mixed depth. scales: null where all should be 1.
template <class S>
void check_served(S storage, scale_table const* scales) {
  strata::stack<S, strata::reference_attention> stack(std::move(storage));
  strata::stack<exact_storage, strata::reference_attention> expected(
      support::make_storage<exact_storage>(mixed_toy_classes(), scaled_room()));
  auto const ids = open_all(stack);
  CHECK(open_all(expected) == ids);
  std::uint64_t seed = 7;
  for (int round = 0; round < 4; ++round) {  // over the edges of blocks of 4
    std::vector<strata::batch_entry> batch;
    for (auto const id : ids) batch.push_back({id, 1 + (id.index + round) % 3});
    auto step = stack.begin(batch);
    auto exact_step = expected.begin(batch);
    REQUIRE(step.state().ok());
    REQUIRE(exact_step.state().ok());
    for (layer_id l{0}; l.index < scaled_layers; ++l.index)
      if (mixed_toy_classes()[l].has_kv) check_layer(step, exact_step, l, scales, seed);
    REQUIRE(step.commit().ok());
    REQUIRE(exact_step.commit().ok());
  }
}

}  // namespace

TEST_CASE_TEMPLATE("head scales: every layer and KV head by its own", S, fp8_contiguous, fp8_paged,
                   fp8_borrowed) {
  scale_table const scales;
  support::storage_host<S> host(mixed_toy_classes(), scaled_room());
  check_served(host.make(scales.given()), &scales);
}

TEST_CASE("head scales: without any, all are 1") {
  support::storage_host<fp8_contiguous> own(mixed_toy_classes(), scaled_room());
  support::storage_host<fp8_borrowed> of_engine(mixed_toy_classes(), scaled_room());
  support::storage_host<fp8_paged> of_user(mixed_toy_classes(), scaled_room());
  check_served(own.make(), nullptr);
  check_served(of_engine.make(), nullptr);
  scale_table const scales;
  // Those that a storage has but does not show count for nothing.
  check_served(plain_storage(of_user.make(scales.given())), nullptr);
  CHECK(own.make().k_head_scales({0}) == nullptr);
  // K alone: those of V are 1.
  auto const half = own.make({scales.k, {}});
  CHECK(half.k_head_scales({3})[1] == scales.k[7]);
  CHECK(half.v_head_scales({3}) == nullptr);
}

TEST_CASE_TEMPLATE("head scales: a storage keeps its own", S, fp8_contiguous, fp8_paged,
                   fp8_borrowed) {
  scale_table scales;
  support::storage_host<S> host(mixed_toy_classes(), scaled_room());
  auto storage = host.make(scales.given());
  auto const expected = scales;
  scales.k.assign(scales.k.size(), 9);
  auto const moved = std::move(storage);
  for (layer_id l{0}; l.index < scaled_layers; ++l.index)
    for (std::int32_t h = 0;
         mixed_toy_classes()[l].has_kv && h < mixed_toy_classes()[l].kv.kv_heads; ++h) {
      CHECK(moved.k_head_scales(l)[h] == expected.k[as_size(l.index * most_scaled_heads + h)]);
      CHECK(moved.v_head_scales(l)[h] == expected.v[as_size(l.index * most_scaled_heads + h)]);
    }
}

TEST_CASE("head scales: an append kernel of one's own is told them") {
  scale_table const scales;
  strata::stack<fp8_contiguous, strata::reference_attention> stack(
      support::make_storage<fp8_contiguous>(mixed_toy_classes(), scaled_room(), {},
                                            scales.given()));
  auto step = stack.begin({open_all(stack)[0], 1});
  auto const& k = step.k_writers({5})[0].destination();
  CHECK(k.kv_heads == 2);
  CHECK(k.head_scales[0] == scales.k[10]);
  CHECK(k.head_scales[1] == scales.k[11]);
  CHECK(step.v_writers({4})[0].destination().head_scales[0] == scales.v[8]);
}

TEST_CASE("head scales: a block holds one float for each KV head") {
  strata::layer_kind kind;
  kind.kv = {.kv_heads = 8, .k_dim = 128, .v_dim = 128};
  auto const model = strata::kv_classes::uniform(3, kind);
  support::storage_room const six{.max_tokens = 32, .k_tensors = 6, .v_tensors = 6};
  CHECK(support::make_storage<fp8_contiguous>(model, six).allocated_bytes() ==
        12 * (32 * 8 * 128 + 64));
  auto storage = support::make_storage<fp8_paged>(model, six);
  CHECK(storage.allocated_bytes() == 12 * 8 * (4 * 8 * 128 + 64));
  auto const blocks = storage.k_blocks({1});
  CHECK(blocks.scale_stride == strata::block_strides{4 * 8 * 128 + 64, 0, 4});
  CHECK(blocks.scales - blocks.data == 4 * 8 * 128);
}

TEST_CASE_TEMPLATE("head scales: what is no scale is refused by name", S, fp8_contiguous,
                   fp8_paged) {
  auto const refused = [](auto change) {
    scale_table scales;
    change(scales);
    return S::make(mixed_toy_classes(), support::options_of<S>(scaled_room()), {}, scales.given())
        .state();
  };
  constexpr auto inf = std::numeric_limits<float>::infinity();
  auto const in = [](tensor which, std::int32_t layer, std::int32_t head) {
    return status{errc::bad_head_scale, {layer}, static_cast<std::int64_t>(which), head};
  };
  CHECK(refused([](scale_table&) {}).ok());
  for (auto const bad : {0.0f, -0.0f, -1.0f, inf, -inf, std::nanf("")}) {
    CAPTURE(bad);
    CHECK(refused([&](auto& s) { s.k[1] = bad; }) == in(tensor::k_head_scales, 0, 1));
    CHECK(refused([&](auto& s) { s.v[8] = bad; }) == in(tensor::v_head_scales, 4, 0));
    // Layer 4 has one head, layer 2 none.
    CHECK(refused([&](auto& s) { s.v[9] = s.k[4] = bad; }).ok());
  }
  for (auto const good :
       {std::numeric_limits<float>::denorm_min(), std::numeric_limits<float>::max()})
    CHECK(refused([&](auto& s) { s.k[0] = s.v[11] = good; }).ok());
  CHECK(refused([](auto& s) { s.k.pop_back(); }) == status{errc::head_scales_mismatch, {}, 11, 12});
  CHECK(refused([](auto& s) { s.v.resize(18, 1); }) ==
        status{errc::head_scales_mismatch, {}, 18, 12});
  CHECK(refused([](auto& s) { s.v.clear(); }).ok());
  CHECK(std::string(describe(in(tensor::k_head_scales, 3, 1)).c_str()) ==
        "layer 3: head_scales::k of KV head 1 is zero, negative, infinite or not a number");
}

TEST_CASE("head scales: codecs without them take none") {
  using half = strata::contiguous_storage<fp8_codec, strata::int8_codec>;
  scale_table const scales;
  auto const options = support::options_of<half>(scaled_room());
  CHECK(half::make(mixed_toy_classes(), options, {}, {scales.k, {}}).ok());
  CHECK(half::make(mixed_toy_classes(), options, {}, scales.given()).state() ==
        status{errc::head_scales_mismatch, {}, 12, 0});
  CHECK(exact_storage::make(mixed_toy_classes(), options, {}, {scales.k, {}}).state() ==
        status{errc::head_scales_mismatch, {}, 12, 0});
}

TEST_CASE("head scales: in an engine's memory") {
  auto const model = strata::kv_classes::uniform(2, support::toy_kind(2, 8, 8));
  alignas(4) std::byte k[256] = {}, v[256] = {}, scales[40] = {};
  // One scale of K for each head of all blocks; of V one in every block.
  auto const make = [&](auto change, strata::head_scales const& given = {}) {
    std::vector<strata::borrowed_layer> layers;
    for (int l = 0; l < 2; ++l) {
      auto const at = 128 * l;
      strata::borrowed_layer layer{strata::nhd_blocks<fp8_codec>(k + at, 4, 2, 8, scales + 8 * l),
                                   strata::nhd_blocks<fp8_codec>(v + at, 4, 2, 8, scales + 16)};
      layer.k.scale_stride.block = 0;
      layers.push_back(layer);
    }
    change(layers[1]);
    return fp8_borrowed::make(model, layers, 2, 4, given);
  };
  using layer = strata::borrowed_layer;
  auto const off = [](std::int64_t by) { return status{errc::memory_misaligned, {1}, by, 4}; };
  CHECK(make([](layer&) {}).ok());
  CHECK(make([](layer& l) { l.k.scales = nullptr; }).state() ==
        null_pointer(tensor::k_scales, {1}));
  CHECK(make([](layer& l) { l.k.scales += 1; }).state() == off(1));
  CHECK(make([](layer& l) { l.v.scale_stride.block += 2; }).state() == off(2));
  CHECK(make([](layer& l) { l.v.scale_stride.head = -1; }).state() == off(3));
  CHECK(make([](layer& l) { l.v.scale_stride.token = 3; }).state() == off(3));
  CHECK(make([](layer& l) { l.k = {}; }).ok());
  CHECK(make([](layer&) {}, {std::vector{1.0f, 2.0f, 3.0f}, {}}).state() ==
        status{errc::head_scales_mismatch, {}, 3, 4});
  CHECK(make([](layer&) {}, {{}, std::vector{1.0f, 2.0f, 0.0f, 4.0f}}).state() ==
        status{errc::bad_head_scale, {1}, static_cast<std::int64_t>(tensor::v_head_scales), 0});

  strata::stack<fp8_borrowed, strata::reference_attention> stack(
      *make([](layer&) {}, {std::vector{0.5f, 2.0f, 3.0f, 4.0f}, {}}));
  auto const plan = *make_plan(strata::identity_map(2), model);
  auto const a = *stack.open(plan), b = *stack.open(plan);
  auto step = stack.begin({{a, 2}, {b, 1}});
  std::vector<float> const rows(3 * 2 * 8, 1.5f);
  for (layer_id l{0}; l.index < 2; ++l.index) {
    for (auto const& run : step.k_writers(l)) run.store_all(rows.data());
    for (auto const& run : step.v_writers(l)) run.store_all(rows.data());
  }
  CHECK(step.commit().ok());
  float written[8];
  std::memcpy(written, scales, sizeof(written));
  for (auto const& x : {std::pair{0, 0.5f}, {1, 2.0f}, {2, 3.0f}, {3, 4.0f}, {4, 1.0f}, {7, 1.0f}})
    CHECK(written[x.first] == x.second);
  CHECK(k[0] == std::byte{0x44});  // 1.5 / 0.5
  CHECK(k[8] == std::byte{0x34});  // 1.5 / 2
}
