// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Sequences that give up depth for others: who does, how far, and when it does not suffice.
#include <doctest/doctest.h>

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include <strata/cache/paged_storage.hpp>
#include <strata/cache/pressure.hpp>
#include <strata/map/strategy.hpp>

#include "support/print.hpp"

using strata::errc;
using strata::sequence_id;

namespace {

using pressed_storage_type = strata::paged_storage<strata::bf16_codec>;

constexpr std::int32_t pressed_layers = 8;

strata::route_plan plan_for(std::string const& strategy) {
  auto const classes = strata::kv_classes::uniform(pressed_layers);
  return *make_plan(*strata::parse_strategy(strategy, classes), classes);
}

/// 8, 4, 2 and 1 leaders.
std::vector<strata::route_plan> ladder() {
  return {plan_for("full"), plan_for("every:2"), plan_for("every:4"), plan_for("every:8")};
}

struct pressed_storage {
  std::vector<strata::route_plan> rungs = ladder();
  pressed_storage_type storage;
  std::vector<sequence_id> all;

  explicit pressed_storage(std::int32_t blocks)
      : storage(*pressed_storage_type::make(strata::kv_classes::uniform(pressed_layers),
                                            {8, 400, 4, blocks, blocks})) {}

  void add(std::int32_t tokens, std::size_t rung = 0) {
    all.push_back(*storage.open(rungs[rung]));
    strata::growth const g{all.back(), tokens};
    REQUIRE(storage.reserve({&g, 1}).ok());
    storage.commit();
  }
  std::int32_t rung(std::size_t i) const {
    for (std::size_t r = 0; r < rungs.size(); ++r)
      if (storage.plan(all[i]) == rungs[r]) return static_cast<std::int32_t>(r);
    return -1;
  }
  std::vector<std::int32_t> rungs_now() const {
    std::vector<std::int32_t> now;
    for (std::size_t i = 0; i < all.size(); ++i) now.push_back(rung(i));
    return now;
  }
  template <class Policy>
  strata::result<strata::pool_blocks> relieve(std::int32_t k, std::int32_t v,
                                              Policy const& policy) {
    return strata::relieve(storage, rungs, all, {k, v}, policy);
  }
};

using rung_list = std::vector<std::int32_t>;

}  // namespace

TEST_CASE("the longest gives up depth first, as far as is needed") {
  pressed_storage f(1000);
  f.add(40);     // 10 blocks in each of 8 layers
  f.add(100);    // 25
  f.add(60, 1);  // 15 in each of 4
  CHECK(f.storage.free_k_blocks() == 1000 - 80 - 200 - 60);
  CHECK(f.relieve(0, 0, strata::shrink_longest{})->k == 0);
  CHECK(f.rungs_now() == rung_list{0, 0, 1});
  auto const freed = f.relieve(40, 40, strata::shrink_longest{});
  REQUIRE(freed.ok());
  CHECK(freed->k == 100);  // the second: 8 to 4 layers
  CHECK(freed->v == 100);
  CHECK(f.rungs_now() == rung_list{0, 1, 1});
  // Next the second again, 2 x 25, then the first, 4 x 10.
  CHECK(f.relieve(90, 0, strata::shrink_longest{})->k == 90);
  CHECK(f.rungs_now() == rung_list{1, 2, 1});
}

TEST_CASE("evenly, no sequence is two rungs below another that could shrink") {
  pressed_storage f(1000);
  f.add(40);
  f.add(100);
  f.add(60, 1);
  CHECK(f.relieve(101, 0, strata::shrink_evenly{})->k == 140);
  CHECK(f.rungs_now() == rung_list{1, 1, 1});
  CHECK(f.relieve(11, 0, strata::shrink_evenly{}).ok());
  CHECK(f.rungs_now() == rung_list{1, 2, 1});
  CHECK(f.relieve(1, 0, strata::shrink_evenly{}).ok());
  CHECK(f.rungs_now() == rung_list{1, 2, 2});
}

TEST_CASE("what does not suffice is said, and stays freed") {
  pressed_storage f(100);
  f.add(40);
  auto const refused = f.relieve(75, 75, strata::shrink_evenly{}).state();
  CHECK(refused == strata::status{errc::out_of_k_blocks, strata::no_layer, 5, 90});
  CHECK(f.rungs_now() == rung_list{3});
  CHECK(f.relieve(0, 1, strata::shrink_evenly{}).state() ==
        strata::status{errc::out_of_v_blocks, strata::no_layer, 1, 90});
}

TEST_CASE("what a step is short of is what is freed for it") {
  pressed_storage f(100);
  f.add(40);  // 80 of K and of V
  f.all.push_back(*f.storage.open(f.rungs[0]));
  strata::growth const g{f.all[1], 12};  // 3 blocks in each of 8 layers
  auto const missing = f.storage.missing_blocks({&g, 1});
  REQUIRE(missing.ok());
  CHECK(missing->k == 4);
  CHECK(missing->v == 4);
  CHECK(f.storage.reserve({&g, 1}) ==
        strata::status{errc::out_of_k_blocks, strata::no_layer, 4, 20});
  REQUIRE(strata::relieve(f.storage, f.rungs, {f.all.data(), 1}, *missing, strata::shrink_longest{})
              .ok());
  CHECK(f.storage.missing_blocks({&g, 1})->k == 0);
  CHECK(f.storage.reserve({&g, 1}).ok());
}

