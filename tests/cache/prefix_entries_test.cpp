// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The table of an index of prefixes beside a list, in buckets that are few and full, so that probes
// run on and wrap around.
#include <doctest/doctest.h>

#include <cstdint>
#include <random>
#include <vector>

#include <strata/detail/prefix_entries.hpp>

#include "support/print.hpp"

namespace {

struct known_entry {
  std::uint64_t hash;
  std::int32_t token, entry;
};

}  // namespace

TEST_CASE("entries are found until they are removed, whatever their hashes") {
  constexpr std::int32_t most = 8;  // in 16 buckets
  for (std::uint32_t seed = 1; seed <= 20; ++seed) {
    CAPTURE(seed);
    std::mt19937 random(seed);
    strata::detail::prefix_entries entries;
    REQUIRE(entries.prepare(most, 1, 1).ok());
    std::vector<known_entry> known;
    for (std::int32_t i = 0; i < 2000; ++i) {
      auto const hash = random() % 4 + (random() % 2 == 0 ? 13 : 0) + (random() % 2 << 20);
      if (known.size() < most && random() % 2 == 0) {
        strata::detail::prefix_entry e;
        e.hash = hash;
        e.plan = 0;
        REQUIRE(!entries.full());
        known.push_back({hash, i, entries.add(e, {&i, 1})});
      } else if (!known.empty()) {
        auto const which = known.begin() + static_cast<std::ptrdiff_t>(random() % known.size());
        entries.remove(which->entry);
        known.erase(which);
      }
      REQUIRE(entries.size() == static_cast<std::int32_t>(known.size()));
      bool all = true;
      for (auto const& k : known) {
        all &= entries.find(k.hash, -1, {}, 0, {&k.token, 1}) == k.entry;
        auto const another = k.token + 1'000'000;
        all &= entries.find(k.hash, -1, {}, 0, {&another, 1}) == -1;
      }
      REQUIRE(all);
      // The order of use is that of the list.
      auto at = entries.oldest();
      for (auto const& k : known) {
        all &= at == k.entry;
        at = entries.newer_than(at);
      }
      REQUIRE(all);
      REQUIRE(at == -1);
    }
  }
}
