// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A device's copy of a step says what the host says, step after step: sequences come, grow, leave
// gaps and go.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
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

/// Whether blocks that a step got hold what those held that they were copied from. Their bytes are
/// set here to what none else has.
template <class Server>
void check_copies(Server& server) {
  auto const check = [](auto const& copies, auto const& blocks) {
    for (auto const& c : copies) {
      auto const* const from = blocks.data + c.from * blocks.stride.block;
      REQUIRE(
          std::equal(from, from + blocks.stride.block, blocks.data + c.to * blocks.stride.block));
    }
  };
  check(server.storage().k_copies(), server.between_steps().k_blocks({0}));
  check(server.storage().v_copies(), server.between_steps().v_blocks({0}));
}

/// 60 steps of random batches. `on_device`: the storage's memory is said to be, and is random.
template <class Storage>
void run(Storage storage, std::uint32_t seed, bool on_device = false) {
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
    if constexpr (requires { server.fork(strata::sequence_id{}); }) {
      if (!open.empty() && open.size() < 4 && random() % 3 == 0)
        open.push_back(server.fork(open[random() % open.size()]).value());
      if (!open.empty() && random() % 6 == 0) {
        auto const id = open[random() % open.size()];
        auto const length = server.storage().length(id);
        REQUIRE(server.truncate(id, length - length / 3).ok());
      }
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
    auto const copied = server.storage().k_copies().size() + server.storage().v_copies().size();
    REQUIRE(mirror.send(step).ok());
    if (on_device && copied > 0) check_copies(server);
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
    // The storage copies no block of a device's memory: the mirror does.
    using paged = strata::paged_storage<f32_codec>;
    strata::paged_options const options{4, most_tokens, 4, 300, 300};
    auto const bytes = paged::memory_bytes(model, options).value();
    std::vector<strata::cuda::detail::chunk> memory(
        static_cast<std::size_t>(bytes.k + bytes.v) / 16 + 8);
    auto const all = std::as_writable_bytes(std::span(memory));
    std::mt19937 random(seed);
    for (auto& b : all) b = static_cast<std::byte>(random());
    auto const off = reinterpret_cast<std::uintptr_t>(all.data()) % 64;
    auto const k = all.subspan((64 - off) % 64, static_cast<std::size_t>(bytes.k));
    std::span const v(k.data() + k.size(), static_cast<std::size_t>(bytes.v));
    run(paged::make(model, options, {k, v, true}).value(), seed, true);
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
