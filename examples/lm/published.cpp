// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "published.hpp"

#include <cmath>

#include "table.hpp"

namespace lm {
namespace {

constexpr double mib = 1 << 20;

published_line const* line_of(published_line const& like, char const* strategy) {
  for (auto const& line : published_lines)
    if (line.shape == std::string(like.shape) && line.strategy == std::string(strategy) &&
        line.context == like.context && line.batch == like.batch)
      return &line;
  return nullptr;
}

/// The row of this run that a line of the paper is about, and its table's full.
struct rows_found {
  bench_row const* row = nullptr;
  bench_row const* full = nullptr;
};
rows_found find(published_line const& line, std::vector<bench_table> const& tables) {
  for (auto const& table : tables) {
    bool const meant = table.about.context == line.context && table.about.batch == line.batch &&
                       table.about.generated() == line.generated;
    if (!meant) continue;
    for (auto const& row : table.rows)
      if (row.what.given == line.strategy) return {&row, &table.rows.front()};
  }
  return {};
}

void add_times(std::vector<comparison>& out, std::string const& name, published_line const& line,
               bench_row const& row, bench_row const& full) {
  if (line.ttft_ms > 0) out.push_back({name + "first token", "ms", line.ttft_ms, row.ttft_ms, 0});
  if (line.tokens_per_s > 0)
    out.push_back({name + "decode", "tok/s", line.tokens_per_s, row.decode_tokens_per_s, 0});
  if (line.peak_gb > 0)
    out.push_back(
        {name + "peak memory", "GB", line.peak_gb, static_cast<double>(row.peak_bytes) * 1e-9, 0});
  auto const* const base = line_of(line, "full");
  if (base == nullptr || base->ttft_ms <= 0 || &row == &full) return;
  auto const measured = measured_gains(row, full), predicted = predicted_gains(row, full);
  out.push_back({name + "gain in the first token", "x", base->ttft_ms / line.ttft_ms, measured.ttft,
                 predicted.ttft});
  out.push_back({name + "gain in decoding", "x", line.tokens_per_s / base->tokens_per_s,
                 measured.decode, predicted.decode});
}

std::string number_text(double value, char const* unit) {
  if (value <= 0) return "-";
  if (unit == std::string("x")) return text("%.2fx", value);
  bool const whole = value == std::floor(value) && unit != std::string("tok/s");
  return text("%.*f %s", whole ? 0 : 1, value, unit);
}

}  // namespace

std::vector<bench_case> published_cases() {
  std::vector<bench_case> cases;
  for (auto const context : {512, 2048, 8192, 32768}) cases.push_back({context, 1, 128 - warm_up});
  for (auto const batch : {1, 4, 16}) cases.push_back({8192, batch, 63 - warm_up});
  return cases;
}

std::vector<comparison> compare_with_paper(std::string const& shape, model_config const& config,
                                           std::vector<bench_table> const& tables) {
  std::vector<comparison> out;
  for (auto const& line : published_lines) {
    if (shape != line.shape) continue;
    auto const [row, full] = find(line, tables);
    if (row == nullptr) continue;
    auto const name =
        text("%d x %s, %s: ", line.batch, count_text(line.context).c_str(), line.strategy);
    if (line.out_of_memory) {
      out.push_back({name + "runs", "", 0, row->decode_ms > 0 ? 1.0 : 0.0, 0});
      continue;
    }
    cache_options const prompts{cache_codec::bf16, line.batch, line.context};
    auto const prompt_bytes = cache_bytes(row->what.plan, config, prompts);
    out.push_back({name + "K/V of the prompt", "MiB", line.prompt_mib,
                   static_cast<double>(prompt_bytes) / mib, 0});
    out.push_back({name + text("K/V with %d tokens more", line.generated), "MiB", line.all_mib,
                   static_cast<double>(row->cost.kv_bytes) / mib, 0});
    add_times(out, name, line, *row, *full);
  }
  return out;
}

std::string comparison_text(std::vector<comparison> const& figures) {
  text_table table({"figure", "paper", "here", "predicted"});
  for (auto const& f : figures) {
    bool const runs = *f.unit == '\0';
    table.add({f.figure, runs ? "out of memory" : number_text(f.paper, f.unit),
               runs ? (f.here > 0 ? "yes" : "-") : number_text(f.here, f.unit),
               number_text(f.predicted, f.unit)});
  }
  return "The paper's Tables 4 and 5 (bf16, one GPU of 80 GB) beside this run\n" + table.text() +
         "  -: not measured here. K/V is what a cache of so many tokens takes, run or not;\n"
         "  predicted: by the roofline of the place given, as above.\n";
}

json_value to_json(std::vector<comparison> const& figures) {
  auto out = json_value::array();
  for (auto const& f : figures) {
    json_value one = {{"figure", f.figure}, {"unit", f.unit}};
    if (f.paper > 0) one["paper"] = f.paper;
    if (f.here > 0) one["here"] = f.here;
    if (f.predicted > 0) one["predicted"] = f.predicted;
    out.push_back(std::move(one));
  }
  return out;
}

}  // namespace lm
