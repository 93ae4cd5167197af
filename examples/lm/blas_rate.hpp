// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What the BLAS alone would need for a training step: all matrix products of one step and nothing
// else. Attention, norms, the optimizer and the draw are in the step and not in the products, so
// the quotient says how much they cost.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include <cblas.h>

#include <strata/random.hpp>
#include <strata/thread_pool.hpp>

#include "config.hpp"
#include "gemm.hpp"
#include "parameters.hpp"
#include "progress.hpp"
#include "text.hpp"

namespace lm {

inline double median(std::vector<double> values) {
  auto const middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

namespace detail {

/// A weight [out, in] that `count` products of each kind meet in a step.
struct product_shape {
  std::int64_t out, in, count;
};

inline std::vector<product_shape> products_of(model_config const& c) {
  auto const layers = std::int64_t{c.layers};
  return {{c.q_dim(), c.dim, layers}, {c.kv_dim(), c.dim, 2 * layers}, {c.dim, c.q_dim(), layers},
          {c.mlp, c.dim, 2 * layers}, {c.dim, c.mlp, layers},          {c.vocab, c.dim, 1}};
}

/// Operands for the largest of a step's products, read by all threads, and results, written in
/// disjoint parts.
struct product_operands {
  aligned_buffer<float> x, y, w;  // activations, their gradients, a weight
  aligned_buffer<float> dx, out, dw;

  product_operands(model_config const& c, std::int64_t rows) {
    std::int64_t widest = 0, largest = 0;
    for (auto const& s : products_of(c)) {
      widest = std::max({widest, s.out, s.in});
      largest = std::max(largest, s.out * s.in);
    }
    for (auto* const buffer : {&x, &y, &dx, &out}) *buffer = aligned_buffer<float>(rows * widest);
    for (auto* const buffer : {&w, &dw}) *buffer = aligned_buffer<float>(largest);
    for (auto* const buffer : {&x, &y, &w}) std::ranges::fill(buffer->values(), 0.01F);
  }

  /// Forward and the gradient of the input for some rows; the gradient of some rows of the weight.
  void run(product_shape const& s, std::int64_t rows, slab of_rows, slab of_weight) {
    auto const* const some_x = x.data() + of_rows.begin * s.in;
    auto const* const some_y = y.data() + of_rows.begin * s.out;
    gemm(CblasNoTrans, CblasTrans, of_rows.count, s.out, s.in, some_x, s.in, w.data(), s.in, 0.0F,
         out.data() + of_rows.begin * s.out, s.out);
    gemm(CblasNoTrans, CblasNoTrans, of_rows.count, s.in, s.out, some_y, s.out, w.data(), s.in,
         0.0F, dx.data() + of_rows.begin * s.in, s.in);
    gemm(CblasTrans, CblasNoTrans, of_weight.count, s.in, rows, y.data() + of_weight.begin, s.out,
         x.data(), s.in, 0.0F, dw.data() + of_weight.begin * s.in, s.in);
  }
};

/// Median seconds of what `step` does, one repetition left out.
template <class Step>
double median_seconds(Step const& step) {
  std::vector<double> times;
  for (int repetition = 0; repetition < 6 && !interrupted(); ++repetition) {
    stopwatch const clock;
    step();
    if (repetition > 0) times.push_back(clock.seconds());
  }
  return times.empty() ? 0 : median(times);
}

}  // namespace detail

/// Multiply-adds count two: forward, gradient of the input, gradient of the weight.
inline double step_flops(model_config const& c, std::int64_t rows) {
  double flops = 0;
  for (auto const& s : detail::products_of(c))
    flops += 6.0 * static_cast<double>(s.out * s.in * s.count) * static_cast<double>(rows);
  return flops;
}

/// Seconds of all products of a step by the BLAS alone: each product one call, threaded by the BLAS
/// itself, or one equal part per thread, which need not wait for each other; whichever is faster.
inline double blas_seconds(model_config const& c, std::int64_t rows, strata::thread_pool& pool) {
  detail::product_operands data(c, rows);
  auto const threads = pool.num_shares();
  auto const all_products = [&](auto const& run) {
    for (auto const& s : detail::products_of(c))
      for (std::int64_t i = 0; i < s.count; ++i) run(s);
  };
  use_single_threaded_blas();  // sets it once; from here on it is ours to set
  openblas_set_num_threads(threads);
  auto const by_blas = detail::median_seconds([&] {
    all_products(
        [&](detail::product_shape const& s) { data.run(s, rows, {0, 0, rows}, {0, 0, s.out}); });
  });
  openblas_set_num_threads(1);
  auto const by_parts = detail::median_seconds([&] {
    for_tasks(pool, threads, [&](std::int64_t task, std::int32_t) {
      strata::share const part{static_cast<std::int32_t>(task), threads};
      auto const slab_of = [&](std::int64_t count) {
        return slab{task, part.begin(count), part.end(count) - part.begin(count)};
      };
      all_products([&](detail::product_shape const& s) {
        data.run(s, rows, slab_of(rows), slab_of(s.out));
      });
    });
  });
  return std::min(by_blas, by_parts);
}

/// Operations per second of x W^T alone, x [rows, in] and W [out, in], a multiply-add counting two:
/// threaded by the BLAS itself or one equal part of the rows per thread; whichever is faster, best of
/// three.
inline double blas_product_rate(std::int64_t out, std::int64_t in, std::int64_t rows,
                                strata::thread_pool& pool) {
  aligned_buffer<float> x(rows * in), w(out * in), y(rows * out);
  for (auto* const buffer : {&x, &w}) std::ranges::fill(buffer->values(), 0.01F);
  auto const multiply = [&](std::int64_t begin, std::int64_t count) {
    detail::gemm(CblasNoTrans, CblasTrans, count, out, in, x.data() + begin * in, in, w.data(), in,
                 0.0F, y.data() + begin * out, out);
  };
  auto const threads = pool.num_shares();
  double best = 0;
  auto const time = [&](auto const& run) {
    stopwatch const clock;
    run();
    best = std::max(best, 2.0 * static_cast<double>(rows * out * in) / clock.seconds());
  };
  use_single_threaded_blas();
  for (int repetition = 0; repetition < 3 && !interrupted(); ++repetition) {
    openblas_set_num_threads(threads);
    time([&] { multiply(0, rows); });
    openblas_set_num_threads(1);
    time([&] {
      for_tasks(pool, threads, [&](std::int64_t task, std::int32_t) {
        strata::share const part{static_cast<std::int32_t>(task), threads};
        multiply(part.begin(rows), part.end(rows) - part.begin(rows));
      });
    });
  }
  return best;
}

/// Bytes without any structure; what they are does not change how long a step takes.
inline corpus noise_text() {
  std::vector<std::uint8_t> bytes(1 << 20);
  for (std::size_t i = 0; i < bytes.size(); ++i)
    bytes[i] =
        static_cast<std::uint8_t>(strata::philox({{static_cast<std::uint32_t>(i)}}, 1, 2).word[0]);
  std::vector<std::vector<std::uint8_t>> texts;
  texts.push_back(std::move(bytes));
  return {std::move(texts), 0};
}

}  // namespace lm
