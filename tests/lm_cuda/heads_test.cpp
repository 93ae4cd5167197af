// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// QK-norm and RoPE of heads against plain loops in double; gradients against central differences.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <vector>

#include "bodies.hpp"
#include "cuda/column_sums.hpp"
#include "cuda/heads.hpp"

namespace {

using bodies::check_close;
using bodies::doubles;
using bodies::norm_epsilon;
using bodies::numbers;
using bodies::orders;
using bodies::run;
using bodies::unwritten;

struct head_shape {
  std::int64_t rows;
  std::int32_t heads, head_dim;
};
constexpr head_shape head_shapes[] = {{1, 1, 2},  {5, 3, 6},   {7, 2, 12},
                                      {3, 5, 32}, {2, 3, 128}, {1, 2, 320}};

/// Angles, and where the rows stand: out of order, and some twice.
struct turns {
  std::vector<float> cos, sin;
  std::vector<std::int32_t> positions;
  lm::cuda::head_turns at;

  explicit turns(head_shape const& s) {
    constexpr std::int32_t count = 9;
    for (std::int32_t p = 0; p < count; ++p)
      for (std::int32_t i = 0; i < s.head_dim / 2; ++i) {
        auto const angle = p * std::pow(100., -2. * i / s.head_dim);
        cos.push_back(static_cast<float>(std::cos(angle)));
        sin.push_back(static_cast<float>(std::sin(angle)));
      }
    for (std::int32_t r = 0; r < s.rows; ++r) positions.push_back((r * 4 + 3) % count);
    at.cos = cos.data();
    at.sin = sin.data();
    at.positions = positions.data();
    at.rows = s.rows;
    at.heads = s.heads;
    at.head_dim = s.head_dim;
  }

  /// x: [rows, heads, head_dim]; gain empty: no norm.
  std::vector<double> forward(std::vector<double> x, std::vector<double> const& gain,
                              std::vector<double>* inverses = nullptr) const {
    auto const dim = static_cast<std::size_t>(at.head_dim), half = dim / 2;
    for (std::size_t h = 0; h < x.size() / dim; ++h) {
      double* const head = x.data() + h * dim;
      double squares = 0;
      for (std::size_t i = 0; i < dim; ++i) squares += head[i] * head[i];
      auto const inverse = 1 / std::sqrt(squares / static_cast<double>(dim) + norm_epsilon);
      if (inverses != nullptr) inverses->push_back(inverse);
      if (!gain.empty())
        for (std::size_t i = 0; i < dim; ++i) head[i] *= inverse * gain[i];
      auto const row = h / static_cast<std::size_t>(at.heads);
      auto const place = static_cast<std::size_t>(positions[row]) * half;
      for (std::size_t i = 0; i < half; ++i) {
        double const a = head[i], b = head[half + i], c = cos[place + i], s = sin[place + i];
        head[i] = a * c - b * s;
        head[half + i] = b * c + a * s;
      }
    }
    return x;
  }
};

std::vector<strata::bfloat16> gain_of(bool normed, head_shape const& s) {
  return normed ? numbers<strata::bfloat16>(s.head_dim, 2, .3, 1) : std::vector<strata::bfloat16>{};
}

}  // namespace

TEST_CASE("heads are normed and turned, whatever the order of threads") {
  for (auto const& s : head_shapes)
    for (bool const normed : {false, true})
      for (auto const order : orders) {
        CAPTURE(s.head_dim);
        CAPTURE(normed);
        turns const t(s);
        auto const count = s.rows * s.heads * s.head_dim;
        auto const raw = numbers<strata::bfloat16>(count, 1, 2);
        auto const gain = gain_of(normed, s);
        auto out = unwritten<strata::bfloat16>(count);
        auto inverse = unwritten<float>(s.rows * s.heads);
        run(lm::cuda::turn_heads{t.at, raw.data(), s.heads * s.head_dim,
                                 normed ? gain.data() : nullptr, out.data(), inverse.data(),
                                 static_cast<float>(norm_epsilon)},
            order);
        std::vector<double> inverses;
        check_close(out, t.forward(doubles(raw), doubles(gain), &inverses), 1e-5);
        if (normed) check_close(inverse, inverses, 1e-6);
      }
}

TEST_CASE("heads may lie in wider rows, and rows stand at row % length without positions") {
  head_shape const s{6, 2, 12};
  turns t(s);
  t.at.positions = nullptr;
  t.at.length = 4;
  t.positions = {0, 1, 2, 3, 0, 1};
  constexpr std::int64_t stride = 40;
  auto const wide = numbers<strata::bfloat16>(s.rows * stride, 1);
  std::vector<double> raw;
  for (std::size_t r = 0; r < 6; ++r)
    for (std::size_t i = 0; i < 24; ++i) raw.push_back(bodies::value(wide[r * stride + i]));
  auto out = unwritten<strata::bfloat16>(6 * 24);
  run(lm::cuda::turn_heads{t.at, wide.data(), stride, nullptr, out.data(), nullptr, 0});
  check_close(out, t.forward(raw, {}), 1e-6);
}

TEST_CASE_TEMPLATE("the way back is the slope", D, float, strata::bfloat16) {
  for (auto const& s : head_shapes)
    for (bool const normed : {false, true}) {
      CAPTURE(s.head_dim);
      CAPTURE(normed);
      turns const t(s);
      auto const count = s.rows * s.heads * s.head_dim;
      auto const raw = numbers<strata::bfloat16>(count, 1, 2);
      auto const gain = gain_of(normed, s);
      auto d = numbers<D>(count, 3);
      std::vector<double> inverses;
      t.forward(doubles(raw), doubles(gain), &inverses);
      std::vector<float> const inverse(inverses.begin(), inverses.end());
      auto const loss_of = [&](std::vector<double> const& x, std::vector<double> const& g) {
        auto const out = t.forward(x, g);
        double sum = 0;
        for (std::size_t i = 0; i < out.size(); ++i) sum += out[i] * bodies::value(d[i]);
        return sum;
      };
      auto const expected = bodies::slopes(
          doubles(raw), [&](std::vector<double> const& x) { return loss_of(x, doubles(gain)); });
      if (normed) {
        auto const of_gain = bodies::slopes(
            doubles(gain), [&](std::vector<double> const& g) { return loss_of(doubles(raw), g); });
        auto const rows = s.rows * s.heads;
        auto parts = unwritten<float>(lm::cuda::sum_parts(rows) * s.head_dim);
        std::vector<float> gradient(static_cast<std::size_t>(s.head_dim));
        lm::cuda::head_gain_term<D> const term{t.at, d.data(), raw.data(), inverse.data()};
        run(lm::cuda::column_sums<lm::cuda::head_gain_term<D>>::of(term, parts.data(), rows,
                                                                   s.head_dim),
            simt::order::shuffled);
        run(lm::cuda::add_parts{parts.data(), gradient.data(), lm::cuda::sum_parts(rows),
                                s.head_dim});
        check_close(gradient, of_gain, 1e-5);
      }
      auto d_raw = unwritten<strata::bfloat16>(count);
      lm::cuda::turn_heads_backward<D> op{
          t.at, d.data(), raw.data(), inverse.data(), normed ? gain.data() : nullptr, d_raw.data()};
      run(op, simt::order::descending);
      check_close(d_raw, expected, 2e-5);
      if constexpr (std::is_same_v<D, strata::bfloat16>) {  // in place
        op.d_raw = d.data();
        run(op, simt::order::shuffled);
        CHECK(d == d_raw);
      }
    }
}
