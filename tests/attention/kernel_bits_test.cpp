// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Laws 5 and 9 for every kernel: the bits of a sequence depend on nothing but the sequence; its
// rows may come all at once or one by one, its keys in one call or in many.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include <strata/attention/online_softmax.hpp>
#include <strata/attention/reference.hpp>
#include <strata/cache/codec.hpp>
#include <strata/cache/int8_codec.hpp>

#include "attention/kernel_instances.hpp"
#include "support/attention_cases.hpp"
#include "support/cpu_kernels.hpp"
#include "support/kernel_checks.hpp"
#include "support/print.hpp"
#include "support/sanitized.hpp"
#include "support/single_sequence.hpp"

namespace {

using support::as_size;
using support::attention_call;
using support::attention_case;
using support::same_bits;
using support::sampled;
using support::tensor_distance;
using problem32 = support::attention_problem<strata::f32_codec>;
using problem_f16 = support::attention_problem<strata::f16_codec>;
using problem_mixed = support::attention_problem<strata::bf16_codec, strata::int8_codec>;

/// Runs the shares of a job in an order drawn anew for every job.
class shuffled_executor {
 public:
  shuffled_executor(std::int32_t shares, std::uint64_t seed) : shares_(shares), stream_(seed) {}

  std::int32_t num_shares() const noexcept { return shares_; }

  template <class Body>
  strata::status run(Body&& body) noexcept {
    std::vector<std::int32_t> order;
    for (std::int32_t i = 0; i < shares_; ++i)
      order.insert(order.begin() + stream_.below(i + 1), i);
    strata::status failure;
    for (auto const ith : order)
      if (auto const s = body(strata::share{ith, shares_}); !s.ok()) failure = s;
    return failure;
  }

