// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Number by number, against double; gradients against central differences.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <set>
#include <utility>
#include <vector>

#include "bodies.hpp"
#include "cuda/elementwise.hpp"

namespace {

using bodies::check_close;
using bodies::doubles;
using bodies::numbers;
using bodies::run;
using bodies::unwritten;

double act(double gate, double up) { return gate / (1 + std::exp(-gate)) * up; }

/// Less than a thread's, some threads' and more than a block's numbers.
constexpr std::int64_t counts[] = {1, 8, 13, 256, 2051};

}  // namespace

TEST_CASE("swiglu, of dense rows and of rows that lie side by side") {
  struct shape {
    std::int64_t rows, columns, stride;
  };
  for (auto const s : {shape{1, 1, 1}, shape{5, 13, 13}, shape{3, 16, 16}, shape{3, 16, 32},
                       shape{7, 13, 27}, shape{2, 1040, 2080}}) {
    auto const rows = s.rows, columns = s.columns, stride = s.stride;
    CAPTURE(columns);
    auto const gate = numbers<strata::bfloat16>(rows * stride, 1, 4),
               up = numbers<strata::bfloat16>(rows * stride, 2);
    auto out = unwritten<strata::bfloat16>(rows * columns);
    run(lm::cuda::swiglu{gate.data(), up.data(), out.data(), rows, columns, stride});
    std::vector<double> expected;
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t i = 0; i < columns; ++i) {
        auto const at = static_cast<std::size_t>(r * stride + i);
        expected.push_back(act(bodies::value(gate[at]), bodies::value(up[at])));
      }
    check_close(out, expected, 1e-5);
  }
}

TEST_CASE("swiglu_backward is the slope, and gives swiglu once more") {
  for (auto const count : counts) {
    CAPTURE(count);
    auto const gate = numbers<strata::bfloat16>(count, 3, 4),
               up = numbers<strata::bfloat16>(count, 4);
    auto d = numbers<strata::bfloat16>(count, 5);
    std::vector<double> of_gate, of_up, again;
    constexpr double step = 1e-6;
    for (std::size_t i = 0; i < d.size(); ++i) {
      auto const g = bodies::value(gate[i]), u = bodies::value(up[i]), by = bodies::value(d[i]);
      of_gate.push_back(by * (act(g + step, u) - act(g - step, u)) / (2 * step));
      of_up.push_back(by * (act(g, u + step) - act(g, u - step)) / (2 * step));
      again.push_back(act(g, u));
    }
    auto d_gate = unwritten<strata::bfloat16>(count), d_up = unwritten<strata::bfloat16>(count);
    run(lm::cuda::swiglu_backward{gate.data(), up.data(), d.data(), d_gate.data(), d_up.data(), 1,
                                  count, count});
    check_close(d_gate, of_gate, 1e-5);
    check_close(d_up, of_up, 1e-5);
    check_close(d, again, 1e-5);
  }
}

TEST_CASE("swiglu_backward of rows that lie side by side is that of dense ones") {
  constexpr std::int64_t rows = 5;
  for (std::int64_t const columns : {13, 16}) {
    CAPTURE(columns);
    auto const stride = 2 * columns;
    auto const both = numbers<strata::bfloat16>(rows * stride, 1, 4);
    auto const d = numbers<strata::bfloat16>(rows * columns, 2);
    auto d_both = unwritten<strata::bfloat16>(rows * stride), act = d;
    run(lm::cuda::swiglu_backward{both.data(), both.data() + columns, act.data(), d_both.data(),
                                  d_both.data() + columns, rows, columns, stride});
    for (std::int64_t r = 0; r < rows; ++r) {
      auto const of_row = [&](std::vector<strata::bfloat16> const& from, std::int64_t at) {
        return std::vector<strata::bfloat16>(from.begin() + at, from.begin() + at + columns);
      };
      auto const gate = of_row(both, r * stride), up = of_row(both, r * stride + columns);
      auto one = of_row(d, r * columns), d_gate = unwritten<strata::bfloat16>(columns),
           d_up = d_gate;
      run(lm::cuda::swiglu_backward{gate.data(), up.data(), one.data(), d_gate.data(), d_up.data(),
                                    1, columns, columns});
      CHECK(of_row(d_both, r * stride) == d_gate);
      CHECK(of_row(d_both, r * stride + columns) == d_up);
      CHECK(of_row(act, r * columns) == one);
    }
  }
}

