// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What may happen to a sequence between steps, in a paged storage: forks, rollback of drafts, windows
// that let go of blocks, and shrinking. Whatever the past, a sequence computes what one of its own
// with the same tokens would.
#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <strata/cache/host_tier.hpp>
#include <strata/cache/prefix_index.hpp>
#include <strata/cache/snapshot.hpp>

#include "support/print.hpp"
#include "support/toy_plans.hpp"

namespace {

using paged_toys = std::tuple<
    support::toy_stack<strata::paged_storage<strata::f64_codec>>,
    support::toy_stack<strata::paged_storage<strata::f32_codec>>,
    support::toy_stack<strata::paged_storage<strata::f64_codec>, strata::cpu::blocked_attention>>;

using tokens_type = std::vector<std::int32_t>;

tokens_type joined(tokens_type a, tokens_type const& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

/// The last rows of a sequence's logits.
template <class T>
std::vector<T> last_rows(std::vector<T> const& logits, std::size_t rows, std::int32_t width) {
  return {logits.end() - static_cast<std::ptrdiff_t>(rows * static_cast<std::size_t>(width)),
          logits.end()};
}

support::storage_room const paged_room{
    .max_sequences = 8, .max_tokens = 40, .k_tensors = 40, .v_tensors = 40, .block_size = 4};

constexpr std::int32_t all_blocks = 40 * 10;  // of K, and of V

/// Six layers, all alike.
support::toy_shape six() {
  return {.name = "six", .layers = std::vector<strata::layer_kind>(6, support::toy_kind(2, 6, 4))};
}

/// Layers with windows of 5 and 9 among others.
support::toy_shape windowed() {
  auto const global = support::toy_kind(2, 6, 4);
  auto narrow = global, wide = global;
  narrow.window = 5;
  wide.window = 9;
  return {.name = "windows", .layers = {global, wide, narrow, global, narrow, wide}};
}

/// Of the windowed model: each layer its own, and some that share where windows allow.
std::vector<support::toy_plan> windowed_plans() {
  auto const classes = windowed().classes();
  return {support::named_plan("identity", strata::identity_map(6), classes),
          support::named_plan("narrow reads wide", support::table({0, 1, 1, 3, 1, 5}), classes),
          support::named_plan("all read the first", support::table({0, 0, 0, 0, 0, 0}), classes)};
}

}  // namespace

TEST_CASE_TEMPLATE_DEFINE("forks go on as if each had been alone", Toy, forks) {
  Toy toy(six(), {2, false}, paged_room);
  auto const width = toy.model.shape().width;
  // A partly filled last block, and a full one.
  for (std::int32_t const shared : {10, 12})
    for (auto const& p : support::plans_of_six(toy.model.shape().classes())) {
      CAPTURE(p.name);
      auto const prompt = support::toy_tokens(shared, 50);
      auto const parent = *toy.stack.open(p.plan);
      static_cast<void>(support::serve_in_chunks(toy.server, parent, prompt, {7, 3}));
      auto const before = toy.stack.storage().free_k_blocks();
      strata::sequence_id const all[] = {parent, *toy.stack.fork(parent), *toy.stack.fork(parent)};
      CHECK(toy.stack.storage().free_k_blocks() == before);
      tokens_type const more[] = {support::toy_tokens(5, 51), support::toy_tokens(5, 52),
                                  support::toy_tokens(5, 53)};
      // All at once, then token by token in turns.
      std::vector<typename Toy::number> got[3];
      for (std::size_t t = 0; t < 5; ++t) {
        std::vector<support::toy_entry> batch;
        for (std::size_t s = 0; s < 3; ++s)
          if (t < 2 || t % 3 != s) batch.push_back({all[s], {more[s][t]}});
        auto const both = toy.server.serve(batch);
        REQUIRE(both.state.ok());
        std::size_t row = 0;
        for (std::size_t s = 0; s < 3; ++s) {
          if (!(t < 2 || t % 3 != s)) {
            auto const one = toy.server.serve({{all[s], {more[s][t]}}});
            REQUIRE(one.state.ok());
            got[s].insert(got[s].end(), one.logits.begin(), one.logits.end());
            continue;
          }
          auto const from = both.logits.begin() + static_cast<std::ptrdiff_t>(row++) * width;
          got[s].insert(got[s].end(), from, from + width);
        }
      }
      for (std::size_t s = 0; s < 3; ++s) {
        auto const alone = toy.alone(p.plan, joined(prompt, more[s]), {7, 3, 1});
        CHECK(support::same_bits(got[s], last_rows(alone, 5, width)));
      }
      for (auto const id : all) CHECK(toy.stack.close(id).ok());
      CHECK(toy.stack.storage().free_k_blocks() == all_blocks);
    }
}
TEST_CASE_TEMPLATE_APPLY(forks, paged_toys);

TEST_CASE_TEMPLATE_DEFINE("a step of forks that is dropped leaves them shared", Toy,
                          dropped_forks) {
  Toy toy(six(), {}, paged_room);
  auto const p = support::plans_of_six(toy.model.shape().classes())[1];
  auto const prompt = support::toy_tokens(10, 54);
  auto const parent = *toy.stack.open(p.plan);
  static_cast<void>(support::serve_in_chunks(toy.server, parent, prompt, {10}));
  auto const child = *toy.stack.fork(parent);
  auto const before = toy.stack.storage().free_k_blocks();
  CHECK(toy.server.serve({{parent, {1, 2}}, {child, {3}}}, false).state.ok());
  CHECK(toy.stack.storage().free_k_blocks() == before);
  auto const got = toy.server.serve({{child, {4}}});
  auto const alone = toy.alone(p.plan, joined(prompt, {4}), {10, 1});
  CHECK(support::same_bits(got.logits, last_rows(alone, 1, toy.model.shape().width)));
}
TEST_CASE_TEMPLATE_APPLY(dropped_forks, paged_toys);

TEST_CASE_TEMPLATE_DEFINE("rejected drafts leave no trace", Toy, drafts) {
  for (bool const windows : {false, true}) {
    auto rolling = paged_room;
    rolling.max_rollback = 4;
    Toy toy(windows ? windowed() : six(), {2, false}, rolling);
    auto const width = toy.model.shape().width;
    auto const plans =
        windows ? windowed_plans() : support::plans_of_six(toy.model.shape().classes());
    for (auto const& p : plans) {
      CAPTURE(p.name);
      auto const tokens = support::toy_tokens(24, 55);
      auto const id = *toy.stack.open(p.plan);
      std::vector<typename Toy::number> got;
      for (std::size_t at = 0; at < tokens.size(); at += 2) {
        // Two that are right, and up to four that are not.
        tokens_type draft = {tokens[at], tokens[at + 1]};
        auto const wrong = at / 2 % 5;
        for (std::size_t i = 0; i < wrong; ++i) draft.push_back(49 - tokens[at]);
        auto const output = toy.server.serve({{id, draft}});
        REQUIRE(output.state.ok());
        got.insert(got.end(), output.logits.begin(), output.logits.begin() + 2 * width);
        REQUIRE(toy.stack.truncate(id, static_cast<std::int32_t>(at) + 2).ok());
      }
      auto const alone = toy.alone(p.plan, tokens, {2});
      CHECK(support::same_bits(got, alone));
      CHECK(toy.stack.close(id).ok());
      CHECK(toy.stack.storage().free_k_blocks() == all_blocks);
    }
  }
}
TEST_CASE_TEMPLATE_APPLY(drafts, paged_toys);

TEST_CASE_TEMPLATE_DEFINE("a prompt that begins like another goes on from there", Toy, prefixes) {
  for (bool const has_windows : {false, true}) {
    Toy toy(has_windows ? windowed() : six(), {2, false}, paged_room);
    using index_type = strata::prefix_index<typename Toy::storage_type>;
    auto index = *index_type::make(toy.stack.storage(), {.max_entries = 200});
    auto const plans =
        has_windows ? windowed_plans() : support::plans_of_six(toy.model.shape().classes());
    for (auto const& p : plans) {
      CAPTURE(p.name);
      auto const first = support::toy_tokens(21, 59);
      auto second = first;
      second[14] = 1 + second[14] % 40;  // the first three blocks of four are alike
      auto const id = *toy.stack.open(p.plan);
      // Learnt while it grows: windows let go of what they have passed.
      for (std::size_t const at : {0, 7, 14}) {
        auto const from = first.begin() + static_cast<std::ptrdiff_t>(at);
        REQUIRE(toy.server.serve({{id, {from, from + 7}}}).state.ok());
        REQUIRE(index.insert(toy.stack.between_steps(), id, first, {}).ok());
      }
      auto const found = index.find(second, p.plan, {});
      REQUIRE(found.num_tokens == 12);
      auto const before = toy.stack.storage().free_k_blocks();
      auto const other = index.open(toy.stack.between_steps(), p.plan, found);
      REQUIRE(other.ok());
      CHECK(toy.stack.storage().free_k_blocks() == before);
      auto const rest = tokens_type(second.begin() + 12, second.end());
      auto const got = support::serve_in_chunks(toy.server, *other, rest, {5, 1});
      auto const alone = toy.alone(p.plan, second, {7, 5, 5, 1});
      CHECK(support::same_bits(got, last_rows(alone, 9, toy.model.shape().width)));
      CHECK(toy.stack.close(id).ok());
      CHECK(toy.stack.close(*other).ok());
    }
    index.evict(toy.stack.between_steps(), all_blocks, all_blocks);
    CHECK(index.size() == 0);
    CHECK(toy.stack.storage().free_k_blocks() == all_blocks);
  }
}
TEST_CASE_TEMPLATE_APPLY(prefixes, paged_toys);

TEST_CASE_TEMPLATE_DEFINE("a sequence goes on elsewhere as if nothing had been", Toy, moves) {
  for (bool const has_windows : {false, true}) {
    auto const shape = has_windows ? windowed() : six();
    auto other_room = paged_room;
    other_room.block_size = 3;
    Toy here(shape, {2, false}, paged_room), there(shape, {2, false}, other_room);
    auto const plans =
        has_windows ? windowed_plans() : support::plans_of_six(here.model.shape().classes());
    auto const tokens = support::toy_tokens(24, 60);
    auto tier = *strata::host_tier<>::make(here.stack.storage(), {.bytes = 1 << 20});
    for (auto const& p : plans) {
      CAPTURE(p.name);
      strata::sequence_id const ids[] = {*here.stack.open(p.plan)};
      static_cast<void>(support::serve_in_chunks(here.server, ids[0],
                                                 {tokens.begin(), tokens.begin() + 17}, {11, 6}));
      std::vector<std::byte> file(
          static_cast<std::size_t>(*strata::snapshot_bytes(here.stack.storage(), ids)));
      strata::memory_sink sink(file);
      REQUIRE(strata::save(here.stack.storage(), ids, {1}, sink).ok());
      strata::sequence_id got[1];
      REQUIRE(strata::restore(there.stack.between_steps(), file, {1}, got).ok());
      auto const child = *here.stack.fork(ids[0]);
      auto const away = tier.offload(here.stack.between_steps(), child).value();
      tokens_type const rest(tokens.begin() + 17, tokens.end());
      auto const moved = support::serve_in_chunks(there.server, got[0], rest, {3, 1});
      auto const stayed = support::serve_in_chunks(here.server, ids[0], rest, {3, 1});
      CHECK(support::same_bits(moved, stayed));
      auto const back = tier.reload(there.stack.between_steps(), away).value();
      auto const returned = support::serve_in_chunks(there.server, back, rest, {3, 1});
      CHECK(support::same_bits(returned, stayed));
      CHECK(there.stack.close(back).ok());
      CHECK(here.stack.close(ids[0]).ok());
      CHECK(there.stack.close(got[0]).ok());
    }
  }
}
TEST_CASE_TEMPLATE_APPLY(moves, paged_toys);

// A chunk of 13 tokens reads rows that a window of 5 has passed by its end: they stay until then.
TEST_CASE_TEMPLATE_DEFINE("windows let go of blocks that no later query sees", Toy, windows) {
  Toy toy(windowed(), {2, false}, paged_room);
  for (auto const& p : windowed_plans()) {
    CAPTURE(p.name);
    auto const tokens = support::toy_tokens(33, 56);
    auto const dense = toy.dense(p.sources, tokens);
    for (auto const& chunks : std::vector<std::vector<std::size_t>>{{33}, {1}, {13, 1, 9}}) {
      auto const id = *toy.stack.open(p.plan);
      auto const got = support::serve_in_chunks(toy.server, id, tokens, chunks);
      CHECK(support::worst_error(got, dense) < Toy::bound);
      // By hand: 33 tokens are 9 blocks of 4. A window of 5 needs tokens from 29 on, of 9 from 25
      // on: 2 and 3 blocks.
      std::int32_t held = 0;
      for (strata::layer_id l{0}; l.index < 6; ++l.index)
        if (p.plan[l].k.stored) {
          auto const window = toy.model.kind(l).window;
          held += window == 5 ? 2 : window == 9 ? 3 : 9;
        }
      CHECK(toy.stack.storage().free_k_blocks() == all_blocks - held);
      CHECK(toy.stack.storage().free_v_blocks() == all_blocks - held);
      CHECK(toy.stack.close(id).ok());
      CHECK(toy.stack.storage().free_k_blocks() == all_blocks);
    }
  }
}
TEST_CASE_TEMPLATE_APPLY(windows, paged_toys);

TEST_CASE("what a window has let go does not come back") {
  support::toy_stack<strata::paged_storage<strata::f64_codec>> toy(windowed(), {}, paged_room);
  auto const id = *toy.stack.open(windowed_plans()[0].plan);
  static_cast<void>(support::serve_in_chunks(toy.server, id, support::toy_tokens(33, 57), {33}));
  // Of 33 tokens the window of 9 holds those from 24 on. Cut to 32, the next query sees 24 to 32.
  CHECK(toy.stack.truncate(id, 32).ok());
  auto const refused = toy.stack.truncate(id, 31);
  CHECK(refused == strata::status{strata::errc::window_let_go, {1}, 23, 24});
  CHECK(toy.stack.storage().length(id) == 32);
  CHECK(toy.stack.truncate(id, 0).ok());
  CHECK(toy.stack.storage().free_k_blocks() == all_blocks);
}

TEST_CASE_TEMPLATE_DEFINE("a cache that shrinks reads other layers from then on", Toy, shrinking) {
  Toy toy(six(), {2, false}, paged_room);
  auto const plans = support::plans_of_six(toy.model.shape().classes());
  auto const stores = [](auto const& route) { return route.stored; };
  auto const tokens = support::toy_tokens(22, 58);
  std::int32_t shrunk = 0, refused = 0;
  for (auto const& from : plans)
    for (auto const& to : plans) {
      CAPTURE(from.name);
      CAPTURE(to.name);
      bool subset = true;
      std::int32_t freed_k = 0, freed_v = 0;
      for (strata::layer_id l{0}; l.index < 6; ++l.index) {
        auto const &now = from.plan[l], &then = to.plan[l];
        subset = subset && (now.k.stored || !then.k.stored) && (now.v.stored || !then.v.stored);
        freed_k += stores(now.k) && !stores(then.k);
        freed_v += stores(now.v) && !stores(then.v);
      }
      auto const id = *toy.stack.open(from.plan);
      auto got =
          support::serve_in_chunks(toy.server, id, {tokens.begin(), tokens.begin() + 14}, {5, 9});
      auto const freed = toy.stack.shrink(id, to.plan);
      CHECK(freed.ok() == subset);
      if (freed.ok()) {
        // 14 tokens are 4 blocks of 4; K is [2, 6], V [2, 4].
        auto const block = [&](std::int64_t dim, std::int64_t element) {
          return (4 * 2 * dim * element + 63) / 64 * 64;
        };
        constexpr auto size = static_cast<std::int64_t>(sizeof(typename Toy::number));
        CHECK(freed->k == freed_k * 4 * block(6, size));
        CHECK(freed->v == freed_v * 4 * block(4, size));
        auto const rest = support::serve_in_chunks(toy.server, id,
                                                   {tokens.begin() + 14, tokens.end()}, {1, 1, 4});
        got.insert(got.end(), rest.begin(), rest.end());
        support::toy_change const change{14, to.sources};
        auto const dense = support::toy_oracle<typename Toy::storage_type::k_codec,
                                               typename Toy::storage_type::v_codec>(
            toy.model, from.sources, tokens, support::first_positions(tokens.size()), &change);
        CHECK(support::worst_error(got, dense) < Toy::bound);
        ++shrunk;
      } else {
        CHECK(freed.state().code == strata::errc::not_a_subset);
        CHECK(toy.stack.storage().plan(id) == from.plan);
        ++refused;
      }
      CHECK(toy.stack.close(id).ok());
      CHECK(toy.stack.storage().free_k_blocks() == all_blocks);
    }
  CHECK(shrunk >= 30);
  CHECK(refused >= 30);
}
TEST_CASE_TEMPLATE_APPLY(shrinking, paged_toys);
