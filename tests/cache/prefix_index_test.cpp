// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Prefixes found again: all that are known, none that is not, each with the K and V that were
// computed for it, and every block accounted for.
#include <doctest/doctest.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <map>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "support/prefix_engine.hpp"
#include "support/print.hpp"
#include "support/sanitized.hpp"

using strata::errc;
using strata::prefix_owner;
using strata::reuse;
using strata::sequence_id;
using support::prefixes::engine;
using support::prefixes::index_type;
using support::prefixes::prompt_of;
using support::prefixes::request;
using support::prefixes::stores_all;
using support::prefixes::tokens_type;

namespace prefixes = support::prefixes;

namespace {

using known_key = std::pair<std::size_t, std::uint64_t>;  // plan, tenant

/// The longest prefix of a prompt that is known, in whole blocks, found by looking at all.
std::size_t longest_known(std::map<known_key, std::set<tokens_type>> const& known,
                          known_key const& key, tokens_type const& prompt) {
  auto const found = known.find(key);
  std::size_t longest = 0;
  if (found == known.end()) return 0;
  for (auto n = std::size_t{prefixes::block_size}; n < prompt.size(); n += prefixes::block_size)
    if (found->second.contains({prompt.begin(), prompt.begin() + static_cast<std::ptrdiff_t>(n)}))
      longest = n;
  return longest;
}

}  // namespace

TEST_CASE("the longest known prefix is found, with its own K and V") {
  for (std::uint32_t seed = 1; seed <= 6; ++seed) {
    CAPTURE(seed);
    std::mt19937 random(seed);
    engine e(false, 4000, 1000);
    std::map<known_key, std::set<tokens_type>> known;
    std::int64_t found_some = 0;
    for (std::int32_t i = 0; i < 400 / support::case_step() + 20; ++i) {
      request r;
      r.plan = r.computed_under = random() % 5;
      r.owner.tenant = random() % 2;
      auto const prompt = prompt_of(random);
      auto const& plan = e.all_plans[r.plan];
      auto const match = e.index.find(prompt, plan, r.owner);
      auto const longest = longest_known(known, {r.plan, r.owner.tenant}, prompt);
      // Of 5 plans 4 fit: the fifth is not learnt.
      REQUIRE(match.num_tokens == static_cast<std::int32_t>(longest));
      REQUIRE(match.exact);
      auto const id = e.index.open(e.storage, plan, match);
      REQUIRE(id.ok());
      r.taken_over = longest;
      r.tokens.assign(prompt.begin(), prompt.begin() + static_cast<std::ptrdiff_t>(longest));
      found_some += longest > 0;
      REQUIRE(e.compute(*id, r, prompt));
      REQUIRE(e.holds(*id, r));
      auto const learnt = e.index.insert(e.storage, *id, prompt, r.owner);
      if (!learnt.ok()) REQUIRE(learnt.state().code == errc::too_many_plans);
      auto const blocks = learnt.ok() ? *learnt : 0;
      auto& of_key = known[{r.plan, r.owner.tenant}];
      for (std::int32_t b = 1; b <= blocks; ++b)
        of_key.insert({prompt.begin(), prompt.begin() + b * prefixes::block_size});
      if (learnt.ok())
        REQUIRE(blocks == static_cast<std::int32_t>(prompt.size()) / prefixes::block_size);
      REQUIRE(e.storage.close(*id).ok());
    }
    CHECK(found_some > (support::case_step() == 1 ? 100 : 1));
    e.index.clear(e.storage);
    CHECK(e.index.size() == 0);
    CHECK(e.storage.free_k_blocks() == 4000);
    CHECK(e.storage.free_v_blocks() == 4000);
  }
}

