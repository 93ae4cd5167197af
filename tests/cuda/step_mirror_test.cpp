// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A device's copy of a step says what the host says, step after step: sequences come, grow, leave
// gaps and go.
#include <doctest/doctest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include <strata/attention/reference.hpp>
#include <strata/cache/contiguous_storage.hpp>
#include <strata/cache/paged_storage.hpp>
#include <strata/cuda/detail/step_mirror_on.hpp>
#include <strata/map/grouped_map.hpp>
#include <strata/stack.hpp>

#include "support/host_memory_device.hpp"
#include "support/print.hpp"
#include "support/simt_attention.hpp"

namespace {

using strata::layer_id;
using mirror_type =
    strata::cuda::detail::step_mirror_on<support::host_memory_device<support::simt_launcher>>;

constexpr std::int32_t layers = 6, kv_heads = 2, most_tokens = 60;

strata::kv_classes const model =
    strata::kv_classes::uniform(layers, {.kv = {.kv_heads = kv_heads, .k_dim = 8, .v_dim = 16}});

template <class Blocks>
void check_same_places(Blocks const& host, Blocks const& device,
                       strata::kv_view<strata::f32_codec> const& v) {
  REQUIRE(device.data == host.data);
  REQUIRE(device.row_of != host.row_of);
  REQUIRE((device.block_table == nullptr) == (host.block_table == nullptr));
  if (host.block_table != nullptr) REQUIRE(device.block_table != host.block_table);
  for (std::int32_t s = 0; s < v.rows.num_seqs; ++s)
    for (std::int32_t h = 0; h < kv_heads; ++h)
      for (std::int32_t t = 0; t < v.length(s, h); ++t)
        REQUIRE(device.at(device.row(s, h, kv_heads), h, t) ==
                host.at(host.row(s, h, kv_heads), h, t));
}

/// What a layer's kernels are told.
template <class Step>
void check_layer(mirror_type const& mirror, Step& step, layer_id l) {
  auto const host = step.view(l).value();
  auto const device = mirror.view(step, l).value();
  for (std::int32_t s = 0; s < host.rows.num_seqs; ++s) {
    REQUIRE(device.length(s, 0) == host.length(s, 0));
    auto const *const a = host.positions(s, 0), *const b = device.positions(s, 0);
    REQUIRE((a == nullptr) == (b == nullptr));
    for (std::int32_t t = 0; a != nullptr && t < host.length(s, 0); ++t) REQUIRE(a[t] == b[t]);
  }
  check_same_places(host.k, device.k, host);
  check_same_places(host.v, device.v, host);

  auto const to = step.k_destination(l);
  auto const input = step.input_rows(l);
  float const heads = 0;
  auto const side = mirror.k_side(step, l, &heads, true);
  auto const& there = side.to;
  REQUIRE(side.num_rows == static_cast<std::int32_t>(input.size()));
  REQUIRE(mirror.v_side(step, l, &heads).num_rows ==
          (step.v_writers(l).empty() ? 0 : side.num_rows));
  for (std::int32_t i = 0; i < side.num_rows; ++i) {
    REQUIRE(there.rows[i] == to.rows[i]);
    auto const row = to.rows[i];
    REQUIRE(there.sequence[row] == to.sequence[row]);
    REQUIRE(there.token[row] == to.token[row]);
    REQUIRE(there.positions[i] == to.positions[i]);
    REQUIRE(there.blocks.row_of[to.sequence[row]] == to.blocks.row_of[to.sequence[row]]);
  }

  float x[8] = {};
  auto const rows =
      step.queries(l, strata::layer_queries<float>{.q = x, .out = x, .q_heads = 2}).value();
  auto const asked =
      mirror.queries(step, l, strata::layer_queries<float>{.q = x, .out = x, .q_heads = 2}).value();
  REQUIRE(asked.offsets != rows.offsets);
  for (std::int32_t s = 0; s <= rows.num_seqs; ++s) REQUIRE(asked.offsets[s] == rows.offsets[s]);
  for (std::int32_t i = 0; i < rows.num_rows(); ++i)
    REQUIRE(asked.positions[i] == rows.positions[i]);
}

/// 60 steps of random batches.
template <class Storage>
void run(Storage storage, std::uint32_t seed) {
  strata::stack server(std::move(storage), strata::reference_attention{});
  auto mirror =
      mirror_type::make({}, server.storage(), mirror_type::bytes_for(layers, 4, 64, 4)).value();
  std::mt19937 random(seed);
  std::vector<strata::sequence_id> open;
  for (int turn = 0; turn < 60; ++turn) {
    if (open.size() < 4 && random() % 2 == 0) {
      auto const every = 1 << random() % 3;
      if (auto const id =
              server.open(*strata::make_plan(strata::grouped_map(layers, every), model));
          id.ok())
        open.push_back(*id);
    }
    if (!open.empty() && random() % 8 == 0) {
      REQUIRE(server.close(open.back()).ok());
      open.pop_back();
    }
    std::vector<strata::batch_entry> batch;
    for (auto const id : open) {
      auto const tokens = static_cast<std::int32_t>(random() % 5);
      auto const gap = random() % 10 == 0;
      batch.push_back({id, tokens, static_cast<strata::logits>(random() % 3),
                       gap ? server.storage().next_position(id) + 3 : strata::continue_position});
    }
    if (batch.empty()) continue;
    auto step = server.begin(batch);
    if (!step.state().ok()) {
      CHECK(mirror.send(step) == step.state());
      continue;
    }
    REQUIRE(mirror.send(step).ok());
    for (layer_id l{0}; l.index < layers; ++l.index) check_layer(mirror, step, l);
    if (random() % 5 != 0) REQUIRE(step.commit().ok());  // else it never happened
  }
}

}  // namespace

