// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Rows of the residual stream against plain loops in double; gradients against central differences.
#include <doctest/doctest.h>

#include <cstdint>
#include <vector>

#include "bodies.hpp"
#include "cuda/column_sums.hpp"
#include "cuda/norm.hpp"
#include "cuda/token_groups.hpp"

namespace {

using bodies::check_close;
using bodies::doubles;
using bodies::norm_epsilon;
using bodies::numbers;
using bodies::orders;
using bodies::run;
using bodies::unwritten;

struct row_shape {
  std::int64_t rows, dim;
};
/// One number and eight at a time; a warp for each row, and a block, the last of them not full.
constexpr row_shape row_shapes[] = {{1, 5}, {9, 13}, {8, 16}, {11, 264}, {3, 1031}, {2, 2104}};

std::vector<double> norm(std::vector<double> const& x, std::vector<double> const& gain,
                         std::vector<double>* inverses = nullptr) {
  auto const dim = gain.size();
  std::vector<double> y(x.size());
  for (std::size_t r = 0; r < x.size() / dim; ++r) {
    double squares = 0;
    for (std::size_t i = 0; i < dim; ++i) squares += x[r * dim + i] * x[r * dim + i];
    auto const inverse = 1 / std::sqrt(squares / static_cast<double>(dim) + norm_epsilon);
    for (std::size_t i = 0; i < dim; ++i) y[r * dim + i] = x[r * dim + i] * inverse * gain[i];
    if (inverses != nullptr) inverses->push_back(inverse);
  }
  return y;
}

}  // namespace

TEST_CASE_TEMPLATE("gather_rows copies the rows that are named", T, float, strata::bfloat16) {
  for (auto const s : row_shapes) {
    auto const rows = s.rows, dim = s.dim;
    CAPTURE(dim);
    auto const from = numbers<T>(7 * dim, 1);
    std::vector<std::int32_t> indices;
    for (std::int32_t r = 0; r < rows; ++r) indices.push_back((r * 5 + 3) % 7);
    auto to = unwritten<T>(rows * dim);
    run(lm::cuda::gather_rows<T>{from.data(), indices.data(), to.data(), rows, dim});
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t i = 0; i < dim; ++i) {
        auto const row = indices[static_cast<std::size_t>(r)];
        CHECK(to[static_cast<std::size_t>(r * dim + i)] ==
              from[static_cast<std::size_t>(row * dim + i)]);
      }
  }
}

TEST_CASE("rms_norm is the norm of its rows, whatever the order of threads") {
  for (auto const s : row_shapes)
    for (auto const order : orders) {
      auto const rows = s.rows, dim = s.dim;
      CAPTURE(dim);
      auto const x = numbers<strata::bfloat16>(rows * dim, 2, 3),
                 gain = numbers<strata::bfloat16>(dim, 3, .3, 1);
      auto y = unwritten<strata::bfloat16>(rows * dim);
      auto inverse = unwritten<float>(rows);
      lm::cuda::rms_norm op;
      op.x = x.data();
      op.gain = gain.data();
      op.y = y.data();
      op.inverse_rms = inverse.data();
      op.rows = rows;
      op.dim = dim;
      op.epsilon = static_cast<float>(norm_epsilon);
      run(op, order);
      std::vector<double> inverses;
      check_close(y, norm(doubles(x), doubles(gain), &inverses), 1e-5);
      check_close(inverse, inverses, 1e-6);
    }
}

TEST_CASE("rms_norm adds first where it is told to, in place too") {
  for (auto const s : row_shapes) {
    auto const rows = s.rows, dim = s.dim;
    CAPTURE(dim);
    auto x = numbers<strata::bfloat16>(rows * dim, 4);
    auto const add = numbers<strata::bfloat16>(rows * dim, 5),
               gain = numbers<strata::bfloat16>(dim, 6, .3, 1);
    auto expected = doubles(x);
    for (std::size_t i = 0; i < expected.size(); ++i) expected[i] += bodies::value(add[i]);
    auto y = unwritten<strata::bfloat16>(rows * dim);
    lm::cuda::rms_norm op{x.data(), add.data(), x.data(), gain.data(), y.data()};
    op.rows = rows;
    op.dim = dim;
    op.epsilon = static_cast<float>(norm_epsilon);
    run(op, simt::order::shuffled);
    check_close(x, expected, 1e-6);
    check_close(y, norm(doubles(x), doubles(gain)), 1e-5);  // of the sum as it was rounded
  }
}

