// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Several seeds of the demo in one file, and what they say together: differences are taken within a
// seed, where both models saw the same batches, and only then averaged.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "failure.hpp"
#include "plot.hpp"
#include "report.hpp"
#include "table.hpp"
#include "units.hpp"

namespace lm {

/// Mean and spread of one number over seeds.
inline json_value summary_of(std::vector<double> const& values) {
  auto const n = static_cast<double>(values.size());
  double sum = 0, squares = 0;
  for (auto const v : values) sum += v;
  auto const mean = sum / n;
  for (auto const v : values) squares += (v - mean) * (v - mean);
  json_value out = {{"mean", mean}};
  if (values.size() > 1) out["deviation"] = std::sqrt(squares / (n - 1));
  out["smallest"] = *std::ranges::min_element(values);
  out["largest"] = *std::ranges::max_element(values);
  out["per_seed"] = values;
  return out;
}

namespace detail {

/// The line of a model at a strategy in one run, or null.
inline json_value const* find_line(json_value const& run, std::string const& model,
                                   std::string const& strategy) {
  for (auto const& m : run.at("models"))
    if (m.at("name") == model)
      for (auto const& s : m.at("strategies"))
        if (s.at("strategy") == strategy) return &s;
  return nullptr;
}

/// loss(a) - loss(b), of the seeds that have both.
inline std::vector<double> loss_differences(json_value const& runs, std::string const& model,
                                            std::string const& strategy,
                                            std::string const& other_model,
                                            std::string const& other_strategy) {
  std::vector<double> differences;
  for (auto const& run : runs) {
    auto const* const a = find_line(run, model, strategy);
    auto const* const b = find_line(run, other_model, other_strategy);
    if (a != nullptr && b != nullptr)
      differences.push_back(a->at("loss").get<double>() - b->at("loss").get<double>());
  }
  return differences;
}

}  // namespace detail

/// "losses": of every model and strategy. "against_plain": minus plain at the same strategy.
/// "at_equal_bytes": minus every shallower plain model at full that keeps as many bytes per token.
inline void summarise(json_value& study) {
  auto const& runs = study.at("runs");
  auto losses = json_value::array(), against = json_value::array(), equal = json_value::array();
  for (auto const& m : runs.front().at("models"))
    for (auto const& s : m.at("strategies")) {
      auto const model = m.at("name").get<std::string>();
      auto const strategy = s.at("strategy").get<std::string>();
      std::vector<double> all;
      for (auto const& run : runs)
        if (auto const* const line = detail::find_line(run, model, strategy))
          all.push_back(line->at("loss").get<double>());
      json_value const key = {{"model", model}, {"strategy", strategy}};
      auto const add = [&key](json_value& list, json_value more, json_value const& numbers) {
        auto entry = key;
        entry.update(more);
        entry.update(numbers);
        list.push_back(std::move(entry));
      };
      add(losses, {{"kv_bytes_per_token", s.at("kv_bytes_per_token")}}, summary_of(all));
      auto const paired = detail::loss_differences(runs, model, strategy, "plain", strategy);
      if (model != "plain" && !paired.empty())
        add(against, json_value::object(), summary_of(paired));
      for (auto const* const shallow : {"plain-half", "plain-quarter"}) {
        auto const* const full = detail::find_line(runs.front(), shallow, "full");
        bool const same = full != nullptr && model != shallow && strategy != "full" &&
                          full->at("kv_bytes_per_token") == s.at("kv_bytes_per_token");
        if (same)
          add(equal, {{"than", shallow}},
              summary_of(detail::loss_differences(runs, model, strategy, shallow, "full")));
      }
    }
  study["losses"] = std::move(losses);
  study["against_plain"] = std::move(against);
  study["at_equal_bytes"] = std::move(equal);
}

/// The study in a file, or a new one. Throws where the file is of other settings: seeds of
/// different experiments have no mean.
inline json_value open_study(std::string const& path, json_value const& settings) {
  json_value fresh = {{"settings", settings}, {"runs", json_value::array()}};
  if (!std::filesystem::exists(path)) return fresh;
  std::ifstream file(path);
  auto study = json_value::parse(file, nullptr, false);
  if (study.is_discarded() || !study.contains("runs") || !study.contains("settings"))
    throw failure("--study " + path + " is no study of strata-lm demo");
  if (study.at("settings") != settings)
    throw failure("--study " + path + " was begun with other settings: " +
                  study.at("settings").dump() + ", now " + settings.dump());
  return study;
}

/// The entry of a model at a strategy in one of the summaries, or null.
inline json_value const* find_summary(json_value const& list, json_value const& model,
                                      json_value const& strategy) {
  for (auto const& entry : list)
    if (entry.at("model") == model && entry.at("strategy") == strategy) return &entry;
  return nullptr;
}

/// "1.0123 +- 0.0004" of a summary, and a difference with its sign.
inline std::string spread_text(json_value const& summary, bool is_difference) {
  auto const mean = summary.at("mean").get<double>();
  auto const out = is_difference ? text("%+.4f", mean) : text("%.4f", mean);
  if (!summary.contains("deviation")) return out;
  return out + text(" +- %.4f", summary.at("deviation").get<double>());
}

/// Mean and standard deviation over the seeds, of losses and of paired differences.
inline std::string study_text(json_value const& study) {
  text_table table({"model", "strategy", "K/V per token", "loss", "against plain there",
                    "against a plain model of equal bytes"},
                   2);
  for (auto const& entry : study.at("losses")) {
    auto const &model = entry.at("model"), &strategy = entry.at("strategy");
    auto const difference = [&](char const* list) {
      auto const* const found = find_summary(study.at(list), model, strategy);
      return found == nullptr ? std::string() : spread_text(*found, true);
    };
    table.add({model, short_name(strategy),
               bytes_text(entry.at("kv_bytes_per_token").get<double>()), spread_text(entry, false),
               difference("against_plain"), difference("at_equal_bytes")});
  }
  return text("Nats per byte, mean and standard deviation over %zu seeds:\n\n",
              study.at("runs").size()) +
         table.text();
}

/// Mean loss against bytes per token, a line per model.
inline plot study_plot(json_value const& study) {
  auto const& runs = study.at("runs");
  plot chart{text("Held-out loss by K/V cache size (%d steps, mean of %zu seeds)",
                  runs.front().at("steps").get<int>(), runs.size()),
             "K/V bytes per token",
             "nats per byte",
             {}};
  for (auto const& entry : study.at("losses")) {
    auto const name = entry.at("model").get<std::string>();
    if (chart.lines.empty() || chart.lines.back().name != name) chart.lines.push_back({name, {}});
    chart.lines.back().points.push_back(
        {entry.at("kv_bytes_per_token").get<double>(), entry.at("mean").get<double>()});
  }
  for (auto& line : chart.lines) tidy(line);
  return chart;
}

inline bool has_seed(json_value const& study, std::uint64_t seed) {
  return std::ranges::any_of(study.at("runs"),
                             [&](auto const& run) { return run.at("seed") == seed; });
}

}  // namespace lm