TEST_CASE("cuda step mirror: the host's books, step after step") {
  using strata::f32_codec;
  for (std::uint32_t seed = 1; seed <= 8; ++seed) {
    CAPTURE(seed);
    run(strata::paged_storage<f32_codec>(model, {4, most_tokens, 4, 300, 300}), seed);
    run(strata::contiguous_storage<f32_codec>(model, {4, most_tokens, 24, 24}), seed);
  }
}

namespace {

/// Everything that launches of a step point to.
template <class Step>
std::vector<void const*> addresses_of(mirror_type const& mirror, Step& step) {
  std::vector<void const*> all;
  float x = 0;
  strata::layer_queries<float> const queries{.q = &x, .out = &x, .q_heads = 2};
  for (layer_id l{0}; layers > l.index; ++l.index) {
    auto const k = mirror.k_side(step, l, queries.q, true).to;
    auto const v = mirror.v_side(step, l, queries.q, true).to;
    for (auto const& to : {k, v})
      all.insert(all.end(), {to.blocks.row_of, to.blocks.block_table, to.rows, to.sequence,
                             to.token, to.positions});
    auto const view = mirror.view(step, l).value();
    auto const rows = mirror.queries(step, l, queries).value();
    all.insert(all.end(), {view.k.row_of, view.v.row_of, view.k.block_table, view.rows.lengths,
                           view.rows.position_row_of, rows.offsets, rows.positions});
  }
  return all;
}

}  // namespace

TEST_CASE("cuda step mirror: as many sequences and rows find their tables at the same addresses") {
  strata::stack server(
      strata::paged_storage<strata::f32_codec>(model, {4, most_tokens, 4, 300, 300}),
      strata::reference_attention{});
  std::vector<strata::sequence_id> ids;
  for (auto const every : {1, 2, 3, 6})  // tails that begin at layers 5, 4, 3 and 0
    ids.push_back(
        server.open(*strata::make_plan(strata::grouped_map(layers, every), model)).value());
  auto mirror =
      mirror_type::make({}, server.storage(), mirror_type::bytes_for(layers, 3, 6, 4)).value();
  std::vector<void const*> first;
  for (auto const wanted : {strata::logits::all, strata::logits::last, strata::logits::none})
    for (auto const& three : {std::array{0, 1, 2}, {1, 2, 3}, {3, 0, 1}}) {
      std::vector<strata::batch_entry> batch;
      for (auto const i : three) batch.push_back({ids[static_cast<std::size_t>(i)], 2, wanted});
      auto step = server.begin(batch);
      REQUIRE(mirror.send(step).ok());
      auto const now = addresses_of(mirror, step);
      if (first.empty()) first = now;
      CHECK(now == first);
    }
}

TEST_CASE("cuda step mirror: room for a long prompt, and what too little room takes") {
  strata::stack server(strata::paged_storage<strata::f32_codec>(model, {4, 1000, 4, 2000, 2000}),
                       strata::reference_attention{});
  auto const id = server.open(*strata::make_plan(strata::grouped_map(layers, 1), model)).value();
  auto step = server.begin({id, 997});
  auto const room = mirror_type::bytes_for(layers, 1, 997, 4);
  auto enough = mirror_type::make({}, server.storage(), room).value();
  CHECK(enough.send(step).ok());
  auto little = mirror_type::make({}, server.storage(), 500).value();
  auto const refused = little.send(step);
  CHECK(refused.code == strata::errc::mirror_too_small);
  CHECK(refused.value == 500);
  CHECK(refused.bound <= room);
  auto exact = mirror_type::make({}, server.storage(), refused.bound).value();
  CHECK(exact.send(step).ok());
}
