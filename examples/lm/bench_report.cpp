// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bench_report.hpp"

#include <algorithm>
#include <utility>

#include "table.hpp"

namespace lm {
namespace {

std::string times_text(double gain) { return gain > 0 ? text("%.2fx", gain) : "-"; }
std::string fraction_text(double part) { return part > 0 ? text("%.2f", part) : "-"; }
std::string measured_text(double value) { return value > 0 ? rate_text(value) : "-"; }

std::vector<std::string> cells_of(bench_row const& row, bench_row const& full, bool with_prompts) {
  auto const measured = measured_gains(row, full), predicted = predicted_gains(row, full);
  std::vector<std::string> cells = {
      row.what.given,
      text("%zu of %d", row.what.leaders.size(), static_cast<int>(row.what.plan.num_layers)),
      bytes_text(row.cost.kv_bytes), row.peak_bytes > 0 ? bytes_text(row.peak_bytes) : "-"};
  if (with_prompts)
    cells.insert(cells.end(), {measured_text(row.ttft_ms), times_text(measured.ttft),
                               times_text(predicted.ttft), fraction_text(row.ttft_fraction())});
  cells.insert(cells.end(), {measured_text(row.decode_ms), measured_text(row.decode_tokens_per_s),
                             times_text(measured.decode), times_text(predicted.decode),
                             fraction_text(row.decode_fraction())});
  return cells;
}

/// Puts in what was measured, and only that.
void add_measured(json_value& out, bench_row const& row, bench_row const& full, bool with_prompts) {
  auto const put = [&](char const* key, double value) {
    if (value > 0) out[key] = value;
  };
  auto const gain = measured_gains(row, full);
  if (row.peak_bytes > 0) out["peak_bytes"] = row.peak_bytes;
  if (with_prompts) {
    put("ttft_ms", row.ttft_ms);
    put("ttft_ratio_to_full", gain.ttft);
    put("prefill_tokens_per_s", row.prefill_tokens_per_s);
    put("product_flops_per_second", row.product_flops_per_second);
    put("ttft_fraction_of_roofline", row.ttft_fraction());
  }
  put("decode_ms", row.decode_ms);
  put("decode_tokens_per_s", row.decode_tokens_per_s);
  put("ratio_to_full", gain.decode);
  put("read_bytes_per_second", row.read_bytes_per_second);
  put("fraction_of_roofline", row.decode_fraction());
}

json_value row_json(bench_row const& row, bench_table const& table, bool with_prompts) {
  auto const& full = table.rows.front();
  auto const predicted = predicted_gains(row, full);
  auto const tokens = static_cast<double>(table.about.context + table.about.generated());
  json_value out = {
      {"strategy", row.what.given},
      {"leaders", row.what.leaders},
      {"retention", row.what.retention},
      {"kv_bytes", row.cost.kv_bytes},
      {"kv_bytes_per_token", static_cast<double>(row.cost.kv_bytes) / tokens / table.about.batch},
      {"bytes_per_step", row.cost.step_bytes},
      {"predicted_ratio_to_full", predicted.decode}};
  if (with_prompts) {
    out["flops_per_prompt"] = row.cost.prompt_flops;
    out["bytes_per_prompt"] = row.cost.prompt_bytes;
    out["predicted_ttft_ratio_to_full"] = predicted.ttft;
  }
  if (row.ran())
    add_measured(out, row, full, with_prompts);
  else
    out["refused"] = row.missing;
  return out;
}

}  // namespace

std::string table_text(bench_table const& table, bool with_prompts) {
  std::vector<std::string> header = {"strategy", "leaders", "K/V", "peak"};
  if (with_prompts) header.insert(header.end(), {"ttft ms", "gain", "predicted", "of roofline"});
  auto const decode = header.size();
  header.insert(header.end(), {"step ms", "tok/s", "gain", "predicted", "of roofline"});
  text_table lines(header);
  if (with_prompts) lines.group(4, "first token");
  lines.group(decode, "decode step");
  for (auto const& row : table.rows) lines.add(cells_of(row, table.rows.front(), with_prompts));
  auto out = text("%d x %s tokens, then %d more of each\n", table.about.batch,
                  count_text(table.about.context).c_str(), table.about.generated()) +
             lines.text();
  std::vector<std::string> reasons;
  for (auto const& row : table.rows) {
    bool const said = row.ran() || std::ranges::find(reasons, row.missing) != reasons.end();
    if (said) continue;
    reasons.push_back(row.missing);
    out += "  not run: " + row.missing + "\n";
  }
  return out;
}

std::string columns_text(bool with_prompts) {
  std::string out =
      "  K/V: of all these tokens. peak: with weights and activations. gain: over full, measured.\n"
      "  predicted: the same, if nothing counted but the bytes that a step reads";
  if (with_prompts) out += "\n  and the operations of a prompt";
  out +=
      ". of roofline: the time that those need at the rates\n"
      "  measured beside them, over the time taken; above 1 where all fits a processor's caches.\n";
  if (with_prompts) out += "  ttft: of the first sequence; the prompts come one after another.\n";
  out +=
      "  Layers that share K and V each read them: sharing saves memory, writes and projections,\n"
      "  not what attention reads.\n";
  return out;
}

json_value to_json(bench_table const& table, bool with_prompts) {
  json_value out = {{"context", table.about.context},
                    {"batch", table.about.batch},
                    {"generated", table.about.generated()},
                    {"strategies", json_value::array()}};
  for (auto const& row : table.rows)
    out["strategies"].push_back(row_json(row, table, with_prompts));
  return out;
}

}  // namespace lm
