// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Tokens of a cache on every system of the host: which are kept, and where they go.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <new>
#include <utility>
#include <vector>

#include <strata/bulk/compact_tokens.hpp>
#include <strata/bulk/top_k.hpp>
#include <strata/cache/codec.hpp>
#include <strata/cache/element.hpp>
#include <strata/cache/int8_codec.hpp>

#include "bulk/systems.hpp"
#include "bulk/token_checks.hpp"
#include "support/print.hpp"

using namespace bulk_test;
using strata::errc;
using strata::status;
using strata::tensor;

namespace {

/// So many bytes at a time and no more.
struct limited_allocator {
  using value_type = char;
  std::size_t most;
  std::int64_t held = 0, allocations = 0;

  char* allocate(std::size_t bytes) {
    if (bytes > most) throw std::bad_alloc{};
    ++held, ++allocations;
    return static_cast<char*>(::operator new(bytes));
  }
  void deallocate(char* at, std::size_t) {
    --held;
    ::operator delete(at);
  }
};

}  // namespace

TEST_CASE("compacted tokens are those of a loop, in blocks of every kind") {
  for_each_host_system([](auto const& system) {
    CAPTURE(system.name);
    for (std::uint64_t seed = 0; seed < 300; ++seed) {
      CAPTURE(seed);
      CHECK(check_compact_tokens(system, true, seed) == "");
      CHECK(check_compact_tokens(system, false, seed) == "");
    }
    CHECK(check_positions(system) == "");
  });
}

TEST_CASE("tokens in place that do not fit into temporary memory at once") {
  constexpr std::int64_t width = 1 << 20;
  number_stream numbers(9);
  auto const before = random_bytes(40 * width, numbers);
  std::vector<std::int32_t> kept;
  for (std::int32_t t = 0; t < 40; ++t)
    if (t % 7 != 3) kept.push_back(t);
  auto expected = before;
  for (std::size_t j = 0; j < kept.size(); ++j)
    std::copy_n(before.begin() + kept[j] * width, width,
                expected.begin() + static_cast<std::int64_t>(j) * width);
  for_each_host_system([&](auto const& system) {
    auto data = before;
    strata::writable_blocks blocks;
    blocks.data = data.data();
    blocks.stride = {40 * width, width, width};
    blocks.block_size = 40;
    auto const count = static_cast<std::int32_t>(kept.size());
    CHECK(bulk::compact_tokens(system.policy, blocks, {kept.data(), count, count},
                               {.num_seqs = 1, .row_bytes = width})
              .ok());
    CHECK((data == expected));
  });
}

