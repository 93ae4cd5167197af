// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A device's copy of a step says what the host says, step after step: sequences come, grow, leave
// gaps and go.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <random>
#include <type_traits>
#include <utility>
#include <vector>

#include <strata/attention/reference.hpp>
#include <strata/cache/contiguous_storage.hpp>
#include <strata/cache/paged_storage.hpp>
#include <strata/cuda/detail/step_mirror_on.hpp>
#include <strata/map/grouped_map.hpp>
#include <strata/stack.hpp>

#include "cuda/step_mirrors.hpp"
#include "support/lent_memory.hpp"
#include "support/print.hpp"
#include "support/sanitized.hpp"

namespace {

using namespace step_mirrors;

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
template <class Mirror, class Step>
void check_layer(Mirror const& mirror, Step& step, layer_id l) {
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
  REQUIRE(asked.known_rows == rows.num_rows());
  std::int32_t most = 0;
  for (std::int32_t s = 0; s < rows.num_seqs; ++s)
    most = std::max(most, rows.row_end(s) - rows.row_begin(s));
  REQUIRE(asked.known_rows_per_seq == most);
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

void wait_for(host_device const&) {}
void wait_for(late_device const& device) { device.stream->finish(); }

/// 60 steps of random batches. `on_device`: the storage's memory is said to be, and is random. Of a
/// device that does things late, two of three steps are sent and nobody waits for them.
template <class Device, class Storage>
void run_mirror(Storage storage, std::uint32_t seed, bool on_device = false) {
  constexpr bool late = std::is_same_v<Device, late_device>;
  strata::stack server(std::move(storage), strata::reference_attention{});
  using mirror_on = strata::cuda::detail::step_mirror_on<Device>;
  Device const device;
  auto mirror = mirror_on::make(device, server.storage(),
                                mirror_on::bytes_for(layers, 4, 64, 4, 4 * most_tokens))
                    .value();
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
    if (late && random() % 3 != 0) {
      mark_stored(step);
    } else {
      wait_for(device);
      if (on_device && copied > 0) check_copies(server);
      for (layer_id l{0}; l.index < layers; ++l.index) check_layer(mirror, step, l);
    }
    if (random() % 5 != 0) REQUIRE(step.commit().ok());  // else it never happened
  }
}

template <class Device>
void run_mirror_on_all(std::uint32_t seed) {
  using strata::f32_codec;
  run_mirror<Device>(strata::paged_storage<f32_codec>(model, {4, most_tokens, 4, 300, 300}), seed);
  run_mirror<Device>(strata::contiguous_storage<f32_codec>(model, {4, most_tokens, 24, 24}), seed);
  // The storage copies no block of a device's memory: the mirror does.
  using paged = strata::paged_storage<f32_codec>;
  support::lent_memory<paged> const memory(model, {4, most_tokens, 4, 300, 300});
  std::mt19937 random(seed);
  for (auto const& all : {memory.k, memory.v})
    for (auto& b : all) b = static_cast<std::byte>(random());
  run_mirror<Device>(memory.make(), seed, true);
}

}  // namespace

TEST_CASE("cuda step mirror: the host's books, step after step") {
  for (auto const seed : support::sampled<std::uint32_t>({1, 2, 3, 4, 5, 6, 7, 8})) {
    CAPTURE(seed);
    run_mirror_on_all<host_device>(seed);
  }
}
TEST_CASE("cuda step mirror: the same where the device is late and nobody waits for it") {
  for (auto const seed : support::sampled<std::uint32_t>({1, 2, 3, 4, 5, 6, 7, 8}, 1)) {
    CAPTURE(seed);
    run_mirror_on_all<late_device>(seed);
  }
}
TEST_CASE("cuda step mirror: once made, it reads nothing of the storage any more") {
  strata::stack server(
      strata::paged_storage<strata::f32_codec>(model, {4, most_tokens, 4, 300, 300}),
      strata::reference_attention{});
  late_device const device;
  auto const mirror = late_mirror::make(device, server.storage(), 4096).value();
  CHECK(device.stream->num_waiting() == 0);
}

TEST_CASE("cuda step mirror: what changed otherwise than by steps takes room, up to a bound") {
  strata::stack server(strata::paged_storage<strata::f32_codec>(model, {4, 200, 4, 2000, 2000}),
                       strata::reference_attention{});
  auto const id = server.open(*strata::make_plan(strata::grouped_map(layers, 1), model)).value();
  auto const mirror_of = [&](std::int64_t changed) {
    return mirror_type::make({}, server.storage(), mirror_type::bytes_for(layers, 1, 4, 4, changed))
        .value();
  };
  auto without = mirror_of(0), with = mirror_of(192);
  auto const grow = [&](strata::sequence_id which, std::int32_t tokens, auto& mirror) {
    auto step = server.begin({which, tokens});
    REQUIRE(step.state().ok());
    auto const sent = mirror.send(step);
    mark_stored(step);
    return sent.ok() ? step.commit() : sent;
  };
  for (int i = 0; i < 48; ++i) REQUIRE(grow(id, 4, with).ok());
  auto const child = server.fork(id).value();
  auto const refused = grow(child, 1, without);
  CHECK(refused.code == strata::errc::mirror_too_small);
  CHECK(refused.bound <= mirror_type::bytes_for(layers, 1, 4, 4, 192));
  CHECK(grow(child, 1, without) == refused);  // it is still to be sent
  CHECK(grow(child, 1, with).ok());
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