 private:
  std::int32_t shares_;
  support::number_stream stream_;
};
static_assert(strata::executor<shuffled_executor>);

/// Where row tiles differ by the number of shares: the largest by one, smaller by 2, the least by 7.
attention_case prompts() { return {"prompts", {180, 530}, {180, 400}, 12, 1, 24, 24}; }

/// Batches of decode, of prefill and of both, on either side of every split.
std::vector<attention_case> batches_on_split_ends() {
  std::vector<attention_case> list = {
      {"decode", {1100, 3, 64, 0, 513, 512}, {1, 1, 1, 1, 1, 1}, 8, 2, 64, 64},
      {"decode and prefill", {1100, 3, 130, 513, 20}, {2, 3, 130, 20, 0}, 4, 2, 80, 72},
      {"drafts", {600, 70, 513}, {5, 2, 4}, 12, 3, 128, 128},
      {"sinks, softcap, part of the keys", {700, 1030, 9}, {4, 1, 3}, 16, 1, 96, 96}};
  list[0].layout = {16, 16};
  list[1].layout = {16, 3};
  list[2].layout = {0, 17, true, true};
  list[2].rule.window = 100;
  list[2].gaps = list[2].lengths_per_head = true;
  list[3].sinks = true;
  list[3].rule.softcap = 2;
  list[3].key_begin = 5, list[3].key_end = 900;
  // Heads of one sequence whose last splits differ: 515 tokens and 510, 1030 and 1020.
  list.push_back({"lengths per head", {515, 1030, 2, 1540}, {1, 2, 1, 4}, 8, 4, 32, 48});
  list.back().layout = {16, 0, false, true};
  list.back().gaps = list.back().lengths_per_head = true;
  // What is streamed between what is tiled, and sequences without rows before, between and behind.
  list.push_back({"all kinds",
                  {70, 1100, 900, 20, 1, 1030, 600, 0, 40},
                  {0, 1, 30, 0, 1, 5, 9, 3, 0},
                  8,
                  2,
                  40,
                  24});
  list.back().layout = {16, 16};
  list.back().gaps = true;
  list.back().rule.window = 700;
  list.push_back(prompts());
  // Tokens so long, and heads so many, that tiles are short and heads come in two groups somewhere.
  list.push_back({"many heads", {545, 31, 63, 1056, 33}, {1, 1, 1, 2, 1}, 40, 40, 48, 48});
  list.push_back(list.back());
  list.back().name += ", in blocks";
  list.back().layout = {16, 16};
  list.back().rule.window = 500;
  return list;
}

void check_same_bits(attention_call<float> const& a, attention_call<float> const& b) {
  CHECK(same_bits(a.out, b.out));
  CHECK(same_bits(a.lse, b.lse));
  CHECK(same_bits(a.d_q, b.d_q));
  CHECK(same_bits(a.dk, b.dk));
  CHECK(same_bits(a.dv, b.dv));
}

template <class Problem>
void check_bits_of_shares(attention_case const& c) {
  CAPTURE(c.name);
  Problem problem(c);
  auto const view = problem.view();
  support::for_each_kernel([&](auto const& kernel) {
    attention_call<float> serial(problem);
    REQUIRE(serial.forward(kernel, view).ok());
    REQUIRE(serial.backward(kernel, view).ok());
    auto const check = [&](auto&& exec) {
      attention_call<float> call(problem);
      REQUIRE(call.forward(kernel, view, exec).ok());
      REQUIRE(call.backward(kernel, view, exec).ok());
      check_same_bits(call, serial);
    };
    for (auto const shares : sampled<std::int32_t>({1, 2, 3, 7, 16, 31}, 3)) {
      CAPTURE(shares);
      check(support::share_executor{shares, false});
      check(support::share_executor{shares, true});
      check(shuffled_executor(shares, 1));
    }
  });
}

template <class Problem>
void check_neighbours(attention_case const& c) {
  CAPTURE(c.name);
  Problem problem(c);
  auto const view = problem.view();
  support::for_each_kernel([&](auto const& kernel) {
    attention_call<float> batch(problem), alone(problem);
    REQUIRE(batch.forward(kernel, view, support::share_executor{3}).ok());
    REQUIRE(batch.backward(kernel, view, support::share_executor{3}).ok());
    for (std::int32_t s = 0; s < problem.num_seqs(); ++s)
      support::run_alone(kernel, alone, problem, s);
    check_same_bits(batch, alone);
  });
}

/// Rows [first, last) of a call with one sequence, and only the keys before `keys`.
template <class Kernel>
void forward_rows(Kernel const& kernel, attention_call<float>& call, problem32& problem,
                  std::int32_t first, std::int32_t last, std::int32_t keys) {
  auto const& c = problem.shape();
  auto view = problem.view();
  view.rows.lengths = nullptr;
  view.rows.length = keys;
  auto const whole = call.rows;
  call.rows.offsets = nullptr;
  call.rows.rows_per_seq = last - first;
  call.rows.q += first * c.q_heads * c.k_dim;
  call.rows.out += first * c.q_heads * c.v_dim;
  call.rows.lse += first * c.q_heads;
  call.rows.positions += first;
  CHECK(call.forward(kernel, view).ok());
  call.rows = whole;
}

/// One call over all keys against calls over parts of them, in any order of merging.
template <class Kernel>
void check_merge(Kernel const& kernel, problem32& problem, attention_call<double> const& exact,
                 std::vector<std::pair<std::int64_t, std::int64_t>> const& ranges) {
  auto const& c = problem.shape();
  attention_call<float> merged(problem, ranges[0].first, ranges[0].second);
  REQUIRE(merged.forward(kernel, problem.view()).ok());
  for (std::size_t r = 1; r < ranges.size(); ++r) {
    attention_call<float> next(problem, ranges[r].first, ranges[r].second);
    REQUIRE(next.forward(kernel, problem.view()).ok());
    for (std::size_t i = 0; i < next.lse.size(); ++i)
      strata::merge(&merged.out[i * as_size(c.v_dim)], merged.lse[i],
                    &next.out[i * as_size(c.v_dim)], next.lse[i], c.v_dim);
  }
  // An lse of size n is known to n roundings, and so is the weight that comes of it.
  auto const lse = tensor_distance(exact.lse, exact.lse).magnitude;
  auto const out = tensor_distance(exact.out, exact.out).magnitude;
  CHECK(tensor_distance(merged.lse, exact.lse).error <= 8 * 0x1p-24 * (1 + lse));
  CHECK(tensor_distance(merged.out, exact.out).error <= 8 * 0x1p-24 * (1 + lse) * (1 + out));
}

}  // namespace

TEST_CASE("kernels: the number of shares and their order change no bit") {
  auto const batches = batches_on_split_ends();
  for (auto const& c : sampled(support::attention_cases())) check_bits_of_shares<problem32>(c);
  for (auto const& c : sampled(batches, 5)) check_bits_of_shares<problem32>(c);
  for (auto const& c : sampled(batches, 4)) check_bits_of_shares<problem_f16>(c);
  for (auto const& c : sampled(batches, 2)) check_bits_of_shares<problem_mixed>(c);
}

TEST_CASE("kernels: the number of shares changes no bit where a value is infinite") {
  // Rows before it are in one tile with some that see it, or not, as tiles are cut.
  problem32 problem(prompts());
  std::vector<float> row = support::random_values<float>(24, 9);
  row[3] = std::numeric_limits<float>::infinity();
  for (std::int32_t const token : {160, 300, 391}) {
    problem.write_v(1, 0, token, row);
    auto const view = problem.view();
    support::for_each_kernel([&](auto const& kernel) {
      attention_call<float> serial(problem);
      REQUIRE(serial.forward(kernel, view).ok());
      for (std::int32_t const shares : {2, 3, 7, 16}) {
        attention_call<float> call(problem);
        REQUIRE(call.forward(kernel, view, support::share_executor{shares}).ok());
        CHECK(same_bits(call.out, serial.out));
        CHECK(same_bits(call.lse, serial.lse));
      }
    });
  }
}

