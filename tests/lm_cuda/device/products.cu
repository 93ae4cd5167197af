// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Products of cuBLASLt against loops in double, and the owners of a device's things.
#include <doctest/doctest.h>

#include <cstdint>
#include <vector>

#include "../bodies.hpp"
#include "cuda/device_memory.cuh"
#include "cuda/elementwise.hpp"
#include "cuda/products.cuh"

namespace {

using bodies::bfloat16;
using bodies::check_close;
using bodies::numbers;
using bodies::value;

/// out[r, c] = the sum of a(r, i) b(i, c), plus what there was.
template <class T, class A, class B>
std::vector<double> multiplied(std::int64_t rows, std::int64_t cols, std::int64_t depth,
                               std::vector<T> const& plus, A const& a, B const& b) {
  std::vector<double> out;
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t c = 0; c < cols; ++c) {
      double sum = plus.empty() ? 0 : value(plus[static_cast<std::size_t>(r * cols + c)]);
      for (std::int64_t i = 0; i < depth; ++i) sum += a(r, i) * b(i, c);
      out.push_back(sum);
    }
  return out;
}

struct shape {
  std::int64_t rows, in, out;
};
constexpr shape shapes[] = {{1, 64, 128}, {7, 10, 14}, {33, 40, 24}, {130, 256, 96}};

/// As check_close, of sums in place: in bf16 cuBLASLt rounds what it adds before it adds it (13.1 does,
/// to the bit), so that there are two roundings.
template <class T>
void check_added(std::vector<T> const& got, std::vector<T> const& before,
                 std::vector<double> const& expected, double slack) {
  if constexpr (!std::is_same_v<T, bfloat16>) return check_close(got, expected, slack);
  REQUIRE(got.size() == expected.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    auto const sizes = std::abs(expected[i]) + std::abs(expected[i] - value(before[i]));
    INFO(i);
    CHECK(std::abs(value(got[i]) - expected[i]) <= 0x1p-8 * sizes + slack);
  }
}

template <class Out>
void check_products(lm::cuda::device_stream& stream, lm::cuda::products& products, shape s) {
  auto const x = numbers<bfloat16>(s.rows * s.in, 1), w = numbers<bfloat16>(s.out * s.in, 2),
             dy = numbers<bfloat16>(s.rows * s.out, 3);
  auto const c = numbers<Out>(s.rows * s.out, 4);
  auto const at = [](std::vector<bfloat16> const& m, std::int64_t cols) {
    return [&m, cols](std::int64_t r, std::int64_t i) {
      return value(m[static_cast<std::size_t>(r * cols + i)]);
    };
  };
  auto const turned = [](auto const& m) { return [m](auto r, auto i) { return m(i, r); }; };
  double const slack = 1e-4;  // of some hundred products of a size of 1
  std::vector<Out> y(c.size());
  products.linear(x.data(), w.data(), y.data(), s.rows, s.in, s.out, c.data());
  stream.wait();
  check_close(y, multiplied(s.rows, s.out, s.in, c, at(x, s.in), turned(at(w, s.in))), slack);
  products.linear(x.data(), w.data(), y.data(), s.rows, s.in, s.out);
  stream.wait();
  check_close(y,
              multiplied(s.rows, s.out, s.in, std::vector<Out>(), at(x, s.in), turned(at(w, s.in))),
              slack);
  auto const before = numbers<Out>(s.rows * s.in, 5);
  auto dx = before;
  auto const expected = multiplied(s.rows, s.in, s.out, dx, at(dy, s.out), at(w, s.in));
  products.input_gradient(dy.data(), w.data(), dx.data(), s.rows, s.in, s.out, true);
  stream.wait();
  check_added(dx, before, expected, slack);
}

}  // namespace

TEST_CASE("device: products are sums of products, and added where they should be") {
  lm::cuda::device_stream stream;
  lm::cuda::products products(stream);
  for (auto const s : shapes) {
    CAPTURE(s.rows);
    check_products<float>(stream, products, s);
    check_products<bfloat16>(stream, products, s);
    auto const x = numbers<bfloat16>(s.rows * s.in, 1), dy = numbers<bfloat16>(s.rows * s.out, 3);
    auto dw = numbers<float>(s.out * s.in, 6);
    auto const expected = multiplied(
        s.out, s.in, s.rows, dw,
        [&](auto o, auto r) { return value(dy[static_cast<std::size_t>(r * s.out + o)]); },
        [&](auto r, auto i) { return value(x[static_cast<std::size_t>(r * s.in + i)]); });
    auto again = dw;
    products.weight_gradient(dy.data(), x.data(), dw.data(), s.rows, s.in, s.out);
    products.weight_gradient(dy.data(), x.data(), again.data(), s.rows, s.in, s.out);
    stream.wait();
    check_close(dw, expected, 1e-4);
    CHECK(again == dw);
  }
}

TEST_CASE("device: products of more shapes than are kept") {
  lm::cuda::device_stream stream;
  lm::cuda::products products(stream);
  constexpr std::int64_t most = lm::cuda::products::most_plans + 50, width = 16;
  std::vector<bfloat16> const one(most * width, strata::to_bfloat16(1));
  std::vector<float> sums(most * width);
  for (int turn = 0; turn < 2; ++turn)
    for (std::int64_t rows = 1; rows <= most; ++rows)
      products.linear(one.data(), one.data(), sums.data(), rows, width, width);
  stream.wait();
  check_close(sums, std::vector<double>(sums.size(), width), 0);
}

TEST_CASE("device: a graph does what was recorded, as often as it is launched") {
  lm::cuda::device_stream stream;
  std::vector<bfloat16> one(20, strata::to_bfloat16(1)), sum(20);
  lm::cuda::device_graph graph;
  auto const add = [&] {
    lm::cuda::launch(stream.get(), lm::cuda::add_scaled{sum.data(), one.data(), 1, sum.data(), 20});
  };
  for (int turn = 0; turn < 2; ++turn) {
    graph.record(stream, add);
    for (int i = 0; i < 3; ++i) graph.launch(stream.get());
    stream.wait();
    check_close(sum, std::vector<double>(20, 3. * (turn + 1)), 0);
  }
}

TEST_CASE("device: memory comes and goes, and copies arrive") {
  lm::cuda::device_stream stream;
  lm::cuda::device_buffer<float> there(stream, 1000);
  lm::cuda::pinned_buffer<float> here(1000), back(1000);
  for (int i = 0; i < 1000; ++i) here.data()[i] = static_cast<float>(i);
  lm::cuda::upload<float>(stream.get(), here.values(), there.data());
  lm::cuda::fill_zero(stream.get(), there.data() + 10, 5);
  lm::cuda::download(stream.get(), static_cast<float const*>(there.data()), back.values());
  stream.wait();
  for (int i = 0; i < 1000; ++i) CHECK(back.data()[i] == (i < 10 || i >= 15 ? i : 0));
}

TEST_CASE("device: what no memory has room for, and that nothing is left of the error") {
  lm::cuda::device_stream stream;
  constexpr std::int64_t most = std::int64_t{1} << 50;
  auto const check = [&](strata::status const& s) {
    CHECK(s.code == strata::errc::out_of_memory);
    CHECK(s.value == most);
    CHECK(cudaPeekAtLastError() == cudaSuccess);
  };
  check(strata::cuda::device_memory::make(stream.get(), most).state());
  check(strata::cuda::staging_memory::make(most).state());
}
