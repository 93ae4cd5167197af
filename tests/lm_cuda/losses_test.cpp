// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Cross-entropy and its gradient against double, the likeliest token against a search.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

#include "bodies.hpp"
#include "cuda/losses.hpp"

namespace {

using bodies::check_close;
using bodies::numbers;
using bodies::orders;
using bodies::run;
using bodies::unwritten;

struct logit_shape {
  std::int64_t rows, vocab;
};
constexpr logit_shape logit_shapes[] = {{1, 2}, {5, 19}, {9, 256}, {2, 1031}, {2, 2104}};

template <class L>
struct problem {
  std::int64_t rows, vocab;
  std::vector<L> logits;
  std::vector<std::int32_t> targets;
  std::vector<double> losses, gradient;

  problem(logit_shape s, double size, double scale)
      : rows(s.rows), vocab(s.vocab), logits(numbers<L>(s.rows * s.vocab, 1, size)) {
    for (std::int64_t r = 0; r < rows; ++r) {
      auto const target = r % 4 == 3 ? -1 : (r * 7 + 1) % vocab;  // some do not count
      targets.push_back(static_cast<std::int32_t>(target));
      auto const at = [&](std::int64_t i) {
        return bodies::value(logits[static_cast<std::size_t>(r * vocab + i)]);
      };
      double top = at(0), total = 0;
      for (std::int64_t i = 0; i < vocab; ++i) top = std::max(top, at(i));
      for (std::int64_t i = 0; i < vocab; ++i) total += std::exp(at(i) - top);
      losses.push_back(target < 0 ? 0 : std::log(total) + top - at(target));
      for (std::int64_t i = 0; i < vocab; ++i)
        gradient.push_back(
            target < 0 ? 0 : scale * (std::exp(at(i) - top) / total - (i == target ? 1 : 0)));
    }
  }
};

}  // namespace

TEST_CASE_TEMPLATE("losses and gradients of rows of logits", L, float, strata::bfloat16) {
  for (auto const s : logit_shapes)
    for (double const size : {1., 60.})
      for (auto const order : orders) {
        CAPTURE(s.vocab);
        CAPTURE(size);
        problem<L> p(s, size, .25);
        auto losses = unwritten<float>(s.rows);
        lm::cuda::token_losses<L> op{p.logits.data(), p.targets.data(), losses.data()};
        op.scale = .25F;
        op.rows = s.rows;
        op.vocab = s.vocab;
        run(op, order);  // losses alone
        check_close(losses, p.losses, 2e-5 * size);
        std::fill(losses.begin(), losses.end(), NAN);
        auto gradient = unwritten<strata::bfloat16>(s.rows * s.vocab);
        op.gradient = gradient.data();
        if constexpr (std::is_same_v<L, strata::bfloat16>) {
          op.gradient = p.logits.data();
          run(op, order);
          check_close(p.logits, p.gradient, 1e-6 * size);
        } else {
          run(op, order);
          check_close(gradient, p.gradient, 1e-6 * size);
        }
        check_close(losses, p.losses, 2e-5 * size);
      }
}

TEST_CASE("a logit that is not a number makes a loss that is none") {
  std::vector<float> logits(300, 1.F);
  logits[123] = NAN;
  std::vector<std::int32_t> const target = {5};
  std::vector<float> loss = {0};
  lm::cuda::token_losses<float> op{logits.data(), target.data(), loss.data()};
  op.rows = 1;
  op.vocab = 300;
  run(op);
  CHECK(std::isnan(loss[0]));
}

TEST_CASE("all values are added up in double") {
  for (std::int64_t const count : {1, 255, 1000}) {
    auto const values = numbers<float>(count, 2, 1e6);
    auto const all = std::accumulate(values.begin(), values.end(), 0.);
    for (auto const order : orders) {
      std::vector<double> sum = {1e6};
      run(lm::cuda::sum_values{values.data(), sum.data(), -.5, count}, order);
      CHECK(sum[0] == doctest::Approx(1e6 - all / 2).epsilon(1e-12));
    }
  }
}

TEST_CASE_TEMPLATE("the likeliest token is the lowest of equals", L, float, strata::bfloat16) {
  for (auto const s : logit_shapes)
    for (auto const order : orders) {
      CAPTURE(s.vocab);
      auto logits = numbers<L>(s.rows * s.vocab, 3);
      std::vector<std::int32_t> expected;
      for (std::int64_t r = 0; r < s.rows; ++r) {
        auto const row = logits.begin() + r * s.vocab;
        auto const most = std::max_element(
            row, row + s.vocab, [](L a, L b) { return bodies::value(a) < bodies::value(b); });
        // The same number once more, later.
        *(row + s.vocab - 1) = *most;
        expected.push_back(static_cast<std::int32_t>(most - row));
      }
      std::vector<std::int32_t> tokens(static_cast<std::size_t>(s.rows), -1);
      run(lm::cuda::likeliest_tokens<L>{logits.data(), tokens.data(), s.rows, s.vocab}, order);
      CHECK(tokens == expected);
    }
}
