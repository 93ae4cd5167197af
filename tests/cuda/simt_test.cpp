// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The block of threads that tests run kernels in: that it shows what would go wrong on a device.
#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "support/simt.hpp"

namespace {

using simt::arrival;
using simt::block;
using simt::order;

constexpr order orders[] = {order::ascending, order::descending, order::shuffled};

float& cell(block const& b, std::int32_t i) { return reinterpret_cast<float*>(b.memory())[i]; }

/// Every thread writes its cell and reads its neighbour's. Whether all read what was written.
template <class Wait>
bool neighbours_agree(order o, Wait const& wait) {
  bool agree = true;
  simt::launch(
      {2, 96, 4 * 96},
      [&](block const& b) {
        cell(b, b.thread()) = static_cast<float>(b.thread());
        wait(b);
        auto const next = (b.thread() + 1) % 96, before = (b.thread() + 95) % 96;
        if (cell(b, next) != static_cast<float>(next)) agree = false;
        if (cell(b, before) != static_cast<float>(before)) agree = false;
      },
      o);
  return agree;
}

/// Two warps read stages that each brings half of, with a barrier before the next stage is sent for
/// or without. Whether both read what belongs to the stage.
bool stages_are_whole(order o, arrival copies, bool waits) {
  constexpr int stages = 3;
  std::vector<float> from;
  for (int i = 0; i < stages * 64 * 4; ++i) from.push_back(static_cast<float>(i / (64 * 4)));
  bool whole = true;
  simt::launch(
      {1, 64, 16 * 64},
      [&](block const& b) {
        for (int i = 0; i < stages; ++i) {
          auto const* const source =
              reinterpret_cast<std::byte const*>(&from[4 * (64 * i + b.thread())]);
          b.copy_async<16>(b.memory() + 16 * b.thread(), source, true);
          b.commit_copies();
          b.wait_copies<0>();
          b.sync();
          b.sync_warp();
          auto const other = (b.thread() + 32) % 64;
          if (cell(b, 4 * other) != static_cast<float>(i)) whole = false;
          if (waits) b.sync();
        }
      },
      o, copies);
  return whole;
}

}  // namespace

static_assert(strata::cuda::detail::thread_block<block>);

TEST_CASE("simt: sync waits for the block, and where it is missing that shows") {
  for (auto const o : orders) {
    CHECK(neighbours_agree(o, [](block const& b) { b.sync(); }));
    CHECK_FALSE(neighbours_agree(o, [](block const&) {}));
    if (o != order::shuffled)  // then the warps run together
      CHECK_FALSE(neighbours_agree(o, [](block const& b) { b.sync_warp(); }));
  }
}

TEST_CASE("simt: shared memory holds NaN before it is written") {
  simt::launch({1, 32, 128}, [](block const& b) { REQUIRE(std::isnan(cell(b, b.thread()))); });
}

TEST_CASE("simt: a copy arrives when its thread waits for it") {
  std::vector<strata::cuda::detail::chunk> from(32);
  std::memset(from.data(), 0, 16 * from.size());
  auto const moved = simt::launch({1, 32, 512}, [&](block const& b) {
    auto* const to = b.memory() + 16 * b.thread();
    auto const* const source = reinterpret_cast<std::byte const*>(&from[0]) + 16 * b.thread();
    b.copy_async<16>(to, source, b.thread() % 2 == 0);
    b.commit_copies();
    b.commit_copies();  // an empty group
    b.wait_copies<2>();
    REQUIRE(std::isnan(cell(b, 4 * b.thread())));
    b.wait_copies<1>();
    REQUIRE(cell(b, 4 * b.thread()) == 0);
  });
  CHECK(moved.async_bytes == 16 * 16);  // what is not wanted is not read
}

TEST_CASE("simt: a copy arrives at once where that is asked for, what nobody wants as zeros") {
  std::vector<float> const from(4 * 32, 3.f);
  auto const moved = simt::launch(
      {1, 32, 512},
      [&](block const& b) {
        auto* const to = b.memory() + 16 * b.thread();
        auto const* const source = reinterpret_cast<std::byte const*>(&from[4 * b.thread()]);
        b.copy_async<16>(to, source, b.thread() % 2 == 0);
        REQUIRE(cell(b, 4 * b.thread()) == (b.thread() % 2 == 0 ? 3 : 0));
        b.commit_copies();
        b.wait_copies<0>();
      },
      order::ascending, arrival::at_once);
  CHECK(moved.async_bytes == 16 * 16);
}

TEST_CASE("simt: who overwrites what another warp still reads is seen") {
  for (auto const o : orders)
    for (auto const copies : {arrival::at_wait, arrival::at_once}) {
      CHECK(stages_are_whole(o, copies, true));
      if (o != order::shuffled) CHECK_FALSE(stages_are_whole(o, copies, false));
    }
}

TEST_CASE("simt: shuffles and votes") {
  simt::launch({1, 64, 0}, [](block const& b) {
    auto const lane = b.thread() % 32, warp = b.thread() / 32;
    REQUIRE(b.shuffle_xor(b.thread(), 5) == (lane ^ 5) + 32 * warp);
    REQUIRE(b.shuffle(b.thread(), 7) == 7 + 32 * warp);
    REQUIRE(b.any(b.thread() == 40) == (warp == 1));
    REQUIRE_FALSE(b.any(false));
  });
}

TEST_CASE("simt: what would hang or fault on a device ends the run") {
  auto const run = [](auto const& body) { simt::launch({1, 64, 64}, body); };
  CHECK_THROWS_AS(run([](block const& b) {
                    if (b.thread() < 10) b.sync();
                  }),
                  std::logic_error);
  CHECK_THROWS_AS(run([](block const& b) {
                    if (b.thread() != 3) b.sync_warp();
                  }),
                  std::logic_error);
  CHECK_THROWS_AS(run([](block const& b) {
                    if (b.thread() % 2 == 0)
                      b.sync_warp();
                    else
                      b.any(true);
                  }),
                  std::logic_error);
  alignas(16) static std::byte const memory[32] = {};
  CHECK_THROWS_AS(run([](block const& b) { b.load(memory + 4); }), std::logic_error);
  CHECK_THROWS_AS(run([](block const& b) { b.copy_async<16>(b.memory() + 64, memory, true); }),
                  std::logic_error);
  CHECK_THROWS_AS(run([](block const& b) { b.copy_async<8>(b.memory() + 4, memory, true); }),
                  std::logic_error);
}