TEST_CASE("kernels: batches of all kinds are within the bound") {
  for (auto const& c : sampled(batches_on_split_ends(), 3)) support::check_bound<problem32>(c);
  for (auto const& c : sampled(batches_on_split_ends(), 2)) support::check_bound<problem_mixed>(c);
}

TEST_CASE("kernels: neighbours in the batch change no bit") {
  for (auto const& c : sampled(batches_on_split_ends(), 5)) check_neighbours<problem32>(c);
  for (auto const& c : sampled(batches_on_split_ends(), 1)) check_neighbours<problem_f16>(c);
}

TEST_CASE("kernels: positions up to the last of 32 bits change no bit") {
  for (bool const implied : {false, true}) {
    attention_case c{"", {600, 70}, {3, 60}, 8, 2, 64, 64};
    c.gaps = true;
    c.no_positions = implied;
    c.rule.window = 90;
    problem32 problem(c);
    auto const near = problem.view();
    auto const last = std::max(near.positions(0, 0)[599], near.positions(1, 0)[69]);
    // The end of the keys is one position after the last, and has to exist as well.
    auto const shift = (std::numeric_limits<std::int32_t>::max)() - 1 - last;
    auto far = near;
    std::vector<std::int32_t> keys(as_size(2 * near.rows.position_seq_stride)), rows;
    support::for_each_token(near, [&](auto s, auto h, auto t) {
      keys[as_size(near.positions(s, h) - near.rows.positions + t)] =
          near.positions(s, h)[t] + shift;
    });
    for (auto const position : problem.query_positions()) rows.push_back(position + shift);
    far.rows.positions = keys.data();
    support::for_each_kernel([&](auto const& kernel) {
      attention_call<float> before(problem), after(problem);
      if (!implied) after.rows.positions = rows.data();
      REQUIRE(before.forward(kernel, near).ok());
      REQUIRE(before.backward(kernel, near).ok());
      REQUIRE(after.forward(kernel, far).ok());
      REQUIRE(after.backward(kernel, far).ok());
      check_same_bits(before, after);
    });
  }
}

TEST_CASE("kernels: an lse that nobody wants changes no bit") {
  for (auto const& c : batches_on_split_ends()) {
    CAPTURE(c.name);
    problem32 problem(c);
    support::for_each_kernel([&](auto const& kernel) {
      attention_call<float> with(problem), without(problem);
      without.rows.lse = nullptr;
      support::share_executor const exec{3};
      REQUIRE(with.forward(kernel, problem.view(), exec).ok());
      REQUIRE(without.forward(kernel, problem.view(), exec).ok());
      CHECK(same_bits(with.out, without.out));
    });
  }
}

TEST_CASE("kernels: a full pass, chunks and token by token agree") {
  for (auto const window : sampled<std::int32_t>({strata::unbounded_window, 100}, 1))
    for (auto const heads : sampled<std::int32_t>({2, 8}, 1)) {
      attention_case c{"", {600}, {600}, heads, 1, 64, 20};
      c.rule.window = window;
      c.sinks = true;
      problem32 problem(c);
      support::reference_results const expected(problem);
      support::for_each_kernel([&]<class Kernel>(Kernel const& kernel) {
        attention_call<float> full(problem), chunks(problem), tokens(problem);
        REQUIRE(full.forward(kernel, problem.view()).ok());
        std::int32_t begin = 0;
        for (std::int32_t const end : {1, 3, 50, 54, 177, 512, 600}) {
          forward_rows(kernel, chunks, problem, begin, end, end);
          begin = end;
        }
        for (std::int32_t t = 0; t < 600; ++t)
          forward_rows(kernel, tokens, problem, t, t + 1, t + 1);
        for (auto const* call : {&chunks, &tokens}) {
          CHECK(support::excess(call->out, expected.naive.out, expected.exact.out) <= 1);
          CHECK(support::excess(call->lse, expected.naive.lse, expected.exact.lse) <= 1);
          if (!support::same_bits_in_chunks<Kernel>) continue;
          CHECK(same_bits(call->out, full.out));
          CHECK(same_bits(call->lse, full.lse));
        }
      });
    }
}

TEST_CASE("kernels: ranges of keys merge to the whole") {
  constexpr auto all = strata::all_keys;
  auto cases = support::attention_cases();
  for (auto& c : batches_on_split_ends()) {
    c.key_begin = 0, c.key_end = all;
    cases.push_back(c);
  }
  for (auto const& c : sampled(cases, 2)) {
    CAPTURE(c.name);
    problem32 problem(c);
    attention_call<double> exact(problem);
    REQUIRE(exact.forward(strata::reference_attention{}, problem.view()).ok());
    support::for_each_kernel([&](auto const& kernel) {
      check_merge(kernel, problem, exact, {{0, 30}, {30, 31}, {31, 31}, {31, 600}, {600, all}});
      check_merge(kernel, problem, exact, {{512, all}, {0, 1}, {1, 512}});
      check_merge(kernel, problem, exact, {{17, 529}, {529, all}, {0, 17}, {5000, all}});
    });
  }
}
