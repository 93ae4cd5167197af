// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The memory of caches: small and large, owned once, and never more than was asked for.
#include <strata/detail/large_memory.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include <strata/cache/contiguous_storage.hpp>
#include <strata/map/identity_map.hpp>

#include "support/print.hpp"

using strata::errc;
using strata::detail::large_memory;

namespace {

std::int64_t beyond(large_memory const& memory, std::int64_t boundary) {
  return static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(memory.data())) % boundary;
}

/// One layer of 1 KiB a token, in float, for K and V each.
strata::contiguous_storage<strata::f32_codec> storage_of(std::int32_t tokens) {
  strata::layer_kind kind;
  kind.kv = {.kv_heads = 2, .k_dim = 128, .v_dim = 128};
  auto const classes = strata::kv_classes::uniform(1, kind);
  auto const plan = *make_plan(strata::identity_map(1), classes);
  return *strata::contiguous_storage<strata::f32_codec>::make(
      classes, strata::contiguous_options::for_plan(plan, 1, tokens));
}

}  // namespace

TEST_CASE("memory has the size asked for, at a cache line, large ones at a huge page") {
  for (std::int64_t const bytes :
       {std::int64_t{1}, std::int64_t{100}, large_memory::large - 1, large_memory::large,
        large_memory::large + 1, 5 * large_memory::huge_page - 64}) {
    CAPTURE(bytes);
    large_memory memory;
    REQUIRE(memory.allocate(bytes).ok());
    CHECK(memory.size() == bytes);
    CHECK(beyond(memory, 64) == 0);
    if (bytes >= large_memory::large) CHECK(beyond(memory, large_memory::huge_page) == 0);
    std::fill_n(memory.data(), bytes, std::byte{7});
    CHECK(std::count(memory.data(), memory.data() + bytes, std::byte{7}) == bytes);
  }
}

TEST_CASE("little memory is not given a huge page each") {
  std::vector<large_memory> all(16);
  for (auto& memory : all) REQUIRE(memory.allocate(100).ok());
  CHECK(std::any_of(all.begin(), all.end(), [](auto const& memory) {
    return beyond(memory, large_memory::huge_page) != 0;
  }));
}

TEST_CASE("memory moves, is replaced by another size, and refuses what cannot be") {
  large_memory first;
  REQUIRE(first.allocate(large_memory::large).ok());
  auto* const data = first.data();
  data[0] = std::byte{3};
  large_memory second = std::move(first);
  CHECK(second.data() == data);
  CHECK(second.data()[0] == std::byte{3});
  CHECK(second.allocate(-1).code == errc::size_overflow);
  CHECK(second.allocate(std::int64_t{1} << 60).code == errc::out_of_memory);
  CHECK(second.data() == data);  // a refusal changes nothing
  REQUIRE(second.allocate(10).ok());
  CHECK(second.size() == 10);
  first = std::move(second);
  CHECK(first.size() == 10);
}

TEST_CASE("a storage allocates what it says, below and above the size of huge pages") {
  for (std::int32_t const tokens : {1, 5000, 12345}) {
    CAPTURE(tokens);
    auto storage = storage_of(tokens);
    CHECK(storage.allocated_bytes() == std::int64_t{2} * tokens * 1024);
    auto const id = *storage.open(*make_plan(strata::identity_map(1)));
    strata::growth const grow[] = {{id, tokens}};
    REQUIRE(storage.reserve(grow).ok());
    auto const k = storage.k_blocks({0}), v = storage.v_blocks({0});
    std::fill_n(k.data, std::int64_t{tokens} * 1024, std::byte{1});
    std::fill_n(v.data, std::int64_t{tokens} * 1024, std::byte{2});
    CHECK(k.data[std::int64_t{tokens} * 1024 - 1] == std::byte{1});
    CHECK(v.data[0] == std::byte{2});
    storage.commit();
    CHECK(storage.length(id) == tokens);
  }
}
