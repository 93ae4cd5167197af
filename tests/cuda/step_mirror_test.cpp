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
#include <type_traits>
#include <utility>
#include <vector>

#include <strata/attention/reference.hpp>
#include <strata/cache/contiguous_storage.hpp>
#include <strata/cache/paged_storage.hpp>
#include <strata/cuda/detail/step_mirror_on.hpp>
#include <strata/map/grouped_map.hpp>
#include <strata/map/identity_map.hpp>
#include <strata/stack.hpp>

#include "support/deferred_device.hpp"
#include "support/host_memory_device.hpp"
#include "support/print.hpp"
#include "support/simt_attention.hpp"

namespace {

using strata::layer_id;
using mirror_type =
    strata::cuda::detail::step_mirror_on<support::host_memory_device<support::simt_launcher>>;
/// Nothing happens there before it is waited for.
using late_device = support::deferred_device<support::simt_launcher>;
using late_mirror = strata::cuda::detail::step_mirror_on<late_device>;

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

/// What an engine whose launches have been enqueued has told the step.
template <class Step>
void mark_stored(Step& step) {
  for (layer_id l{0}; l.index < layers; ++l.index) {
    for (auto const& r : step.k_writers(l)) r.mark_stored();
    for (auto const& r : step.v_writers(l)) r.mark_stored();
  }
}

void wait_for(support::host_memory_device<support::simt_launcher> const&) {}
void wait_for(late_device const& device) { device.stream->finish(); }

/// 60 steps of random batches. `on_device`: the storage's memory is said to be, and is random. Of a
/// device that does things late, two of three steps are sent and nobody waits for them.
template <class Device, class Storage>
void run(Storage storage, std::uint32_t seed, bool on_device = false) {
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

}  // namespace

namespace {

template <class Device>
void run_on_all(std::uint32_t seed) {
  using strata::f32_codec;
  run<Device>(strata::paged_storage<f32_codec>(model, {4, most_tokens, 4, 300, 300}), seed);
  run<Device>(strata::contiguous_storage<f32_codec>(model, {4, most_tokens, 24, 24}), seed);
  // The storage copies no block of a device's memory: the mirror does.
  using paged = strata::paged_storage<f32_codec>;
  strata::paged_options const options{4, most_tokens, 4, 300, 300};
  auto const bytes = paged::memory_bytes(model, options).value();
  std::vector<strata::cuda::detail::chunk> memory(static_cast<std::size_t>(bytes.k + bytes.v) / 16 +
                                                  8);
  auto const all = std::as_writable_bytes(std::span(memory));
  std::mt19937 random(seed);
  for (auto& b : all) b = static_cast<std::byte>(random());
  auto const off = reinterpret_cast<std::uintptr_t>(all.data()) % 64;
  auto const k = all.subspan((64 - off) % 64, static_cast<std::size_t>(bytes.k));
  std::span const v(k.data() + k.size(), static_cast<std::size_t>(bytes.v));
  run<Device>(paged::make(model, options, {k, v, true}).value(), seed, true);
}

}  // namespace

TEST_CASE("cuda step mirror: the host's books, step after step") {
  for (std::uint32_t seed = 1; seed <= 8; ++seed) {
    CAPTURE(seed);
    run_on_all<support::host_memory_device<support::simt_launcher>>(seed);
  }
}
TEST_CASE("cuda step mirror: the same where the device is late and nobody waits for it") {
  for (std::uint32_t seed = 1; seed <= 8; ++seed) {
    CAPTURE(seed);
    run_on_all<late_device>(seed);
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

namespace {

/// How many rows launches of a step take, layer by layer: those of K, of V, of queries.
template <class Step>
std::vector<std::int32_t> counts_of(mirror_type const& mirror, Step& step) {
  std::vector<std::int32_t> all;
  float x = 0;
  strata::layer_queries<float> const queries{.q = &x, .out = &x, .q_heads = 2};
  for (layer_id l{0}; layers > l.index; ++l.index) {
    all.push_back(mirror.k_side(step, l, queries.q, true).num_rows);
    all.push_back(mirror.v_side(step, l, queries.q, true).num_rows);
    all.push_back(mirror.queries(step, l, queries).value().known_rows);
  }
  return all;
}

/// By the rule of tails: rows of sequences of `tokens` tokens each, whose tails begin at `tails`.
std::vector<std::int32_t> counts_by_tails(std::vector<std::int32_t> const& tails,
                                          std::int32_t tokens, std::int32_t wanted) {
  std::vector<std::int32_t> all;
  for (std::int32_t l = 0; l < layers; ++l) {
    std::int32_t input = 0, live = 0;
    for (auto const tail : tails) {
      input += l <= tail ? tokens : wanted;
      live += l < tail ? tokens : wanted;
    }
    all.insert(all.end(), {input, input, live});
  }
  return all;
}

/// Sequences whose tails begin at layers 5, 4, 3 and 0, three of them to a batch.
struct tails_server {
  std::vector<std::int32_t> tails{5, 4, 3, 0};
  strata::stack<strata::paged_storage<strata::f32_codec>, strata::reference_attention> stack{
      strata::paged_storage<strata::f32_codec>(model, {4, most_tokens, 4, 300, 300}), {}};
  std::vector<strata::sequence_id> ids;
  static constexpr std::array<std::array<int, 3>, 3> batches{{{0, 1, 2}, {1, 2, 3}, {3, 0, 1}}};

  tails_server() {
    for (auto const every : {1, 2, 3, 6})
      ids.push_back(
          stack.open(*strata::make_plan(strata::grouped_map(layers, every), model)).value());
  }
  std::vector<strata::batch_entry> batch(std::array<int, 3> const& three, std::int32_t tokens,
                                         strata::logits wanted) const {
    std::vector<strata::batch_entry> all;
    for (auto const i : three) all.push_back({ids[static_cast<std::size_t>(i)], tokens, wanted});
    return all;
  }
};

}  // namespace

TEST_CASE("cuda step mirror: as many sequences and rows find their tables at the same addresses") {
  tails_server server;
  auto mirror =
      mirror_type::make({}, server.stack.storage(), mirror_type::bytes_for(layers, 3, 6, 4))
          .value();
  std::vector<void const*> first;
  for (auto const wanted : {strata::logits::all, strata::logits::last, strata::logits::none})
    for (auto const& three : server.batches) {
      auto step = server.stack.begin(server.batch(three, 2, wanted));
      REQUIRE(mirror.send(step).ok());
      auto const now = addresses_of(mirror, step);
      if (first.empty()) first = now;
      CHECK(now == first);
      // But the numbers of rows are those of their tails.
      std::vector<std::int32_t> tails;
      for (auto const i : three) tails.push_back(server.tails[static_cast<std::size_t>(i)]);
      CHECK(counts_of(mirror, step) == counts_by_tails(tails, 2, static_cast<int>(wanted)));
    }
}

TEST_CASE("cuda step mirror: decode has the same launches whatever the plans, a prompt has not") {
  tails_server server;
  auto mirror =
      mirror_type::make({}, server.stack.storage(), mirror_type::bytes_for(layers, 3, 6, 4))
          .value();
  auto const counts = [&](std::array<int, 3> const& three, std::int32_t tokens,
                          strata::logits wanted) {
    auto step = server.stack.begin(server.batch(three, tokens, wanted));
    REQUIRE(mirror.send(step).ok());
    return counts_of(mirror, step);
  };
  std::vector<std::int32_t> const threes(3 * layers, 3);
  for (auto const& three : server.batches) CHECK(counts(three, 1, strata::logits::all) == threes);
  CHECK(counts(server.batches[0], 2, strata::logits::last) !=
        counts(server.batches[1], 2, strata::logits::last));
}

TEST_CASE("cuda step mirror: attention refuses more rows than its bounds") {
  tails_server server;
  auto mirror =
      mirror_type::make({}, server.stack.storage(), mirror_type::bytes_for(layers, 3, 6, 4))
          .value();
  auto step = server.stack.begin({{server.ids[0], 1}, {server.ids[1], 3}, {server.ids[2], 2}});
  REQUIRE(mirror.send(step).ok());
  mark_stored(step);
  std::vector<float> x(6 * 2 * 16), out(6 * 2 * 16);
  strata::layer_queries<float> const queries{.q = x.data(), .out = out.data(), .q_heads = 2};
  auto const rows = mirror.queries(step, {0}, queries).value();
  auto const keys = mirror.view(step, {0}).value();
  std::vector<std::byte> workspace(1 << 16);
  auto const attend = [&](strata::cuda::launch_bounds const& bounds) {
    auto kernel = support::simt_attention<64>();
    kernel.bounds = bounds;
    strata::serial_executor here;
    return strata::attend(here, kernel, rows, keys, workspace);
  };
  CHECK(attend({.rows = 5, .rows_per_seq = 3}) ==
        strata::status{strata::errc::rows_beyond_bounds, strata::no_layer, 6, 5});
  CHECK(attend({.rows = 6, .rows_per_seq = 2}) ==
        strata::status{strata::errc::rows_beyond_bounds, strata::no_layer, 3, 2});
  CHECK(attend({.rows_per_seq = 1}) ==
        strata::status{strata::errc::rows_beyond_bounds, strata::no_layer, 6, 3});
  CHECK(attend({.rows = 6, .rows_per_seq = 3}).ok());
}

namespace {

/// Rows that stay are told by their numbers: element c of batch row r is 100 r + c.
template <class T, class Keep>
void check_kept(std::span<std::int32_t const> from, std::span<std::int32_t const> kept,
                std::int32_t width, late_device const& device, Keep const& keep) {
  std::vector<T> x;
  for (auto const row : from)
    for (std::int32_t c = 0; c < width; ++c) x.push_back(static_cast<T>(100 * row + c));
  REQUIRE(keep(x.data()).ok());
  wait_for(device);
  std::size_t at = 0;
  for (auto const row : kept)
    for (std::int32_t c = 0; c < width; ++c) REQUIRE(x[at++] == static_cast<T>(100 * row + c));
}

template <class T>
void check_keeps(std::int32_t width) {
  tails_server server;
  late_device const device;
  auto mirror =
      late_mirror::make(device, server.stack.storage(), late_mirror::bytes_for(layers, 4, 64, 4))
          .value();
  using strata::logits;
  for (auto const& [a, b, c, d] :
       {std::array{logits::last, logits::last, logits::last, logits::last},
        std::array{logits::all, logits::last, logits::none, logits::last},
        std::array{logits::none, logits::all, logits::last, logits::all},
        std::array{logits::none, logits::none, logits::none, logits::none}}) {
    std::vector<strata::batch_entry> const batch{{server.ids[0], 7, a},
                                                 {server.ids[1], 1, b},
                                                 {server.ids[3], 12, c},
                                                 {server.ids[2], 5, d}};
    auto step = server.stack.begin(batch);
    REQUIRE(mirror.send(step).ok());
    for (layer_id l{0}; layers > l.index; ++l.index)
      check_kept<T>(step.input_rows(l), step.live_rows(l), width, device,
                    [&](T* x) { return mirror.keep_live(step, l, x, width); });
    check_kept<T>(step.live_rows({layers - 1}), step.logit_rows(), width, device,
                  [&](T* x) { return mirror.keep_logits(step, {layers - 1}, x, width); });
  }
}

}  // namespace

TEST_CASE("cuda step mirror: live rows and rows that want logits move to the front") {
  check_keeps<float>(3);
  check_keeps<float>(8);
  check_keeps<std::int16_t>(24);
  check_keeps<std::int16_t>(9);
  check_keeps<std::int32_t>(1100);
}

TEST_CASE("cuda step mirror: rows that want logits where no plan has a tail") {
  // The last layer's state needs every token.
  strata::layer_kind const with{.kv = {.kv_heads = kv_heads, .k_dim = 8, .v_dim = 16}};
  auto without = with;
  without.has_kv = false;
  std::array const kinds{with, with, without};
  auto const classes = strata::kv_classes::make(kinds).value();
  strata::stack server(
      strata::paged_storage<strata::f32_codec>(classes, {3, most_tokens, 4, 99, 99}),
      strata::reference_attention{});
  std::vector<strata::batch_entry> batch;
  for (auto const& [tokens, wanted] :
       {std::pair{5, strata::logits::last}, {3, strata::logits::none}, {9, strata::logits::last}})
    batch.push_back({server.open(*strata::make_plan(strata::identity_map(3), classes)).value(),
                     tokens, wanted});
  late_device const device;
  auto mirror =
      late_mirror::make(device, server.storage(), late_mirror::bytes_for(3, 3, 17, 4)).value();
  auto step = server.begin(batch);
  REQUIRE(mirror.send(step).ok());
  REQUIRE(step.live_rows({2}).size() == 17);
  REQUIRE(step.logit_rows().size() == 2);
  for (std::int32_t const width : {5, 300})
    check_kept<float>(step.live_rows({2}), step.logit_rows(), width, device,
                      [&](float* x) { return mirror.keep_logits(step, {2}, x, width); });
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
