// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// strata-lm plan: which strategy fits a budget, before anything is allocated.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include <strata/map/planner.hpp>
#include <strata/picture.hpp>

#include "commands.hpp"
#include "report.hpp"
#include "sensitivity.hpp"
#include "table.hpp"

namespace lm {
namespace {

/// full, then all of every:K and spread:N, most leaders first. Two names of one plan share a line;
/// as many leaders in other places do not, since the prefill that is skipped differs.
std::vector<strategy> all_strategies(model_config const& config) {
  std::vector<strategy> list = {resolve_strategy("full", config)};
  auto const add = [&](std::string const& given) {
    auto s = resolve_strategy(given, config);
    auto const same = std::find_if(list.begin(), list.end(),
                                   [&](auto const& other) { return other.plan == s.plan; });
    if (same == list.end())
      list.push_back(std::move(s));
    else
      same->given += ", " + given;
  };
  for (std::int32_t k = 2; k <= config.layers; ++k) add("every:" + std::to_string(k));
  for (std::int32_t n = config.layers - 1; n > 0; --n) add("spread:" + std::to_string(n));
  std::stable_sort(list.begin(), list.end(), [](auto const& a, auto const& b) {
    return a.leaders.size() > b.leaders.size();
  });
  return list;
}

/// One strategy against the budget.
struct plan_row {
  strategy what;
  std::int64_t bytes_per_token = 0;
  std::int64_t total = 0;  // of the whole batch at the context asked for
  bool fits = true;
};

std::vector<plan_row> fill_in(std::vector<strategy> strategies, model_config const& config,
                              plan_options const& o) {
  std::vector<plan_row> rows;
  for (auto& s : strategies) {
    plan_row row;
    row.bytes_per_token = cache_bytes(s.plan, config, {o.codec, 1, 64}) / 64;
    row.total = cache_bytes(s.plan, config, {o.codec, o.batch, o.context});
    row.fits = o.budget == 0 || row.total <= o.budget;
    row.what = std::move(s);
    rows.push_back(std::move(row));
  }
  return rows;
}

void print_rows(std::vector<plan_row> const& rows, plan_options const& o) {
  std::vector<std::string> header = {"strategy",  "leaders", "retention",
                                     "per token", "in all",  "prefill skipped"};
  if (o.budget > 0) header.insert(header.end(), {"fits", "longest context", "largest batch"});
  text_table table(header);
  for (auto const& row : rows) {
    auto const& s = row.what;
    std::vector<std::string> cells = {s.given,
                                      leaders_text(s.leaders),
                                      text("%.1f %%", 100 * s.retention),
                                      bytes_text(row.bytes_per_token),
                                      bytes_text(row.total),
                                      text("%.1f %%", 100 * s.skipped_fraction())};
    if (o.budget > 0) {
      auto const tokens = o.budget / row.bytes_per_token;  // of all sequences together
      cells.insert(cells.end(), {row.fits ? "yes" : "no", count_text(tokens / o.batch),
                                 count_text(tokens / o.context)});
    }
    table.add(std::move(cells));
  }
  std::fputs(table.text().c_str(), stdout);
}

/// The strategy that keeps most and fits; of equals the one that skips more of prefill.
plan_row const* best_fit(std::vector<plan_row> const& rows) {
  plan_row const* best = nullptr;
  for (auto const& row : rows) {
    if (!row.fits) continue;
    auto const key = [](plan_row const& r) {
      return std::pair(r.bytes_per_token, r.what.skipped_fraction());
    };
    if (best == nullptr || key(row) > key(*best)) best = &row;
  }
  return best;
}

/// What `strata-lm sensitivity` wrote, or nothing. Throws where it is of another model.
json_value read_sensitivities(std::string const& path, model_config const& config) {
  if (path.empty()) return json_value::object();
  std::ifstream file(path);
  auto json = json_value::parse(file, nullptr, false);
  auto const refuse = [&](std::string const& why) {
    throw failure("--sensitivities " + path + why, exit_code::wrong_use);
  };
  bool const known =
      json.is_object() && json.contains("sensitivity") && json.at("sensitivity").is_array() &&
      std::ranges::all_of(json.at("sensitivity"), [](auto const& one) { return one.is_number(); });
  if (!known) refuse(" is no file of strata-lm sensitivity");
  auto const layers = json.at("sensitivity").size();
  if (std::cmp_not_equal(layers, config.layers))
    refuse(" is of a model of " + std::to_string(layers) + " layers, this one has " +
           std::to_string(config.layers));
  return json;
}

/// Of the sets that were measured one leader less at a time, the one that costs least and fits. Of
/// leaders that stand in for each other each alone looks dispensable: these losses know better than
/// sums of sensitivities.
void print_measured(json_value const& measured, model_config const& config, plan_options const& o) {
  if (!measured.contains("greedy")) return;
  json_value const* best = nullptr;
  auto const cost = [](json_value const& one) { return one.at("cost").at("mean").get<double>(); };
  for (auto const& one : measured.at("greedy")) {
    auto const s = resolve_strategy(one.at("strategy").get<std::string>(), config);
    if (cache_bytes(s.plan, config, {o.codec, o.batch, o.context}) > o.budget) continue;
    if (best == nullptr || cost(one) < cost(*best)) best = &one;
  }
  if (best == nullptr) return;
  std::printf(
      "\n%s, of the sets that were measured one leader less at a time:\n"
      "%+.4f +- %.4f nats per token\n",
      best->at("strategy").get<std::string>().c_str(), cost(*best),
      best->at("cost").at("error").get<double>());
}

/// Of all sets of leaders that fit the one that costs least.
void print_choice(model_config const& config, plan_options const& o) {
  // All layers are alike, and so are their bytes.
  auto const full = resolve_strategy("full", config);
  auto const of_layer =
      cache_bytes(full.plan, config, {o.codec, o.batch, o.context}) / config.layers;
  std::vector<std::int64_t> const bytes(static_cast<std::size_t>(config.layers), of_layer);
  strata::planner_goals goals;
  goals.budget = o.budget;
  auto const measured = read_sensitivities(o.sensitivities, config);
  auto const costs = measured.value("sensitivity", std::vector<double>());
  goals.sensitivity = costs;
  goals.distance_weight = o.distance_weight;
  goals.prefill_weight = o.prefill_weight;
  auto const choice = strata::choose_leaders(config.classes(), bytes, goals);
  require(choice.state(), "choosing leaders");
  std::vector<std::int32_t> leaders;
  for (std::int32_t l = 0; l < config.layers; ++l)
    if (choice->leaders.contains({l})) leaders.push_back(l);
  auto const chosen = resolve_strategy(leaders_strategy(leaders), config);
  std::printf(
      "\n%s, of all sets of leaders that fit the one that costs least:\n"
      "%s in all; a source is %.2f layers below on average, %.1f %% of prefill are skipped\n"
      "(--distance-weight %g, --prefill-weight %g)\n",
      chosen.given.c_str(), bytes_text(choice->bytes).c_str(), choice->distance * config.layers,
      100 * chosen.skipped_fraction(), goals.distance_weight, o.prefill_weight);
  if (!costs.empty())
    std::printf("sensitivities of layers that do not lead add up to %.4f nats per token\n",
                choice->sensitivity);
  std::printf("\n%s", strata::picture(chosen.plan).c_str());
  print_measured(measured, config, o);
}

/// Tokens of --text: its size, by what a token of this model stands for.
std::int32_t tokens_of(plan_options const& o, model_config const& config) {
  std::error_code error;
  auto const size = std::filesystem::file_size(o.text, error);
  if (error) throw failure("--text " + o.text + ": " + error.message());
  bool const bytes = config.vocab <= 256;
  auto const per_token = o.bytes_per_token > 0 ? o.bytes_per_token : bytes ? 1.0 : 4.0;
  auto const tokens = static_cast<double>(size) / per_token;
  if (tokens < 1 || tokens > 1e9)
    throw failure("--text " + o.text + " has " + count_text(static_cast<std::int64_t>(size)) +
                  " bytes; between 1 and a billion tokens can be planned");
  std::printf("%s: %s bytes, taken as %s tokens (%s bytes per token%s)\n", o.text.c_str(),
              count_text(static_cast<std::int64_t>(size)).c_str(),
              count_text(static_cast<std::int64_t>(tokens)).c_str(), rate_text(per_token).c_str(),
              bytes || o.bytes_per_token > 0 ? "" : ", usual for English; see --bytes-per-token");
  return static_cast<std::int32_t>(tokens);
}

}  // namespace

void run_plan(plan_options o) {
  auto const config = o.model.config();
  if (o.text.empty() && o.context == 0) o.context = config.context;
  if (!o.text.empty()) o.context = tokens_of(o, config);
  auto strategies =
      o.strategies.empty() ? all_strategies(config) : resolve_strategies(o.strategies, config);
  auto const rows = fill_in(std::move(strategies), config, o);

  std::printf("%s: %d layers, %d KV heads of %d; K and V in %s\n", o.model.name().c_str(),
              config.layers, config.kv_heads, config.head_dim, codec_name(o.codec));
  std::printf("%d x %s tokens", o.batch, count_text(o.context).c_str());
  if (o.budget > 0) std::printf(", budget for K and V %s", bytes_text(o.budget).c_str());
  std::printf("%s\n\n", o.context > config.context ? "; longer than the model was made for" : "");
  print_rows(rows, o);

  auto const* const best = best_fit(rows);
  if (best == nullptr) {
    auto const& least = *std::min_element(rows.begin(), rows.end(),
                                          [](auto& a, auto& b) { return a.total < b.total; });
    throw failure("no strategy fits " + bytes_text(o.budget) + "; " + least.what.given +
                      ", the smallest, needs " + count_text(least.total) + " bytes (" +
                      bytes_text(least.total) + ")",
                  exit_code::does_not_fit);
  }
  if (o.budget == 0 && o.strategies.size() != 1) return;
  std::printf("\n%s%s:\n\n%s", best->what.given.c_str(), o.budget > 0 ? ", the most that fits" : "",
              strata::picture(best->what.plan).c_str());
  if (o.budget > 0 && o.strategies.empty()) print_choice(config, o);
}

}  // namespace lm