// Windows, subsets, an index and a pool that are both too small, and sequences that stay open.
TEST_CASE("whatever is found is what was computed") {
  std::int64_t found_exact = 0, found_subset = 0, evicted = 0, refused = 0;
  for (std::uint32_t seed = 1; seed <= 8; ++seed) {
    CAPTURE(seed);
    std::mt19937 random(seed);
    auto const blocks = 130;
    engine e(seed % 2 == 0, blocks, seed % 4 < 2 ? 12 : 60);
    std::map<std::int32_t, request> open;
    for (std::int32_t i = 0; i < 3000 / support::case_step(); ++i) {
      if (open.size() == 5 || (!open.empty() && random() % 3 == 0)) {
        auto const which =
            std::next(open.begin(), static_cast<std::ptrdiff_t>(random() % open.size()));
        REQUIRE(e.holds({which->first}, which->second));
        REQUIRE(e.storage.close({which->first}).ok());
        open.erase(which);
        continue;
      }
      request r;
      r.plan = r.computed_under = random() % 5;
      auto const prompt = prompt_of(random);
      auto const& plan = e.all_plans[r.plan];
      auto const how = random() % 2 == 0 ? reuse::exact : reuse::subset;
      auto const match = e.index.find(prompt, plan, r.owner, how);
      auto const id = e.index.open(e.storage, plan, match);
      REQUIRE(id.ok());
      r.taken_over = static_cast<std::size_t>(match.num_tokens);
      r.tokens.assign(prompt.begin(), prompt.begin() + match.num_tokens);
      if (match.num_tokens > 0) ++(match.exact ? found_exact : found_subset);
      // Whose they are shows in one of them.
      bool explained = match.exact || match.num_tokens == 0;
      for (std::size_t p = 0; p < 5 && !explained; ++p) {
        r.computed_under = p;
        explained = how == reuse::subset && stores_all(e.all_plans[p], plan) && e.holds(*id, r);
      }
      REQUIRE(explained);
      REQUIRE(e.holds(*id, r));
      if (!e.compute(*id, r, prompt)) {
        auto const freed = e.index.evict(e.storage, blocks, blocks);
        evicted += freed.k;
        REQUIRE(e.storage.close(*id).ok());
        continue;
      }
      auto const learnt = e.index.insert(e.storage, *id, prompt, r.owner);
      bool const approximate = learnt.state().code == errc::cache_approximate;
      REQUIRE(approximate == !(match.exact || match.num_tokens == 0));
      if (!learnt.ok() && !approximate) REQUIRE(learnt.state().code == errc::too_many_plans);
      refused += approximate;
      open[id->index] = r;
    }
    for (auto const& [id, r] : open) CHECK(e.storage.close({id}).ok());
    e.index.clear(e.storage);
    CHECK(e.storage.free_k_blocks() == blocks);
    CHECK(e.storage.free_v_blocks() == blocks);
  }
  auto const often = 300 / support::case_step();
  CHECK(found_exact >= often);
  CHECK(found_subset >= often);
  CHECK(refused >= often);
  CHECK(evicted >= often);
}

namespace {

/// Two blocks of the same hash: their first tokens differ so that half of what comes of them agrees,
/// which two of some 2^16 do, and their third tokens make up for the other half.
std::pair<tokens_type, tokens_type> colliding_blocks(std::uint64_t before) {
  constexpr std::uint64_t factor = 0x9E3779B97F4A7C15U;
  auto const after = [&](std::int32_t token) {
    auto const one = (std::rotl(before, 23) ^ static_cast<std::uint32_t>(token)) * factor;
    return std::rotl(std::rotl(one, 23) * factor, 23);
  };
  std::map<std::uint64_t, std::int32_t> seen;
  std::mt19937 random(1);
  for (std::int32_t i = 0; i < 1 << 18; ++i) {
    auto const token = static_cast<std::int32_t>(random());
    auto const [other, fresh] = seen.try_emplace(after(token) >> 32, token);
    if (fresh || other->second == token) continue;
    auto const third = static_cast<std::int32_t>(after(token) ^ after(other->second));
    return {{token, 0, 0, 7}, {other->second, 0, third, 7}};
  }
  return {};
}

}  // namespace

TEST_CASE("a hash that agrees is not believed") {
  prefix_owner const owner;
  auto const [one, other] = colliding_blocks(strata::detail::owner_hash(owner));
  REQUIRE(one != other);
  REQUIRE(strata::detail::block_hash(strata::detail::owner_hash(owner), one) ==
          strata::detail::block_hash(strata::detail::owner_hash(owner), other));
  engine e(false, 100, 10);
  auto const ask = [&](tokens_type prompt) {
    prompt.push_back(1);
    return e.index.find(prompt, e.all_plans[0], owner).num_tokens;
  };
  for (auto const* tokens : {&one, &other}) {
    CHECK(ask(*tokens) == 0);
    request r;
    auto const id = *e.storage.open(e.all_plans[0]);
    REQUIRE(e.compute(id, r, *tokens));
    CHECK(*e.index.insert(e.storage, id, *tokens, owner) == 1);
    CHECK(ask(*tokens) == 4);
  }
  CHECK(e.index.size() == 2);
}

