// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// strata-lm eval: the loss of a text and the speed of serving, for each strategy.
#include <algorithm>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint.hpp"
#include "commands.hpp"
#include "measure.hpp"
#include "progress.hpp"
#include "report.hpp"
#include "scored_text.hpp"
#include "table.hpp"

namespace lm {
namespace {

/// A strategy's line, and the loss of the probe where one was asked for.
struct eval_row {
  strategy_report report;
  double repeat_loss = 0;
};

std::string rows_text(std::vector<eval_row> const& rows, bool probed) {
  std::vector<std::string> header = {"strategy", "leaders", "retention", "loss"};
  if (probed) header.push_back("2nd copy");
  header.insert(header.end(), {"K/V per token", "ttft ms", "prefill tok/s", "decode tok/s"});
  text_table table(header);
  for (auto const& [r, repeat_loss] : rows) {
    std::vector<std::string> cells = {r.strategy, leaders_text(r.leaders),
                                      text("%.1f %%", 100 * r.retention), text("%.4f", r.loss)};
    if (probed) cells.push_back(text("%.4f", repeat_loss));
    cells.insert(cells.end(),
                 {bytes_text(r.kv_bytes_per_token), rate_text(r.times.ttft_ms),
                  rate_text(r.times.prefill_tokens_per_s), rate_text(r.times.decode_tokens_per_s)});
    table.add(std::move(cells));
  }
  return table.text();
}

json_value rows_json(std::vector<eval_row> const& rows, bool probed, model_config const& config,
                     std::int64_t tokens) {
  json_value out = {
      {"model", to_json(config)}, {"tokens", tokens}, {"strategies", json_value::array()}};
  for (auto const& row : rows) {
    auto one = to_json(row.report);
    if (probed) one["repeat_loss"] = row.repeat_loss;
    out["strategies"].push_back(std::move(one));
  }
  return out;
}

}  // namespace

void run_eval(eval_options o) {
  require_writable("--json", o.json_file);
  auto const codec = choose_codec(o.codec, o.device, cache_codec::f32);
  auto const place = open_model(o.model, {o.device, o.threads, o.weights, o.adapters});
  auto const& config = place->config();
  check_windows(o, config);
  auto const strategies = resolve_strategies(o.strategies, config);
  scored_text const scored(o, o.model, config);
  auto const& windows = scored.windows();
  auto const tokens = scored.tokens();
  bool const probed = !o.probe.empty();
  auto const passages = probed ? repeats_of(scored.blocks(), o.context) : repeated_text{};

  live_text news(stderr);
  std::vector<eval_row> rows;
  for (auto const& s : strategies) {
    measurement m(*place, s, {codec, o.context});
    auto const progress = [&](std::int64_t done, double seconds) {
      if (done == tokens)
        return news.show(text("%s: timing a prompt of %d tokens and those after it\n",
                              s.given.c_str(), std::max(o.context / 2, 1)));
      auto const rate = static_cast<double>(done) / seconds;
      news.show(text("%s: %s of %s tokens, %s tokens/s, %s left\n", s.given.c_str(),
                     count_text(done).c_str(), count_text(tokens).c_str(), rate_text(rate).c_str(),
                     duration_text(static_cast<double>(tokens - done) / rate).c_str()));
    };
    eval_row row{m.report(windows, progress), 0};
    if (probed && !interrupted()) row.repeat_loss = m.loss(passages.windows).mean();
    if (interrupted()) break;  // half a text's loss compares with nothing
    rows.push_back(std::move(row));
  }
  news.clear();
  if (rows.empty()) return;  // interrupted in the first
  std::printf("%s tokens of %s, windows of %d every %d\n\n%s", count_text(tokens).c_str(),
              scored.name().c_str(), o.context, o.stride, rows_text(rows, probed).c_str());
  if (!o.json_file.empty()) write_json(o.json_file, rows_json(rows, probed, config, tokens));
}

}  // namespace lm
