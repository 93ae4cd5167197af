// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What the demo shows: its announcement, the live table, and the tables and the plot at the end.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "demo_arms.hpp"
#include "demo_clock.hpp"
#include "plot.hpp"
#include "report.hpp"
#include "serving.hpp"
#include "table.hpp"
#include "units.hpp"

namespace lm {

/// What will happen, and when it ends.
inline std::string announcement(std::vector<arm_spec> const& specs, training_options const& o,
                                corpus const& text_read, std::string const& text_name,
                                demo_schedule const& schedule, double seconds, bool timed) {
  auto const& c = specs.front().model;
  std::string out =
      text("%zu models learn %s (%s bytes; every %dth block of 16 KB is held out).\n", specs.size(),
           text_name.c_str(), count_text(text_read.bytes()).c_str(), text_read.hold_out());
  out += text(
      "All see the same batches; %d layers x %d, %d query and %d KV heads of %d, %s "
      "parameters:\n\n",
      c.layers, c.dim, c.q_heads, c.kv_heads, c.head_dim, count_text(c.parameter_count()).c_str());
  text_table table({"model", "layers", "how it trains"}, 3);
  for (auto const& s : specs) table.add({s.name, std::to_string(s.model.layers), s.about});
  out += table.text();
  out += text(
      "\n%lld steps of %d x %d bytes, then the last table from %s of held-out text, in all about "
      "%s%s: %s %s.\n",
      static_cast<long long>(schedule.steps), o.batch, o.model.context,
      schedule.eval_bytes == 0 ? "all" : bytes_text(schedule.eval_bytes).c_str(),
      duration_text(seconds).c_str(), timed ? "" : " (--steps decides, not --minutes)",
      timed ? "ends by" : "ends about", time_of_day(seconds).c_str());
  return out + "Ctrl-C ends the training early and still reports.\n\n";
}

/// A model's line of the report, its strategies still to come.
inline model_report model_of(arm const& a) {
  auto const& spec = a.spec();
  return {spec.name,           spec.model.layers,
          spec.routing_text(), spec.model.parameter_count(),
          a.train_seconds(),   {}};
}

/// Losses of the live table: [models][strategies]; empty where a model does not exist yet.
struct live_losses {
  std::int64_t step = 0;
  std::vector<std::vector<double>> loss;
};

inline std::string live_table_text(experiment const& e, live_losses const& losses) {
  std::vector<std::string> header = {"held-out loss, nats per byte"};
  for (auto const& s : demo_strategies()) header.push_back(short_name(s));
  text_table table(header);
  for (std::size_t i = 0; i < e.arms().size(); ++i) {
    std::vector<std::string> cells = {e.arms()[i].spec().name};
    if (i < losses.loss.size())
      for (auto const loss : losses.loss[i]) cells.push_back(text("%.3f", loss));
    if (!e.arms()[i].exists())
      cells[0] += text(" (from step %lld)", static_cast<long long>(e.branch_step()));
    table.add(std::move(cells));
  }
  return table.text();
}

inline std::string training_line(experiment const& e, double bytes_per_second, double left) {
  std::string losses;
  for (auto const& a : e.arms())
    if (a.exists()) losses += text(" %s %.2f", a.spec().name.c_str(), a.train_loss());
  return text("step %lld/%lld, %s bytes/s, %s left; training loss%s\n",
              static_cast<long long>(e.steps_done()), static_cast<long long>(e.steps()),
              count_text(static_cast<std::int64_t>(bytes_per_second)).c_str(),
              duration_text(std::max(left, 0.0)).c_str(), losses.c_str());
}

/// One line per model and strategy.
inline std::string final_table_text(demo_report const& report) {
  text_table table({"model", "strategy", "leaders", "loss", "vs full", "K/V per token",
                    "decode tok/s", "parameters", "trained"},
                   3);
  for (auto const& m : report.models) {
    bool first = true;
    for (auto const& s : m.strategies) {
      auto const extra = s.loss - m.strategies.front().loss;
      table.add({first ? m.name : "", short_name(s.strategy), leaders_text(s.leaders, 8),
                 text("%.3f", s.loss), first ? "" : text("%+.3f", extra),
                 bytes_text(s.kv_bytes_per_token), rate_text(s.times.decode_tokens_per_s),
                 first ? count_text(m.parameters) : "",
                 first ? duration_text(m.train_seconds) : ""});
      first = false;
    }
  }
  return table.text();
}

/// Held-out loss against bytes per token, one line per checkpoint; strategies that keep equally
/// much are one point, the first.
inline plot loss_plot(demo_report const& report) {
  plot chart{"Held-out loss by K/V cache size (" + std::to_string(report.steps) + " steps)",
             "K/V bytes per token",
             "nats per byte",
             {}};
  for (auto const& m : report.models) {
    plot_line line{m.name, {}};
    for (auto const& s : m.strategies) line.points.push_back({s.kv_bytes_per_token, s.loss});
    tidy(line);
    if (!line.points.empty()) chart.lines.push_back(std::move(line));
  }
  return chart;
}

}  // namespace lm