TEST_CASE("an owner finds what is its own") {
  engine e(false, 100, 10);
  prefix_owner const owner{1, 2, 3};
  tokens_type const prompt = {1, 2, 3, 4, 5};
  request r;
  auto const id = *e.storage.open(e.all_plans[1]);
  REQUIRE(e.compute(id, r = {owner, 1, 1, 0, {}}, prompt));
  CHECK(*e.index.insert(e.storage, id, prompt, owner) == 1);
  auto const found = [&](prefix_owner const& who, std::size_t plan, reuse how = reuse::exact) {
    return e.index.find(prompt, e.all_plans[plan], who, how).num_tokens;
  };
  CHECK(found(owner, 1) == 4);
  CHECK(found({0, 2, 3}, 1) == 0);
  CHECK(found({1, 0, 3}, 1) == 0);
  CHECK(found({1, 2, 0}, 1) == 0);
  // The leaders of plan 4 are those of plan 1, but its last layer reads another.
  CHECK(found(owner, 4) == 0);
  CHECK(found(owner, 4, reuse::subset) == 4);
  CHECK(found(owner, 3) == 0);
  CHECK(found(owner, 3, reuse::subset) == 4);
  CHECK(found(owner, 0, reuse::subset) == 0);
}

TEST_CASE("owners whose hashes agree are not confused") {
  // mixed(mixed(mixed(model) + adapter) + tenant): the tenant makes up for the model.
  auto const before_tenant = [](std::uint64_t model) {
    return strata::detail::mixed(strata::detail::mixed(model));
  };
  prefix_owner const one{1, 0, 5}, other{2, 0, before_tenant(1) + 5 - before_tenant(2)};
  REQUIRE(strata::detail::owner_hash(one) == strata::detail::owner_hash(other));
  engine e(false, 100, 10);
  tokens_type const prompt = {1, 2, 3, 4, 5};
  request r{one, 0, 0, 0, {}};
  auto const id = *e.storage.open(e.all_plans[0]);
  REQUIRE(e.compute(id, r, prompt));
  CHECK(*e.index.insert(e.storage, id, prompt, one) == 1);
  CHECK(e.index.find(prompt, e.all_plans[0], one).num_tokens == 4);
  CHECK(e.index.find(prompt, e.all_plans[0], other).num_tokens == 0);
}

TEST_CASE("what an index does not learn") {
  engine e(false, 100, 10);
  request r;
  tokens_type const prompt = {1, 2, 3, 4, 5, 6, 7, 8};
  auto const id = *e.storage.open(e.all_plans[0]);
  REQUIRE(e.compute(id, r, prompt));
  auto const insert = [&](sequence_id s) {
    return e.index.insert(e.storage, s, prompt, {}).state();
  };
  CHECK(e.index.insert(e.storage, id, {prompt.data(), 7}, {}).state() ==
        strata::status{errc::too_few_tokens, strata::no_layer, 7, 8});
  CHECK(insert({4}).code == errc::unknown_sequence);
  REQUIRE(e.storage.shrink(id, e.all_plans[1]).ok());
  CHECK(insert(id) == strata::status{errc::cache_approximate, strata::no_layer, id.index, 0});
  CHECK(insert(*e.storage.fork(id)).code == errc::cache_approximate);
  // Emptied, it may begin anew; a gap is no better.
  REQUIRE(e.storage.truncate(id, 0).ok());
  strata::growth const gap{id, 4, 3};
  REQUIRE(e.storage.reserve({&gap, 1}).ok());
  CHECK(insert(id).code == errc::step_in_progress);
  e.storage.commit();
  CHECK(insert(id) == strata::status{errc::positions_gapped, strata::no_layer, 7, 4});
  CHECK(e.index.size() == 0);
  CHECK(index_type::make(e.storage, {0, 1}).state().code == errc::value_too_small);
  CHECK(index_type::make(e.storage, {1, 0}).state().code == errc::value_too_small);
}

TEST_CASE("where a plan and a greater one know as much, the exact one is taken") {
  for (bool const first : {false, true}) {
    engine e(false, 100, 10);
    tokens_type const prompt = {1, 2, 3, 4, 5};
    for (std::size_t const plan : {first ? 0U : 1U, first ? 1U : 0U}) {
      request r{{}, plan, plan, 0, {}};
      auto const id = *e.storage.open(e.all_plans[plan]);
      REQUIRE(e.compute(id, r, prompt));
      REQUIRE(e.index.insert(e.storage, id, prompt, {}).ok());
    }
    auto const match = e.index.find(prompt, e.all_plans[1], {}, reuse::subset);
    CHECK(match.num_tokens == 4);
    CHECK(match.exact);
  }
}
