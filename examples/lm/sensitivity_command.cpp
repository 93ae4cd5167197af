// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// strata-lm sensitivity: what each leader is worth, for people and for strata-lm plan.
#include <algorithm>
#include <cstdio>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "commands.hpp"
#include "progress.hpp"
#include "report.hpp"
#include "scored_text.hpp"
#include "sensitivity.hpp"
#include "table.hpp"

namespace lm {
namespace {

/// What was measured, beside the loss of the strategy from which leaders were removed.
struct sensitivity_report {
  std::span<window const> windows;
  std::vector<double> start;  // [windows]
  std::vector<removal> alone, greedy;

  estimate loss(removal const& r) const { return estimate_of(r.loss, windows); }
  estimate cost(removal const& r) const { return difference_of(r.loss, start, windows); }
};

std::string removals_text(sensitivity_report const& r, std::vector<removal> const& removals) {
  text_table table({"removed", "leaders left", "loss", "cost"});
  for (auto const& one : removals) {
    table.add({"layer " + std::to_string(one.layer), leaders_text(one.left.leaders, 8),
               text("%.4f", r.loss(one).mean), difference_text(r.cost(one))});
  }
  return table.text();
}

json_value removals_json(sensitivity_report const& r, std::vector<removal> const& removals) {
  auto out = json_value::array();
  for (auto const& one : removals) {
    out.push_back({{"layer", one.layer},
                   {"strategy", one.left.given},
                   {"loss", r.loss(one).mean},
                   {"cost", to_json(r.cost(one))}});
  }
  return out;
}

/// [num_layers], as planner_goals take them: at least 0, and 0 where nothing was measured.
std::vector<double> sensitivities(sensitivity_report const& r, std::int32_t layers) {
  std::vector<double> out(static_cast<std::size_t>(layers));
  for (auto const& one : r.alone)
    out[static_cast<std::size_t>(one.layer)] = std::max(r.cost(one).mean, 0.0);
  return out;
}

}  // namespace

void run_sensitivity(sensitivity_options o) {
  require_writable("--json", o.json_file);
  auto const codec = choose_codec(o.codec, o.device, cache_codec::f32);
  auto const place = open_model(o.model, {o.device, o.threads, o.weights, o.adapters});
  auto const& config = place->config();
  check_windows(o, config);
  scored_text const scored(o, o.model, config);
  auto const from = resolve_strategy(o.strategy, config);

  live_text news(stderr);
  leader_removals measured(*place, scored.windows(), {codec, o.context});
  auto const say = [&](std::int32_t layer) { news.show(text("without layer %d\n", layer)); };
  sensitivity_report report{scored.windows(), measured.losses(from), {}, {}};
  report.alone = measured.one_by_one(from, say);
  bool const whole = !interrupted();
  if (o.greedy && whole) report.greedy = measured.greedily(report.alone, say);
  news.clear();

  auto const start = estimate_of(report.start, report.windows);
  std::printf("%s tokens of %s, windows of %d every %d\n%s: %.4f +- %.4f nats per token\n\n%s",
              count_text(scored.tokens()).c_str(), scored.name().c_str(), o.context, o.stride,
              from.given.c_str(), start.mean, start.error,
              removals_text(report, report.alone).c_str());
  if (o.greedy)
    std::printf("\nOne after the other, the cheapest first:\n\n%s",
                removals_text(report, report.greedy).c_str());
  if (o.json_file.empty() || !whole) return;  // plan needs all layers
  json_value json = {{"model", o.model},
                     {"strategy", from.given},
                     {"codec", codec_name(codec)},
                     {"tokens", scored.tokens()},
                     {"loss", to_json(start)},
                     {"sensitivity", sensitivities(report, config.layers)},
                     {"alone", removals_json(report, report.alone)}};
  if (o.greedy) json["greedy"] = removals_json(report, report.greedy);
  write_json(o.json_file, json);
}

}  // namespace lm
