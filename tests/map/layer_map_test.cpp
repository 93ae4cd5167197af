// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The check of laws 1 and 3, on maps that are broken on purpose.
#include <doctest/doctest.h>

#include <cstdint>
#include <vector>

#include <strata/map/layer_map.hpp>

#include "support/models.hpp"
#include "support/print.hpp"

using strata::errc;
using strata::layer_id;
using strata::status;

namespace {

/// Layer `at` reads `source`, every other layer itself.
struct one_layer_reads {
  std::int32_t layers, at, other;
  constexpr std::int32_t num_layers() const noexcept { return layers; }
  constexpr layer_id source(layer_id l) const noexcept {
    return l.index == at ? layer_id{other} : l;
  }
};

/// Everybody reads the layer before.
struct chain {
  std::int32_t layers;
  constexpr std::int32_t num_layers() const noexcept { return layers; }
  constexpr layer_id source(layer_id l) const noexcept { return {l.index > 0 ? l.index - 1 : 0}; }
};

/// A map that says itself that something is wrong.
struct complains {
  constexpr std::int32_t num_layers() const noexcept { return -1; }
  constexpr layer_id source(layer_id l) const noexcept { return l; }
  constexpr status check() const noexcept { return {errc::unsupported, {1}, 2, 3}; }
};

struct no_num_layers {
  layer_id source(layer_id l) const noexcept { return l; }
};
struct may_throw {
  std::int32_t num_layers() const noexcept { return 1; }
  layer_id source(layer_id l) const { return l; }
};
struct answers_a_number {
  std::int32_t num_layers() const noexcept { return 1; }
  std::int32_t source(layer_id l) const noexcept { return l.index; }
};
struct owns_memory {
  std::vector<layer_id> table;
  std::int32_t num_layers() const noexcept { return 1; }
  layer_id source(layer_id l) const noexcept { return table[0] < l ? table[0] : l; }
};

}  // namespace

static_assert(strata::layer_map<one_layer_reads> && strata::layer_map<chain>);
static_assert(!strata::layer_map<no_num_layers>);
static_assert(!strata::layer_map<may_throw>);
static_assert(!strata::layer_map<answers_a_number>);
static_assert(!strata::layer_map<owns_memory>);
static_assert(!strata::layer_map<int>);

TEST_CASE("a source must exist and must not be above its reader") {
  auto const checked = [](std::int32_t at, std::int32_t source) {
    return strata::check(one_layer_reads{6, at, source});
  };
  CHECK(checked(3, 3).ok());
  CHECK(checked(3, 0).ok());
  CHECK(checked(3, -1) == status{errc::no_leader_before, {3}, -1, 0});
  CHECK(checked(0, -7) == status{errc::no_leader_before, {0}, -7, 0});
  CHECK(checked(3, 4) == status{errc::source_above_reader, {3}, 4, 3});
  CHECK(checked(3, 5) == status{errc::source_above_reader, {3}, 5, 3});
  CHECK(checked(0, 1) == status{errc::source_above_reader, {0}, 1, 0});
  CHECK(checked(3, 6) == status{errc::source_out_of_range, {3}, 6, 6});
  CHECK(checked(5, 400) == status{errc::source_out_of_range, {5}, 400, 6});
}

TEST_CASE("a source must lead, and the first layer that breaks a law is named") {
  CHECK(strata::check(chain{1}).ok());
  CHECK(strata::check(chain{2}).ok());
  CHECK(strata::check(chain{9}) == status{errc::source_not_a_leader, {2}, 1, 0});
}

TEST_CASE("a source must be of the reader's KV class and stage, and have K/V") {
  auto const classes = support::crazy_quilt().classes();
  auto const checked = [&](std::int32_t at, std::int32_t source) {
    return strata::check(one_layer_reads{15, at, source}, classes);
  };
  CHECK(checked(4, 1).ok());
  CHECK(checked(4, 2) == status{errc::class_mismatch, {4}, 2, 0});
  CHECK(checked(4, 0) == status{errc::source_without_kv, {4}, 0, 0});
  CHECK(checked(8, 4) == status{errc::stage_mismatch, {8}, 4, 0});
  CHECK(checked(7, 4).ok());
  CHECK(checked(4, 3) == status{errc::window_too_small, {4}, 3, 64});
  CHECK(checked(7, 3) == status{errc::window_too_small, {7}, 3, 64});
}

TEST_CASE("layers without K/V are not asked") {
  auto const classes = support::linear_hybrid(8).classes();
  CHECK(strata::check(one_layer_reads{8, 5, 999}, classes).ok());
  CHECK(strata::check(one_layer_reads{8, 7, 999}, classes).code == errc::source_out_of_range);
}

TEST_CASE("the depths of map and model must agree, and be depths") {
  CHECK(strata::check(chain{0}) == status{errc::no_layers, {}, 0, 1});
  CHECK(strata::check(chain{257}) == status{errc::too_many_layers, {}, 257, 256});
  CHECK(strata::check(chain{2}, strata::kv_classes::uniform(3)) ==
        status{errc::layer_count_mismatch, {}, 2, 3});
}

TEST_CASE("a map's own complaint comes first") {
  CHECK(strata::check(complains{}) == status{errc::unsupported, {1}, 2, 3});
}

TEST_CASE("leaders are the layers that read themselves") {
  CHECK(strata::num_leaders(one_layer_reads{6, 3, 0}) == 5);
  CHECK(strata::num_leaders(one_layer_reads{6, 3, 3}) == 6);
  CHECK(strata::num_leaders(chain{6}) == 1);

  // A layer without K/V leads nobody, whatever the map says about it.
  auto const hybrid = support::linear_hybrid(8).classes();
  CHECK(strata::num_leaders(one_layer_reads{8, 7, 7}, hybrid) == 2);
  CHECK(strata::num_leaders(one_layer_reads{8, 7, 3}, hybrid) == 1);
}
