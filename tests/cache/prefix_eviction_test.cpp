// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What an index of prefixes forgets, and what it can still give: what nobody used for longest, blocks
// that none but it holds, and of windows what is left.
#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "support/prefix_engine.hpp"
#include "support/print.hpp"

using strata::errc;
using support::prefixes::engine;
using support::prefixes::request;
using support::prefixes::tokens_type;

TEST_CASE("eviction frees what nobody used for longest, and no more than was asked") {
  engine e(false, 100, 10);
  std::vector<tokens_type> const prompts = {{1, 1, 1, 1, 0}, {2, 2, 2, 2, 0}, {3, 3, 3, 3, 0}};
  for (auto const& prompt : prompts) {
    request r;
    r.plan = 3;
    auto const id = *e.storage.open(e.all_plans[3]);
    REQUIRE(e.compute(id, r, prompt));
    REQUIRE(e.index.insert(e.storage, id, prompt, {}).ok());
    REQUIRE(e.storage.close(id).ok());
  }
  auto const found = [&](std::size_t i) {
    return e.index.find(prompts[i], e.all_plans[3], {}).num_tokens > 0;
  };
  // Used again, the first is the youngest; the second is held by a sequence.
  REQUIRE(e.storage
              .close(*e.index.open(e.storage, e.all_plans[3],
                                   e.index.find(prompts[0], e.all_plans[3], {})))
              .ok());
  auto const held =
      *e.index.open(e.storage, e.all_plans[3], e.index.find(prompts[1], e.all_plans[3], {}));
  CHECK(e.storage.free_k_blocks() == 97);
  auto const freed = e.index.evict(e.storage, 1, 1);
  CHECK(freed.k == 1);
  CHECK(freed.v == 1);
  CHECK(found(0));
  CHECK(found(1));
  CHECK(!found(2));
  CHECK(e.index.evict(e.storage, 5, 5).k == 1);
  CHECK(!found(0));
  CHECK(found(1));
  CHECK(e.storage.close(held).ok());
  CHECK(e.index.evict(e.storage, 5, 0).k == 1);
  CHECK(e.storage.free_k_blocks() == 100);
}

TEST_CASE("eviction passes by what is held and goes on") {
  engine e(false, 400, 10);
  tokens_type const a = {1, 1, 1, 1, 2, 2, 2, 2, 0}, b = {3, 3, 3, 3, 4, 4, 4, 4, 0};
  auto const learn = [&](tokens_type const& prompt) {
    request r{{}, 3, 3, 0, {}};
    auto const id = *e.storage.open(e.all_plans[3]);
    REQUIRE(e.compute(id, r, prompt));
    REQUIRE(e.index.insert(e.storage, id, prompt, {}).ok());
    REQUIRE(e.storage.close(id).ok());
  };
  auto const found = [&](tokens_type const& prompt) {
    return e.index.find(prompt, e.all_plans[3], {}).num_tokens;
  };
  learn(a);
  learn(b);
  auto const begin = tokens_type(a.begin(), a.begin() + 5);
  auto const held =
      *e.index.open(e.storage, e.all_plans[3], e.index.find(begin, e.all_plans[3], {}));
  CHECK(e.index.evict(e.storage, 3, 3).k == 3);
  CHECK(found(a) == 4);
  CHECK(found(b) == 0);
  REQUIRE(e.storage.close(held).ok());
  e.index.clear(e.storage);
  learn(b);
  learn(a);
  CHECK(e.index.evict(e.storage, 2, 2).k == 2);
  CHECK(found(a) == 8);  // the one that was used last
  CHECK(found(b) == 0);
}

TEST_CASE("a sequence that is learnt for two owners can be forgotten") {
  engine e(false, 400, 10);
  tokens_type const prompt = {1, 2, 3, 4, 5};
  request r{{}, 3, 3, 0, {}};
  auto const id = *e.storage.open(e.all_plans[3]);
  REQUIRE(e.compute(id, r, prompt));
  for (std::uint64_t tenant = 0; tenant < 3; ++tenant)
    REQUIRE(e.index.insert(e.storage, id, prompt, {0, 0, tenant}).ok());
  CHECK(e.index.evict(e.storage, 1, 1).k == 0);  // the sequence holds it
  REQUIRE(e.storage.close(id).ok());
  CHECK(e.storage.free_k_blocks() == 399);
  CHECK(e.index.evict(e.storage, 1, 1).k == 1);
  CHECK(e.storage.free_k_blocks() == 400);
}

// A prompt that is learnt after its windows passed its beginning does not serve those that end
// sooner, until somebody brings what is missing.
TEST_CASE("plans that nothing is known of any more make room for others") {
  engine e(false, 400, 10);
  tokens_type const prompt = {1, 2, 3, 4, 5};
  auto const learn = [&](std::size_t plan) {
    request r{{}, plan, plan, 0, {}};
    auto const id = *e.storage.open(e.all_plans[plan]);
    REQUIRE(e.compute(id, r, prompt));
    auto const learnt = e.index.insert(e.storage, id, prompt, {});
    REQUIRE(e.storage.close(id).ok());
    return learnt;
  };
  for (std::size_t plan = 0; plan < 4; ++plan) CHECK(*learn(plan) == 1);
  CHECK(learn(4).state() == strata::status{errc::too_many_plans, strata::no_layer, 4, 4});
  e.index.clear(e.storage);
  CHECK(*learn(4) == 1);
}

