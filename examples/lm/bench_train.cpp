// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The training step, as a fraction of the BLAS's own rate.
#include "bench_train.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "blas_rate.hpp"
#include "report.hpp"
#include "serving_place.hpp"
#include "shapes.hpp"
#include "table.hpp"
#include "trainer.hpp"

namespace lm {
namespace {

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

}  // namespace

void bench_training(bench_options const& o, strata::thread_pool& pool) {
  training_options t;
  t.model = o.model.config();
  if (!o.contexts.empty()) t.model.context = o.contexts.front();
  if (o.model.shape != "demo" && o.contexts.empty())
    t.model.context = std::min(t.model.context, 1024);  // activations of more do not fit most
  if (!o.batches.empty()) t.batch = o.batches.front();
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
