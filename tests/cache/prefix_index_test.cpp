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

#include <strata/cache/paged_storage.hpp>
#include <strata/cache/prefix_index.hpp>
#include <strata/map/table_map.hpp>

#include "support/print.hpp"
#include "support/sanitized.hpp"

using strata::errc;
using strata::layer_id;
using strata::prefix_owner;
using strata::reuse;
using strata::sequence_id;

namespace {

using storage_type = strata::paged_storage<strata::f32_codec>;
using index_type = strata::prefix_index<storage_type>;
using tokens_type = std::vector<std::int32_t>;

constexpr std::int32_t block_size = 4, window = 7, num_layers = 4;

strata::kv_classes classes(bool windows) {
  strata::layer_kind full, sliding;
  full.kv = sliding.kv = {.kv_heads = 1, .k_dim = 1, .v_dim = 1};
  if (windows) sliding.window = window;
  strata::layer_kind const layers[] = {full, sliding, full, sliding};
  return *strata::kv_classes::make(layers);
}

std::vector<strata::route_plan> plans(bool windows) {
  std::vector<strata::route_plan> all;
  for (auto const& sources :
       {tokens_type{0, 1, 2, 3}, {0, 0, 2, 2}, {0, 1, 0, 1}, {0, 0, 0, 0}, {0, 0, 2, 0}})
    all.push_back(*make_plan(*strata::table_map::make(sources), classes(windows)));
  return all;
}

bool stores_all(strata::route_plan const& plan, strata::route_plan const& fewer) {
  for (layer_id l{0}; l.index < num_layers; ++l.index)
    if (fewer[l].k.stored && !plan[l].k.stored) return false;
  return true;
}

/// What a layer's K (or V) of the last of these tokens would be: a number that the owner, the plan
/// and all tokens so far decide.
float value_of(prefix_owner const& owner, std::size_t plan, tokens_type const& tokens,
               std::size_t count, bool is_k, layer_id l) {
  std::uint64_t x = owner.model * 31 + owner.adapter * 37 + owner.tenant * 41 + plan * 43 +
                    static_cast<std::uint64_t>(l.index) * 47 + is_k;
  for (std::size_t i = 0; i < count; ++i)
    x = (x ^ static_cast<std::uint64_t>(tokens[i])) * 0xD1342543DE82EF95U + (x >> 29);
  return static_cast<float>(x >> 40);
}

/// A sequence as its engine knows it.
struct request {
  prefix_owner owner;
  std::size_t plan = 0;            // whose K and V its tokens have
  std::size_t computed_under = 0;  // of those that it took over
  std::size_t taken_over = 0;
  tokens_type tokens;  // computed so far
};

class engine {
 public:
  std::vector<strata::route_plan> all_plans;
  storage_type storage;
  index_type index;

  engine(bool windows, std::int32_t blocks, std::int32_t max_entries)
      : all_plans(plans(windows)),
        storage(make(windows, blocks)),
        index(*index_type::make(storage, {max_entries, 4})) {}

  static storage_type make(bool windows, std::int32_t blocks) {
    strata::paged_options options;
    options.max_sequences = 5;
    options.max_tokens = 40;
    options.block_size = block_size;
    options.k_blocks = options.v_blocks = blocks;
    return *storage_type::make(classes(windows), options);
  }

  float* element(sequence_id id, bool is_k, layer_id l, std::int32_t token) {
    auto const blocks = is_k ? storage.k_blocks(l) : storage.v_blocks(l);
    auto const row = is_k ? storage.k_row(id, l) : storage.v_row(id, l);
    return reinterpret_cast<float*>(blocks.at(row, 0, token));
  }

  /// Computes the rest of a prompt; false where there is no room.
  bool compute(sequence_id id, request& r, tokens_type const& prompt) {
    auto const first = static_cast<std::int32_t>(r.tokens.size());
    auto const count = static_cast<std::int32_t>(prompt.size()) - first;
    strata::growth const g{id, count};
    if (!storage.reserve({&g, 1}).ok()) return false;
    r.tokens = prompt;
    for (layer_id l{0}; l.index < num_layers; ++l.index)
      for (bool const is_k : {true, false})
        if (all_plans[r.plan][l].k.stored)
          for (auto t = first; t < first + count; ++t)
            *element(id, is_k, l, t) = value(r, static_cast<std::size_t>(t), is_k, l);
    storage.commit();
    return true;
  }
  static float value(request const& r, std::size_t t, bool is_k, layer_id l) {
    auto const plan = t < r.taken_over ? r.computed_under : r.plan;
    return value_of(r.owner, plan, r.tokens, t + 1, is_k, l);
  }

  /// Whether all tokens that a next query sees have the K and V that were computed for them.
  bool holds(sequence_id id, request const& r) {
    auto const length = static_cast<std::int32_t>(r.tokens.size());
    for (layer_id l{0}; l.index < num_layers; ++l.index) {
      auto const seen = storage.classes()[l].window;
      for (bool const is_k : {true, false})
        for (std::int32_t t = 0; all_plans[r.plan][l].k.stored && t < length; ++t)
          if (length - t < seen &&
              *element(id, is_k, l, t) != value(r, static_cast<std::size_t>(t), is_k, l))
            return false;
    }
    return true;
  }
};

tokens_type prompt_of(std::mt19937& random) {
  // Few different tokens, so that many prompts begin alike.
  tokens_type prompt(random() % 37 + 1);
  for (auto& token : prompt) token = static_cast<std::int32_t>(random() % 8 == 0);
  return prompt;
}

using known_key = std::pair<std::size_t, std::uint64_t>;  // plan, tenant

/// The longest prefix of a prompt that is known, in whole blocks, found by looking at all.
std::size_t longest_known(std::map<known_key, std::set<tokens_type>> const& known,
                          known_key const& key, tokens_type const& prompt) {
  auto const found = known.find(key);
  std::size_t longest = 0;
  if (found == known.end()) return 0;
  for (auto n = std::size_t{block_size}; n < prompt.size(); n += block_size)
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
        of_key.insert({prompt.begin(), prompt.begin() + b * block_size});
      if (learnt.ok()) REQUIRE(blocks == static_cast<std::int32_t>(prompt.size()) / block_size);
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

TEST_CASE("a match is of what the index knew") {
  engine e(false, 400, 10);
  tokens_type const prompt = {1, 2, 3, 4, 5};
  request r;
  auto const id = *e.storage.open(e.all_plans[0]);
  REQUIRE(e.compute(id, r, prompt));
  REQUIRE(e.index.insert(e.storage, id, prompt, {}).ok());
  auto const match = e.index.find(prompt, e.all_plans[0], {});
  CHECK(e.index.open(e.storage, e.all_plans[1], match).state().code == errc::not_a_subset);
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