TEST_CASE("an index that is too small for a prompt learns its beginning") {
  engine e(false, 100, 2);
  tokens_type const prompt = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13};
  request r;
  auto const id = *e.storage.open(e.all_plans[0]);
  REQUIRE(e.compute(id, r, {1, 2, 3, 4}));
  CHECK(*e.index.insert(e.storage, id, prompt, {}) == 1);
  REQUIRE(e.compute(id, r, prompt));
  CHECK(*e.index.insert(e.storage, id, prompt, {}) == 2);
  CHECK(e.index.find(prompt, e.all_plans[0], {}).num_tokens == 8);
}

TEST_CASE("what a window had let go is learnt later") {
  engine e(true, 400, 20);
  tokens_type prompt(25, 1);
  request r;
  auto id = *e.storage.open(e.all_plans[0]);
  REQUIRE(e.compute(id, r, prompt));
  CHECK(*e.index.insert(e.storage, id, prompt, {}) == 6);
  CHECK(e.index.find(prompt, e.all_plans[0], {}).num_tokens == 24);
  tokens_type const shorter(13, 1);
  CHECK(e.index.find(shorter, e.all_plans[0], {}).num_tokens == 0);
  REQUIRE(e.storage.close(id).ok());
  id = *e.storage.open(e.all_plans[0]);
  r = {};
  REQUIRE(e.compute(id, r, shorter));
  CHECK(*e.index.insert(e.storage, id, shorter, {}) == 3);
  auto const found = e.index.find(shorter, e.all_plans[0], {});
  REQUIRE(found.num_tokens == 12);
  auto const again = *e.index.open(e.storage, e.all_plans[0], found);
  request taken;
  taken.tokens.assign(shorter.begin(), shorter.begin() + 12);
  taken.taken_over = 12;
  CHECK(e.holds(again, taken));
  for (auto const s : {id, again}) REQUIRE(e.storage.close(s).ok());
  e.index.clear(e.storage);
  CHECK(e.storage.free_k_blocks() == 400);
}

TEST_CASE("of layers with a window a sequence takes over what it sees") {
  engine e(true, 100, 10);
  tokens_type const prompt = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17};
  request r;
  auto const id = *e.storage.open(e.all_plans[0]);
  for (auto const length : {4, 8, 12, 17}) {  // learnt before the window lets go of it
    REQUIRE(e.compute(id, r, {prompt.begin(), prompt.begin() + length}));
    REQUIRE(e.index.insert(e.storage, id, prompt, {}).ok());
  }
  REQUIRE(e.storage.close(id).ok());
  auto const match = e.index.find(prompt, e.all_plans[0], {});
  REQUIRE(match.num_tokens == 16);
  auto const again = *e.index.open(e.storage, e.all_plans[0], match);
  // Forgotten by the index, the blocks that are left are the sequence's: four of each full layer,
  // and of a window of 7, which sees tokens from 10 on, those from 8 on.
  e.index.clear(e.storage);
  CHECK(e.storage.free_k_blocks() == 100 - 2 * 4 - 2 * 2);
  CHECK(e.storage.close(again).ok());
  CHECK(e.storage.free_k_blocks() == 100);
}
TEST_CASE("a match is of what the index knew") {
  engine e(false, 400, 10);
  tokens_type const prompt = {1, 2, 3, 4, 5};
  request r;
  auto const id = *e.storage.open(e.all_plans[0]);
  REQUIRE(e.compute(id, r, prompt));
  REQUIRE(e.index.insert(e.storage, id, prompt, {}).ok());
  auto const match = e.index.find(prompt, e.all_plans[0], {});
  CHECK(e.index.open(e.storage, e.all_plans[1], match).state().code == errc::stale_match);
  engine other(false, 400, 10);  // whose blocks have the same numbers
  auto& foreign = other.storage;
  CHECK(e.index.open(foreign, e.all_plans[0], match).state().code == errc::other_storage);
  auto const theirs = *foreign.open(e.all_plans[0]);
  CHECK(e.index.insert(foreign, theirs, {}, {}).state().code == errc::other_storage);
  CHECK(e.index.evict(foreign, 1, 1).k == 0);
  e.index.clear(foreign);
  CHECK(foreign.free_k_blocks() == 400);
  REQUIRE(e.storage.close(id).ok());
  CHECK(e.index.evict(e.storage, 1, 1).k > 0);
  CHECK(e.index.open(e.storage, e.all_plans[0], match).state().code == errc::stale_match);
  CHECK(e.storage.free_k_blocks() == 400);
  // Nothing was found: an empty sequence.
  auto const none =
      e.index.open(e.storage, e.all_plans[0], e.index.find(prompt, e.all_plans[0], {}));
  REQUIRE(none.ok());
  CHECK(e.storage.length(*none) == 0);
}

// Prompt A, then B, then A again: B was not used for longest. A's beginning is held by a sequence.
