// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What a mirror tells the launches of a step: the same addresses for as many sequences and rows, as
// many rows as tails leave, and rows that stay where the next launch wants them.
#include <doctest/doctest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include <strata/attention/reference.hpp>
#include <strata/cache/paged_storage.hpp>
#include <strata/map/grouped_map.hpp>
#include <strata/map/identity_map.hpp>
#include <strata/stack.hpp>

#include "cuda/step_mirrors.hpp"
#include "support/print.hpp"

namespace {

using namespace step_mirrors;

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
  device.stream->finish();
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
