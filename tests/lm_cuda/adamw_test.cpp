// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// AdamW with clipping against its formulas in double.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "bodies.hpp"
#include "config.hpp"
#include "cuda/adamw.hpp"
#include "parameters.hpp"

namespace {

using bodies::check_close;
using bodies::doubles;
using bodies::numbers;
using bodies::orders;
using bodies::run;

struct state {
  std::vector<float> masters, first, second, gradient;
  std::vector<strata::bfloat16> weights;
  std::vector<lm::cuda::update_run> runs;
  std::vector<double> squares;
  std::vector<double> norm = {NAN};

  /// Three tensors of odd sizes, with gaps that belong to none.
  state() {
    lm::tensor_table table;
    table.add("a", 5, 411);
    table.add("b", 1, 13, lm::tensor_role::norm);
    table.add("c", 130, 131);
    runs = lm::cuda::make_update_runs(table);
    masters = numbers<float>(table.size, 1);
    first = numbers<float>(table.size, 2, .1);
    second = numbers<float>(table.size, 3, .1);
    for (auto& v : second) v *= v;
    gradient = std::vector<float>(masters.size());
    auto const drawn = numbers<float>(table.size, 4);
    for (auto const& e : table.entries)
      for (auto i = e.offset; i < e.offset + e.size(); ++i)
        gradient[static_cast<std::size_t>(i)] = drawn[static_cast<std::size_t>(i)];
    weights = bodies::unwritten<strata::bfloat16>(table.size);
    squares.assign(runs.size(), NAN);
  }

  void find_norm(simt::order order) {
    auto const count = static_cast<std::int64_t>(runs.size());
    run(lm::cuda::sum_squares{gradient.data(), runs.data(), squares.data(), count}, order);
    run(lm::cuda::finish_norm{squares.data(), norm.data(), count}, order);
  }
  void update(lm::cuda::update_factors const& f, simt::order order) {
    run(lm::cuda::update_weights{masters.data(), weights.data(), first.data(), second.data(),
                                 gradient.data(), norm.data(), runs.data(),
                                 static_cast<std::int64_t>(runs.size()), f},
        order);
  }
};

constexpr lm::cuda::update_factors factors = {.clip = 2.F,
                                              .beta1 = .9F,
                                              .beta2 = .99F,
                                              .lr = .01F,
                                              .unbias1 = 5.F,
                                              .unbias2 = 50.F,
                                              .epsilon = 1e-6F,
                                              .shrink = .99F};

}  // namespace

TEST_CASE("runs are the elements of all tensors, each once, and gains do not decay") {
  lm::model_config const config;
  auto const table = lm::make_tensor_table(config);
  std::vector<int> seen(static_cast<std::size_t>(table.size));
  for (auto const& r : lm::cuda::make_update_runs(table)) {
    CHECK(r.begin % 16 == 0);
    for (auto i = r.begin; i < r.begin + r.count; ++i)
      seen[static_cast<std::size_t>(i)] += r.decays != 0 ? 1 : 10;
  }
  std::vector<int> expected(seen.size());
  for (auto const& e : table.entries)
    for (auto i = e.offset; i < e.offset + e.size(); ++i)
      expected[static_cast<std::size_t>(i)] = e.role == lm::tensor_role::norm ? 10 : 1;
  CHECK(seen == expected);
}

TEST_CASE("the norm is that of all gradients, and has the same bits in every order") {
  state s;
  double squares = 0;
  for (auto const g : s.gradient) squares += double{g} * g;
  s.find_norm(simt::order::ascending);
  CHECK(s.norm[0] == doctest::Approx(std::sqrt(squares)).epsilon(1e-7));
  auto const norm = s.norm[0];
  for (auto const order : orders) {
    s.find_norm(order);
    CHECK(s.norm[0] == norm);
  }
}

TEST_CASE("a step is AdamW's, clipped or not") {
  for (float const clip : {0.F, 2.F, 1e9F}) {
    CAPTURE(clip);
    state s;
    auto f = factors;
    f.clip = clip;
    s.find_norm(simt::order::ascending);
    auto masters = doubles(s.masters), first = doubles(s.first), second = doubles(s.second);
    std::vector<double> weights(masters.size(), NAN);
    for (auto const& r : s.runs)
      for (auto i = r.begin; i < r.begin + r.count; ++i) {
        auto const at = static_cast<std::size_t>(i);
        auto const g = s.gradient[at] * (clip == 2.F ? 2 / s.norm[0] : 1);
        first[at] = .9 * first[at] + .1 * g;
        second[at] = .99 * second[at] + .01 * g * g;
        masters[at] = (r.decays != 0 ? .99 : 1) * masters[at] -
                      .01 * (first[at] * 5) / (std::sqrt(second[at] * 50) + 1e-6);
        weights[at] = masters[at];
      }
    s.update(f, simt::order::shuffled);
    check_close(s.first, first, 1e-6);
    check_close(s.second, second, 1e-6);
    check_close(s.masters, masters, 2e-6);
    for (std::size_t i = 0; i < weights.size(); ++i)
      if (!std::isnan(weights[i])) CHECK(s.weights[i] == strata::to_bfloat16(s.masters[i]));
  }
}

TEST_CASE("a gradient that is not finite changes nothing") {
  for (float const bad : {std::numeric_limits<float>::infinity(), NAN}) {
    state s;
    auto const masters = s.masters, first = s.first, second = s.second;
    s.gradient[2100] = bad;  // of the gains
    s.find_norm(simt::order::ascending);
    CHECK_FALSE(std::isfinite(s.norm[0]));
    s.update(factors, simt::order::ascending);
    CHECK(s.masters == masters);
    CHECK(s.first == first);
    CHECK(s.second == second);
  }
}