// Two forks hold the same blocks: neither frees anything alone.
TEST_CASE("sequences that would free nothing keep their depth") {
  pressed_storage f(1000);
  f.add(40);
  f.all.push_back(*f.storage.fork(f.all[0]));
  f.add(12);
  CHECK(f.storage.freed_by_shrink(f.all[0], f.rungs[1]).k == 0);
  CHECK(f.relieve(1, 0, strata::shrink_longest{})->k == 12);
  CHECK(f.rungs_now() == rung_list{0, 0, 1});
  CHECK(f.relieve(100, 0, strata::shrink_longest{}).state().code == errc::out_of_k_blocks);
  CHECK(f.rungs_now() == rung_list{0, 0, 3});
  CHECK(!f.storage.approximate(f.all[0]));
  // Their own tokens are their own.
  strata::growth const g{f.all[1], 8};
  REQUIRE(f.storage.reserve({&g, 1}).ok());
  f.storage.commit();
  CHECK(f.storage.freed_by_shrink(f.all[1], f.rungs[1]).k == 4 * 2);
}

TEST_CASE("a sequence that shrinks to its own plan stays what it is") {
  pressed_storage f(1000);
  f.add(40);
  CHECK(f.storage.shrink(f.all[0], f.rungs[0])->k == 0);
  CHECK(!f.storage.approximate(f.all[0]));
}

TEST_CASE("a ladder that does not descend, and sequences that are not there, are refused") {
  pressed_storage f(200);
  f.add(40);
  std::vector<strata::route_plan> const crossing = {plan_for("every:2"), plan_for("leaders:0,3")};
  CHECK(strata::relieve(f.storage, crossing, f.all, {1, 0}, strata::shrink_longest{}).state() ==
        strata::status{errc::not_a_subset, {3}});
  sequence_id const unknown[] = {f.all[0], {5}};
  CHECK(
      strata::relieve(f.storage, f.rungs, unknown, {1, 0}, strata::shrink_longest{}).state().code ==
      errc::unknown_sequence);
  auto const wrong = [](std::span<strata::shrink_candidate const> all) noexcept {
    return all.size();
  };
  CHECK(f.relieve(1, 0, wrong).state().code == errc::value_too_large);
  CHECK(f.rungs_now() == rung_list{0});
  // Its first two rungs would do: a plan of another model behind them is found before.
  auto const other = *make_plan(*strata::parse_strategy("full", strata::kv_classes::uniform(1)),
                                strata::kv_classes::uniform(1));
  std::vector<strata::route_plan> const mixed = {plan_for("full"), plan_for("every:2"), other};
  CHECK(strata::relieve(f.storage, mixed, f.all, {199, 0}, strata::shrink_longest{}).state().code ==
        errc::plan_mismatch);
  CHECK(f.rungs_now() == rung_list{0});
  strata::growth const g{f.all[0], 1};
  REQUIRE(f.storage.reserve({&g, 1}).ok());
  CHECK(f.relieve(1, 0, strata::shrink_longest{}).state().code == errc::step_in_progress);
}

// A plan between two rungs goes to the next one that it covers; one that crosses stays.
TEST_CASE("plans that are none of the ladder's") {
  pressed_storage f(1000);
  auto const add = [&](std::string const& strategy) {
    f.all.push_back(*f.storage.open(plan_for(strategy)));
    strata::growth const g{f.all.back(), 40};
    REQUIRE(f.storage.reserve({&g, 1}).ok());
    f.storage.commit();
  };
  add("leaders:0,2,4,5");  // rung 0: only full stores as much
  add("leaders:0,4,5");
  add("leaders:0,3");
  CHECK(!f.relieve(1, 0, strata::shrink_evenly{}).ok());
  CHECK(f.storage.plan(f.all[0]) == plan_for("leaders:0,2,4,5"));  // every:2 stores 6, too
  CHECK(f.storage.plan(f.all[2]) == plan_for("leaders:0,3"));
}

TEST_CASE("either policy frees what the other does, whatever the sequences") {
  for (std::uint32_t seed = 1; seed <= 200; ++seed) {
    CAPTURE(seed);
    pressed_storage a(4000), b(4000);
    std::mt19937 random(seed);
    auto const count = random() % 6 + 1;
    for (std::uint32_t i = 0; i < count; ++i) {
      auto const tokens = static_cast<std::int32_t>(random() % 300);
      auto const rung = random() % 4;
      a.add(tokens, rung);
      b.add(tokens, rung);
    }
    auto const missing = static_cast<std::int32_t>(random() % 2500);
    auto const by_length = a.relieve(missing, missing, strata::shrink_longest{});
    auto const even = b.relieve(missing, missing, strata::shrink_evenly{});
    // All at the last rung are the least there can be.
    CHECK(by_length.ok() == even.ok());
    if (by_length.ok()) {
      CHECK(by_length->k >= missing);
      CHECK(even->v >= missing);
    } else {
      CHECK(a.rungs_now() == b.rungs_now());
    }
  }
}
