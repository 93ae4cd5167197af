// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <doctest/doctest.h>

#include <cstdint>
#include <string>

#include <strata/map/grouped_map.hpp>
#include <strata/map/identity_map.hpp>
#include <strata/map/leader_set.hpp>
#include <strata/map/table_map.hpp>
#include <strata/picture.hpp>

#include "support/models.hpp"

using strata::picture;

namespace {

strata::table_map map_of(std::initializer_list<std::int32_t> sources) {
  return *strata::table_map::make({sources.begin(), sources.size()});
}

}  // namespace

// Figure 4 of the paper, where layers 1 and 3 of 5 lead, counted from 1.
TEST_CASE("the paper's five layers") {
  CHECK(picture(*make_plan(strata::leader_set(5, {0, 2}))) ==
        "layer        0   1   2   3   4\n"
        "reads        0   0   2   2   2\n"
        "slot         0   .   1   .   .\n"
        "2 of 5 layers store K, 2 store V; the tail begins at layer 2\n");
}

TEST_CASE("K and V are drawn apart where they differ") {
  auto const plan =
      *make_plan(map_of({0, 1, 2, 2}), map_of({0, 1, 1, 0}), strata::kv_classes::uniform(4));
  CHECK(picture(plan) ==
        "layer        0   1   2   3\n"
        "K reads      0   1   2   2\n"
        "K slot       0   1   2   .\n"
        "V reads      0   1   1   0\n"
        "V slot       0   1   .   .\n"
        "3 of 4 layers store K, 2 store V; the tail begins at layer 2\n");
}

TEST_CASE("a layer without K/V reads and stores nothing") {
  CHECK(picture(*make_plan(strata::leader_set(8, {3}), support::linear_hybrid(8).classes())) ==
        "layer        0   1   2   3   4   5   6   7\n"
        "reads        .   .   .   3   .   .   .   3\n"
        "slot         .   .   .   0   .   .   .   .\n"
        "1 of 8 layers store K, 1 store V; the tail begins at layer 7\n");
}

TEST_CASE("numbers of three digits keep their columns") {
  auto const text = picture(*make_plan(strata::grouped_map(256, 128)));
  std::size_t const line = 10 + 4 * 256 + 1;
  CHECK(text.substr(line - 9, 9) == " 254 255\n");
  CHECK(text.substr(2 * line - 9, 9) == " 128 128\n");
  CHECK(text.substr(3 * line - 9, 9) == "   .   .\n");
  CHECK(text.substr(2 * line + 10 + 4 * 128, 4) == "   1");
  CHECK(text.substr(3 * line) ==
        "2 of 256 layers store K, 2 store V; the tail begins at layer 128\n");
}

// Drawn routes chain: layer 2 reads 1, although 1 reads 0 in its own attention.
TEST_CASE("a drawn route shows who reads and what is stored apart") {
  struct previous {
    constexpr strata::layer_id operator()(strata::candidates c, strata::draw_key) const noexcept {
      return c[c.preceding() > 0 ? c.preceding() - 1 : 0];
    }
  };
  CHECK(picture(*make_plan(previous{}, strata::kv_classes::uniform(4), {})) ==
        "layer        0   1   2   3\n"
        "reads        0   0   1   2\n"
        "slot         0   1   2   .\n"
        "3 of 4 layers store K, 3 store V; the tail begins at layer 2\n");
}