TEST_CASE("swiglu far out is finite") {
  std::vector<strata::bfloat16> gate, up(3, strata::to_bfloat16(1)), d(3, strata::to_bfloat16(1));
  for (float const g : {-300.F, 0.F, 300.F}) gate.push_back(strata::to_bfloat16(g));
  auto out = unwritten<strata::bfloat16>(3), d_gate = out, d_up = out;
  run(lm::cuda::swiglu{gate.data(), up.data(), out.data(), 1, 3, 3});
  check_close(out, {0, 0, 300}, 0);
  run(lm::cuda::swiglu_backward{gate.data(), up.data(), d.data(), d_gate.data(), d_up.data(), 1, 3,
                                3});
  check_close(d_gate, {0, .5, 1}, 0);
  check_close(d_up, {0, 0, 300}, 0);
}

TEST_CASE("sums and casts round once") {
  for (auto const count : counts) {
    CAPTURE(count);
    auto const a = numbers<strata::bfloat16>(count, 6), b = numbers<strata::bfloat16>(count, 7);
    auto out = unwritten<strata::bfloat16>(count);
    run(lm::cuda::add_scaled{a.data(), b.data(), 1, out.data(), count});
    for (std::size_t i = 0; i < out.size(); ++i)
      CHECK(out[i] == strata::to_bfloat16(strata::to_float(a[i]) + strata::to_float(b[i])));
    run(lm::cuda::add_scaled{a.data(), b.data(), -.5F, out.data(), count});
    for (std::size_t i = 0; i < out.size(); ++i)
      CHECK(out[i] == strata::to_bfloat16(strata::to_float(a[i]) - .5F * strata::to_float(b[i])));
    auto const x = numbers<float>(count, 8);
    run(lm::cuda::cast<float, strata::bfloat16>{x.data(), out.data(), count});
    for (std::size_t i = 0; i < out.size(); ++i) CHECK(out[i] == strata::to_bfloat16(x[i]));
    auto back = unwritten<float>(count);
    run(lm::cuda::cast<strata::bfloat16, float>{out.data(), back.data(), count});
    for (std::size_t i = 0; i < out.size(); ++i) CHECK(back[i] == strata::to_float(out[i]));
  }
}

TEST_CASE("noise has the deviation asked for, and depends on seed and stream alone") {
  constexpr std::int64_t count = 20005;
  auto const draw = [&](std::uint64_t seed, std::uint32_t stream, std::int64_t n) {
    auto out = unwritten<strata::bfloat16>(n);
    run(lm::cuda::fill_noise{out.data(), n, seed, stream, .02F, 1.F});
    return out;
  };
  auto const x = draw(1, 2, count);
  double mean = 0, squares = 0;
  for (auto const v : doubles(x)) mean += v / count;
  for (auto const v : doubles(x)) squares += (v - 1) * (v - 1) / count;
  CHECK(std::abs(mean - 1) < 4 * .02 / std::sqrt(count) + 1e-3);  // 1 + noise has few bits
  CHECK(std::sqrt(squares) == doctest::Approx(.02).epsilon(.02));
  auto const shorter = draw(1, 2, 1003);
  CHECK(std::vector(x.begin(), x.begin() + 1003) == shorter);
  CHECK(draw(2, 2, 1003) != shorter);
  CHECK(draw(1, 3, 1003) != shorter);
}

TEST_CASE("numbers are dropped where the host drops them") {
  for (auto const count : counts) {
    CAPTURE(count);
    lm::dropout const what(.4, {1, 2, 3});
    auto x = numbers<float>(count, 6);
    auto expected = x;
    lm::drop(what, 9, 0, expected.data(), count);
    run(lm::cuda::drop_numbers<float>{what, 9, x.data(), count});
    CHECK(x == expected);
    auto y = numbers<strata::bfloat16>(count, 7);
    std::vector<double> of_y;
    for (auto const v : y) of_y.push_back(bodies::value(v));
    lm::drop(what, 9, 0, of_y.data(), count);
    run(lm::cuda::drop_numbers<strata::bfloat16>{what, 9, y.data(), count});
    check_close(y, of_y, 1e-6);
  }
}

TEST_CASE("lm cuda: memory is read as a whole") {
  constexpr auto count = 3 * lm::cuda::read_memory::block_bytes / 16;
  std::vector<strata::cuda::detail::chunk> memory(static_cast<std::size_t>(count));
  std::uint32_t word = 0, sum = 0;
  std::vector<std::uint32_t> expected;
  for (std::size_t i = 0; i < memory.size(); ++i) {
    for (auto& w : memory[i].words) sum += w = word += 2654435761U;
    if ((i + 1) % (memory.size() / 3) == 0) expected.push_back(std::exchange(sum, 0));
  }
  std::vector<std::uint32_t> sums(3);
  run(lm::cuda::read_memory{memory.data(), sums.data(), 16 * count});
  CHECK(sums == expected);
}
