// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// How much of the BLAS's own rate the training step reaches: all matrix products of one step, made
// by the BLAS and nothing else, against the step. Attention, norms, the optimizer and the draw are
// in the step and not in the products.
#include "bench_train.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include <cblas.h>

#include <strata/config.hpp>

#include "report.hpp"
#include "shapes.hpp"
#include "table.hpp"
#include "trainer.hpp"

namespace lm {
namespace {

/// A weight [out, in] that `count` products of each kind meet in a step.
struct product_shape {
  std::int64_t out, in, count;
};

std::vector<product_shape> products_of(model_config const& c) {
  auto const layers = std::int64_t{c.layers};
  return {{c.q_dim(), c.dim, layers}, {c.kv_dim(), c.dim, 2 * layers}, {c.dim, c.q_dim(), layers},
          {c.mlp, c.dim, 2 * layers}, {c.dim, c.mlp, layers},          {c.vocab, c.dim, 1}};
}

/// Multiply-adds count two: forward, gradient of the input, gradient of the weight.
double step_flops(model_config const& c, std::int64_t rows) {
  double flops = 0;
  for (auto const& s : products_of(c))
    flops += 6.0 * static_cast<double>(s.out * s.in * s.count) * static_cast<double>(rows);
  return flops;
}

double median(std::vector<double> values) {
  auto const middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

/// Operands for the largest of a step's products, read by all threads, and results, written in
/// disjoint parts.
struct operands {
  aligned_buffer<float> x, y, w;  // activations, their gradients, a weight
  aligned_buffer<float> dx, out, dw;

  operands(model_config const& c, std::int64_t rows) {
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
    detail::gemm(CblasNoTrans, CblasTrans, of_rows.count, s.out, s.in, some_x, s.in, w.data(), s.in,
                 0.0F, out.data() + of_rows.begin * s.out, s.out);
    detail::gemm(CblasNoTrans, CblasNoTrans, of_rows.count, s.in, s.out, some_y, s.out, w.data(),
                 s.in, 0.0F, dx.data() + of_rows.begin * s.in, s.in);
    detail::gemm(CblasTrans, CblasNoTrans, of_weight.count, s.in, rows, y.data() + of_weight.begin,
                 s.out, x.data(), s.in, 0.0F, dw.data() + of_weight.begin * s.in, s.in);
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

/// Seconds of all products of a step by the BLAS alone: each product one call, threaded by the BLAS
/// itself, or one equal part per thread, which need not wait for each other; whichever is faster.
double blas_seconds(model_config const& c, std::int64_t rows, strata::thread_pool& pool) {
  operands data(c, rows);
  auto const threads = pool.num_shares();
  auto const all_products = [&](auto const& run) {
    for (auto const& s : products_of(c))
      for (std::int64_t i = 0; i < s.count; ++i) run(s);
  };
  use_single_threaded_blas();  // sets it once; from here on it is ours to set
  openblas_set_num_threads(threads);
  auto const by_blas = median_seconds([&] {
    all_products([&](product_shape const& s) { data.run(s, rows, {0, 0, rows}, {0, 0, s.out}); });
  });
  openblas_set_num_threads(1);
  auto const by_parts = median_seconds([&] {
    for_tasks(pool, threads, [&](std::int64_t task, std::int32_t) {
      strata::share const part{static_cast<std::int32_t>(task), threads};
      auto const slab_of = [&](std::int64_t count) {
        return slab{task, part.begin(count), part.end(count) - part.begin(count)};
      };
      all_products(
          [&](product_shape const& s) { data.run(s, rows, slab_of(rows), slab_of(s.out)); });
    });
  });
  return std::min(by_blas, by_parts);
}

/// Seconds of a step under a routing.
double training_seconds(training_options const& options, corpus const& text_read,
                        strata::thread_pool& pool) {
  trainer run(options, text_read, pool);
  std::vector<double> times;
  while (!run.finished() && !interrupted()) {
    auto const report = run.step();
    if (report.step >= 2) times.push_back(report.seconds);
  }
  return times.empty() ? 0 : median(times);
}

/// Bytes without any structure; what they are does not change how long a step takes.
corpus noise_text() {
  std::vector<std::uint8_t> bytes(1 << 20);
  for (std::size_t i = 0; i < bytes.size(); ++i)
    bytes[i] =
        static_cast<std::uint8_t>(strata::philox({{static_cast<std::uint32_t>(i)}}, 1, 2).word[0]);
  std::vector<std::vector<std::uint8_t>> texts;
  texts.push_back(std::move(bytes));
  return {std::move(texts), 0};
}

}  // namespace

std::string kernels_text() {
#define STRATA_LM_SPELL_OUT(name) #name
#define STRATA_LM_SPELL(name) STRATA_LM_SPELL_OUT(name)
  std::string const isa = STRATA_LM_SPELL(STRATA_CPU_ISA);
#undef STRATA_LM_SPELL
#undef STRATA_LM_SPELL_OUT
  return "attention: cpu::blocked, " + isa + "; products: OpenBLAS, " + openblas_get_corename();
}

void bench_training(bench_options const& o, strata::thread_pool& pool) {
  training_options t;
  t.model = o.model.config();
  if (o.context > 0) t.model.context = o.context;
  if (o.model.shape != "demo" && o.context == 0)
    t.model.context = std::min(t.model.context, 1024);  // activations of more do not fit most
  if (o.batch > 0) t.batch = o.batch;
  t.steps = o.steps + 2;
  auto const rows = t.tokens_per_step();
  auto const needed = (4 * make_tensor_table(t.model).size +
                       activations<float>::count(t.model, rows, pool.num_shares())) *
                      static_cast<std::int64_t>(sizeof(float));
  require_fit(needed, available_memory(), "training " + o.model.name(), "this machine");
  std::printf("%s: steps of %d x %d tokens, %d threads, %s\n%s\n\n", o.model.name().c_str(),
              t.batch, t.model.context, pool.num_shares(), machine_text().c_str(),
              kernels_text().c_str());

  auto const text_read = noise_text();
  auto const alone = blas_seconds(t.model, rows, pool);
  auto const flops = step_flops(t.model, rows);
  text_table table({"step", "ms", "tokens/s", "GFLOP/s", "of the BLAS alone"});
  auto list = json_value::array();
  auto const add = [&](std::string const& name, double seconds) {
    if (seconds <= 0) return;
    table.add({name, rate_text(seconds * 1e3), rate_text(static_cast<double>(rows) / seconds),
               rate_text(flops / seconds * 1e-9), text("%.2f", alone / seconds)});
    list.push_back({{"step", name}, {"ms", seconds * 1e3}, {"of_blas", alone / seconds}});
  };
  add("its products, BLAS alone", alone);
  for (auto const* routing : {"self", "rcla:0.6"}) {
    t.routing = routing;
    add(routing, training_seconds(t, text_read, pool));
  }
  std::fputs(table.text().c_str(), stdout);
  std::puts("  GFLOP/s count the products of a step in which every K and V is read");
  if (!o.json_file.empty())
    write_json(o.json_file, {{"machine", machine_text()},
                             {"kernels", kernels_text()},
                             {"name", o.model.name()},
                             {"model", to_json(t.model)},
                             {"batch", t.batch},
                             {"threads", pool.num_shares()},
                             {"steps", list}});
}

}  // namespace lm
