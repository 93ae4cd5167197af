// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Attention on real threads: the serial bits, run after run, and errors that come back.
#include <doctest/doctest.h>

#include <atomic>
#include <cstdint>
#include <vector>

#include <strata/thread_pool.hpp>

#include "support/attention_cases.hpp"
#include "support/cpu_kernels.hpp"
#include "support/print.hpp"

namespace {

using support::attention_call;
using support::attention_case;
using support::same_bits;
using problem32 = support::attention_problem<strata::f32_codec>;

/// Sequences that are streamed and split over shares, and some that are not; tiles of both kinds;
/// and a sequence without keys.
attention_case decode_and_prefill() {
  return {"", {1030, 0, 70, 513, 1100}, {1, 2, 70, 3, 12}, 4, 2, 16, 16};
}

}  // namespace

static_assert(strata::executor<strata::thread_pool>);

TEST_CASE("threads: a pool runs every share once, run after run") {
  strata::thread_pool pool(4);
  REQUIRE(pool.num_shares() == 4);
  std::vector<std::int32_t> runs(4);
  for (int round = 0; round < 500; ++round) {
    auto const s = pool.run([&](strata::share part) noexcept -> strata::status {
      if (part.nth == 4) ++runs[static_cast<std::size_t>(part.ith)];
      return {};
    });
    CHECK(s.ok());
  }
  for (auto const count : runs) CHECK(count == 500);
}

TEST_CASE("threads: the failure of the lowest share comes back, after all have run") {
  strata::thread_pool pool(3);
  for (int round = 0; round < 50; ++round) {
    std::atomic<int> ran = 0;
    auto const s = pool.run([&](strata::share part) noexcept -> strata::status {
      ++ran;
      if (part.ith == 0) return {};
      return {strata::errc::value_out_of_range, strata::no_layer, part.ith, part.nth};
    });
    CHECK(s == strata::status{strata::errc::value_out_of_range, strata::no_layer, 1, 3});
    CHECK(ran == 3);
    CHECK(pool.run([](strata::share) noexcept -> strata::status { return {}; }).ok());
  }
}

TEST_CASE("threads: attention on a pool gives the serial bits") {
  problem32 problem(decode_and_prefill());
  auto const view = problem.view();
  support::for_each_kernel([&](auto const& kernel) {
    attention_call<float> serial(problem);
    REQUIRE(serial.forward(kernel, view).ok());
    REQUIRE(serial.backward(kernel, view).ok());
    for (std::int32_t const threads : {1, 2, 3, 8}) {
      CAPTURE(threads);
      strata::thread_pool pool(threads);
      for (int round = 0; round < 5; ++round) {
        attention_call<float> call(problem);
        REQUIRE(call.forward(kernel, view, pool).ok());
        REQUIRE(call.backward(kernel, view, pool).ok());
        CHECK(same_bits(call.out, serial.out));
        CHECK(same_bits(call.lse, serial.lse));
        CHECK(same_bits(call.d_q, serial.d_q));
        CHECK(same_bits(call.dk, serial.dk));
        CHECK(same_bits(call.dv, serial.dv));
      }
    }
  });
}

TEST_CASE("threads: a refused attention call comes back as a status") {
  problem32 problem(decode_and_prefill());
  auto const view = problem.view();
  strata::thread_pool pool(3);
  support::for_each_kernel([&](auto const& kernel) {
    attention_call<float> call(problem);
    std::vector<std::byte> memory(
        support::as_size(kernel.workspace_bytes(call.rows, view, pool.num_shares()) - 1));
    auto const s = strata::attend(pool, kernel, call.rows, view, memory);
    CHECK(s.code == strata::errc::workspace_too_small);
    CHECK(s.bound == s.value + 1);
  });
}