TEST_CASE_TEMPLATE("rms_norm_backward is the slope of the norm", D, float, strata::bfloat16) {
  for (auto const s : {row_shape{2, 5}, row_shape{9, 16}, row_shape{1, 1031}}) {
    auto const rows = s.rows, dim = s.dim;
    CAPTURE(dim);
    auto const x = numbers<strata::bfloat16>(rows * dim, 7, 2),
               gain = numbers<strata::bfloat16>(dim, 8, .3, 1),
               beside = numbers<strata::bfloat16>(rows * dim, 9);
    auto const dy = numbers<D>(rows * dim, 10);
    std::vector<double> inverses;
    auto const y_expected = norm(doubles(x), doubles(gain), &inverses);
    // Rows are apart: of each, the loss is its own.
    std::vector<double> expected;
    for (std::int64_t r = 0; r < rows; ++r) {
      std::vector<double> row;
      for (std::int64_t i = 0; i < dim; ++i)
        row.push_back(bodies::value(x[static_cast<std::size_t>(r * dim + i)]));
      auto const loss = [&](std::vector<double> const& at) {
        auto const out = norm(at, doubles(gain));
        double sum = 0;
        for (std::size_t i = 0; i < out.size(); ++i)
          sum += out[i] * bodies::value(dy[static_cast<std::size_t>(r * dim) + i]);
        return sum;
      };
      for (auto const slope : bodies::slopes(row, loss)) expected.push_back(slope);
    }
    for (std::size_t i = 0; i < expected.size(); ++i) expected[i] += bodies::value(beside[i]);
    std::vector<float> const inverse(inverses.begin(), inverses.end());
    auto dx = beside;  // in the residual's place
    auto y = unwritten<strata::bfloat16>(rows * dim);
    run(lm::cuda::rms_norm_backward<D>{dy.data(), x.data(), inverse.data(), gain.data(), dx.data(),
                                       dx.data(), y.data(), rows, dim},
        simt::order::descending);
    check_close(dx, expected, 2e-5);
    check_close(y, y_expected, 1e-5);
  }
}

TEST_CASE_TEMPLATE("a gain's gradient is the sum over rows, added to what there was", D, float,
                   strata::bfloat16) {
  for (auto const s : {row_shape{1, 5}, row_shape{63, 40}, row_shape{65, 264}, row_shape{300, 33}})
    for (auto const order : orders) {
      auto const rows = s.rows, dim = s.dim;
      CAPTURE(dim);
      auto const x = numbers<strata::bfloat16>(rows * dim, 11);
      auto const dy = numbers<D>(rows * dim, 12);
      auto const inverse = numbers<float>(rows, 13, .2, 1);
      auto gradient = numbers<float>(dim, 14);
      auto expected = doubles(gradient);
      for (std::int64_t r = 0; r < rows; ++r)
        for (std::int64_t i = 0; i < dim; ++i) {
          auto const at = static_cast<std::size_t>(r * dim + i);
          expected[static_cast<std::size_t>(i)] +=
              bodies::value(dy[at]) * bodies::value(x[at]) * inverse[static_cast<std::size_t>(r)];
        }
      auto parts = unwritten<float>(lm::cuda::sum_parts(rows) * dim);
      lm::cuda::norm_gain_term<D> const term{dy.data(), x.data(), inverse.data(), dim};
      run(lm::cuda::column_sums<lm::cuda::norm_gain_term<D>>::of(term, parts.data(), rows, dim),
          order);
      run(lm::cuda::add_parts{parts.data(), gradient.data(), lm::cuda::sum_parts(rows), dim});
      check_close(gradient, expected, 1e-6 * static_cast<double>(rows));
    }
}

TEST_CASE("token groups name every row once, by token and ascending") {
  std::vector<std::int32_t> const tokens = {4, 0, 4, 2, 2, 4, 9};
  lm::cuda::token_groups groups;
  groups.sort(tokens, 10);
  CHECK(groups.order == std::vector<std::int32_t>{1, 3, 4, 0, 2, 5, 6});
  CHECK(groups.begins == std::vector<std::int32_t>{0, 1, 3, 6, 7, 7, 7, 7});
  CHECK(groups.tokens == std::vector<std::int32_t>{0, 2, 4, 9, 0, 0, 0});
  groups.sort(tokens, 10);
  CHECK(groups.num_groups() == 7);  // rows are fewer than tokens
  groups.sort(std::vector<std::int32_t>{1, 1, 1}, 2);
  CHECK(groups.begins == std::vector<std::int32_t>{0, 3, 3});
}

TEST_CASE("the embedding's gradient goes to the tokens' rows") {
  constexpr std::int32_t vocab = 17;
  for (auto const s : {row_shape{1, 5}, row_shape{90, 24}, row_shape{200, 264}})
    for (auto const order : orders) {
      auto const rows = s.rows, dim = s.dim;
      CAPTURE(dim);
      auto const dx = numbers<strata::bfloat16>(rows * dim, 15);
      auto gradient = numbers<float>(vocab * dim, 16);
      auto expected = doubles(gradient);
      std::vector<std::int32_t> tokens;
      for (std::int32_t r = 0; r < rows; ++r)  // 0 in half of the rows, some never
        tokens.push_back(r % 2 == 0 ? 0 : r * r % vocab);
      for (std::int64_t r = 0; r < rows; ++r)
        for (std::int64_t i = 0; i < dim; ++i)
          expected[static_cast<std::size_t>(tokens[static_cast<std::size_t>(r)] * dim + i)] +=
              bodies::value(dx[static_cast<std::size_t>(r * dim + i)]);
      lm::cuda::token_groups groups;
      groups.sort(tokens, vocab);
      run(lm::cuda::embedding_gradient{dx.data(), groups.order.data(), groups.begins.data(),
                                       groups.tokens.data(), gradient.data(),
                                       static_cast<std::int64_t>(groups.num_groups()), dim},
          order);
      check_close(gradient, expected, 1e-6 * static_cast<double>(rows));
    }
}