TEST_CASE("top_k takes what no other token beats, ties by the lower token, NaN never") {
  for_each_host_system([](auto const& system) {
    CAPTURE(system.name);
    for (std::uint64_t seed = 0; seed < 200; ++seed) {
      CAPTURE(seed);
      CHECK(check_top_k(system, seed) == "");
    }
    // Beyond what TBB sorts in one piece.
    CHECK(check_top_k(system, {nullptr, 3, 70'001, nullptr, 70'001}, 20'000, false, 1) == "");
    CHECK(check_top_k(system, {nullptr, 2000, 100, nullptr, 99}, 7, true, 2) == "");
  });
}

TEST_CASE("temporary memory comes from the policy, and what it has not got is refused") {
  struct system_with_memory {
    decltype(thrust::cpp::par(std::declval<limited_allocator&>())) policy;
    host_array<std::int32_t> upload(std::vector<std::int32_t> v) const {
      return host_array<std::int32_t>(std::move(v));
    }
  };
  limited_allocator memory{1 << 20};
  CHECK(check_positions(system_with_memory{thrust::cpp::par(memory)}) == "");
  CHECK(memory.allocations > 0);
  CHECK(memory.held == 0);

  limited_allocator none{0};
  std::vector<std::int32_t> positions = {0, 1, 2}, before = positions, kept = {0, 2};
  auto const blocks = bulk::position_blocks(positions.data(), 3, 3);
  CHECK(bulk::compact_tokens(thrust::cpp::par(none), blocks, {kept.data(), 2, 2},
                             {.num_seqs = 1, .row_bytes = 4}) ==
        status{errc::out_of_memory, {}, 8, 0});
  CHECK(positions == before);
  CHECK(none.held == 0);
  std::vector<float> const scores(100);
  std::vector<std::int32_t> tokens(3, -9);
  CHECK(
      bulk::top_k(thrust::cpp::par(none), {scores.data(), 1, 100, nullptr, 100}, 3, tokens).code ==
      errc::out_of_memory);
  CHECK(tokens == std::vector<std::int32_t>(3, -9));
}

TEST_CASE("a codec's tokens are moved as bytes") {
  using strata::bulk::token_shape;
  auto const plain = token_shape::of<strata::bf16_codec>(3, 2, 64);
  CHECK(plain.row_bytes == 128);
  CHECK(plain.scale_bytes == 0);
  auto const spans = token_shape::of<strata::int8_codec>(3, 2, 64);
  CHECK(spans.num_seqs == 3);
  CHECK(spans.kv_heads == 2);
  CHECK(spans.row_bytes == strata::int8_codec::row_bytes(64));
  CHECK(spans.scale_bytes == strata::int8_codec::scale_bytes(64));
}

TEST_CASE("tokens and scores that cannot be are refused, and nothing has moved") {
  std::vector<std::int32_t> values = {0, 1, 2, 3}, before = values;
  auto const blocks = bulk::position_blocks(values.data(), 4, 4);
  std::vector<std::int32_t> list = {0, 2};
  bulk::token_shape const shape{.num_seqs = 1, .row_bytes = 4};
  for_each_host_system([&](auto const& system) {
    auto const compact = [&](strata::writable_blocks const& at, std::vector<std::int32_t> kept,
                             bulk::token_shape const& given) {
      auto const count = static_cast<std::int32_t>(kept.size());
      return bulk::compact_tokens(system.policy, at, {kept.data(), count, count}, given);
    };
    CHECK(compact(blocks, {1, 4}, shape) == status{errc::length_beyond_blocks, {}, 4, 4});
    CHECK(compact(blocks, {2, 2}, shape) == status{errc::list_not_ascending, {}, 2, 2});
    CHECK(compact(blocks, {3, 1}, shape) == status{errc::list_not_ascending, {}, 1, 3});
    CHECK(compact(blocks, {-1, 1}, shape) == status{errc::list_not_ascending, {}, 1, -1});
    CHECK(compact({}, {1}, shape) == null_pointer(tensor::rows_read));
    CHECK(compact(blocks, {1}, {.num_seqs = 1, .row_bytes = 4, .scale_bytes = 4}) ==
          null_pointer(tensor::rows_read));
    CHECK(compact(blocks, {1}, {.num_seqs = -1, .row_bytes = 4}).code == errc::value_too_small);
    CHECK(compact(blocks, {1}, {.num_seqs = 1, .kv_heads = 0}).code == errc::value_too_small);
    CHECK(compact(blocks, {1}, {.num_seqs = 1, .row_bytes = -4}).code == errc::value_too_small);
    auto bad = blocks;
    bad.block_size = 0;
    CHECK(compact(bad, {1}, shape) == status{errc::bad_block_size, {}, 0, 1});
    CHECK(bulk::compact_tokens(system.policy, blocks, {nullptr, 1, 1}, shape) ==
          null_pointer(tensor::row_list));
    CHECK(bulk::compact_tokens(system.policy, blocks, {list.data(), -1, 1}, shape).code ==
          errc::value_too_small);
    constexpr auto most = std::numeric_limits<std::int64_t>::max();
    CHECK(compact(blocks, {0, 1}, {.num_seqs = 2, .row_bytes = most}).code == errc::size_overflow);
    CHECK(compact(blocks, {}, shape).ok());
    CHECK(values == before);
  });
}

TEST_CASE("top_k refuses sizes and lengths that cannot be") {
  std::vector<float> const scores(8);
  std::vector<std::int32_t> tokens(4), counts(2);
  for_each_host_system([&](auto const& system) {
    auto const top_k = [&](bulk::token_scores const& given, std::int32_t k) {
      return bulk::top_k(system.policy, given, k, tokens, counts);
    };
    bulk::token_scores const good{scores.data(), 2, 4, nullptr, 4};
    CHECK(top_k(good, 2).ok());
    CHECK(top_k(good, -1) == status{errc::value_too_small, {}, -1, 0});
    CHECK(top_k(good, 3) == status{errc::value_too_small, {}, 4, 6});
    auto bad = good;
    bad.data = nullptr;
    CHECK(top_k(bad, 2) == null_pointer(tensor::scores));
    bad = good, bad.stride = 3;
    CHECK(top_k(bad, 2) == status{errc::value_too_small, {}, 3, 4});
    bad = good, bad.num_segments = -1;
    CHECK(top_k(bad, 2).code == errc::value_too_small);
    bad = good, bad.num_segments = std::int64_t{1} << 32;
    CHECK(top_k(bad, 0).code == errc::value_too_large);
    bad = good, bad.length = -1;
    CHECK(top_k(bad, 2).code == errc::value_too_small);
    bad = good, bad.num_segments = 3;
    CHECK(top_k(bad, 1) == status{errc::value_too_small, {}, 2, 3});
    std::vector<std::int32_t> const lengths = {4, 5};
    bad = good, bad.lengths = lengths.data();
    CHECK(top_k(bad, 2) == status{errc::value_out_of_range, {}, 5, 5});
  });
}
