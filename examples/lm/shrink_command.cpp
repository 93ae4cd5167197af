// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// strata-lm shrink: what the second half of texts loses when leaders go in the middle of it.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include <strata/attention/cpu/attention.hpp>
#include <strata/cache/paged_storage.hpp>

#include "checkpoint.hpp"
#include "commands.hpp"
#include "depth_change.hpp"
#include "estimate.hpp"
#include "formats/open_model.hpp"
#include "progress.hpp"
#include "report.hpp"
#include "scored_text.hpp"
#include "table.hpp"

namespace lm {
namespace {

using storage_type = strata::paged_storage<strata::f32_codec>;
using change_type = depth_change<float, storage_type, strata::cpu::attention>;

constexpr std::int32_t sequences = 9;  // one for each of eight windows, and one more
constexpr std::int32_t num_parts = 4;  // of a second half, by how long ago the leaders went

/// Sums over the scored tokens of each window, of all of them and part by part.
struct half_losses {
  std::vector<double> all;                      // [windows]
  std::vector<double> of_part[num_parts] = {};  // [windows]
};

storage_type room(model_config const& config, shrink_options const& o) {
  strata::paged_options room;
  room.max_sequences = sequences;
  room.max_tokens = o.context;
  room.block_size = o.block_size;
  room.k_blocks = room.v_blocks = sequences * config.layers * (o.context / o.block_size + 1);
  auto made = storage_type::make(config.classes(), room);
  require(made.state(), "the K/V cache");
  return *std::move(made);
}

/// A model, and what was measured of it so far: the losses of each strategy from the start on are
/// asked for more than once.
class changing_model {
 public:
  changing_model(std::string file, shrink_options const& o, strata::thread_pool& pool)
      : changing_model(file, load_model(file), o, pool) {}

  model_config const& config() const { return weights_.config(); }
  std::string name() const { return std::filesystem::path(file_).stem().string(); }

  json_value about() const {
    return {{"name", name()}, {"model", to_json(config())}, {"training", training_}};
  }

  half_losses losses(std::span<window const> windows, strategy const& before, strategy const& after,
                     depth_way way) {
    half_losses out;
    out.all.resize(windows.size());
    for (auto& part : out.of_part) part.resize(windows.size());
    auto const vocab = std::int64_t{config().vocab};
    auto const outcome =
        reader_.visit(windows, before.plan, after.plan, way,
                      [&](std::size_t w, std::int32_t t, float const* row, std::int32_t next) {
                        auto const loss = token_loss(row, vocab, next);
                        out.all[w] += loss;
                        out.of_part[t * num_parts / windows[w].scored()][w] += loss;
                      });
    require(outcome, "reading under " + before.given + ", then " + after.given);
    return out;
  }

 private:
  changing_model(std::string const& file, loaded_model read, shrink_options const& o,
                 strata::thread_pool& pool)
      : file_(file),
        weights_(std::move(read.weights)),
        training_(std::move(read.training)),
        reader_(weights_, room(weights_.config(), o), pool) {}

  std::string file_;
  parameters<float> weights_;
  json_value training_;
  change_type reader_;
};

/// One line: from a strategy to a smaller one.
struct change_row {
  std::string model, before, after;
  estimate stay, start;         ///< all the text under one of the two
  estimate shrink, subset;      ///< the middle changes
  estimate price, reuse_price;  ///< of shrink and subset, above having begun with the smaller set
  estimate by_part[num_parts];  ///< of price
};

bool keeps_less(strategy const& small_one, strategy const& large_one) {
  return small_one.leaders.size() < large_one.leaders.size() &&
         std::ranges::includes(large_one.leaders, small_one.leaders);
}

/// Windows of a quarter of the second half each, to weigh its sums by.
std::vector<window> quarters(std::vector<window> windows) {
  for (auto& w : windows) w.first_scored = w.inputs - w.scored() / num_parts;
  return windows;
}

change_row compare(changing_model& model, std::vector<window> const& windows,
                   strategy const& before, strategy const& after, half_losses const& stay,
                   half_losses const& start) {
  auto const shrunk = model.losses(windows, before, after, depth_way::shrink);
  auto const reused = model.losses(windows, before, after, depth_way::subset);
  change_row row{model.name(), before.given, after.given, {}, {}, {}, {}, {}, {}, {}};
  row.stay = estimate_of(stay.all, windows);
  row.start = estimate_of(start.all, windows);
  row.shrink = estimate_of(shrunk.all, windows);
  row.subset = estimate_of(reused.all, windows);
  row.price = difference_of(shrunk.all, start.all, windows);
  row.reuse_price = difference_of(reused.all, start.all, windows);
  auto const parts = quarters(windows);
  for (std::int32_t p = 0; p < num_parts; ++p)
    row.by_part[p] = difference_of(shrunk.of_part[p], start.of_part[p], parts);
  return row;
}

std::string rows_text(std::vector<change_row> const& rows) {
  text_table table({"model", "before", "after", "stays", "begun smaller", "shrunk", "subset reused",
                    "shrunk - begun", "by quarters of the second half"},
                   3);
  for (auto const& r : rows) {
    std::string parts;
    for (auto const& p : r.by_part) parts += text(parts.empty() ? "%+.3f" : " %+.3f", p.mean);
    table.add({r.model, r.before, r.after, text("%.4f", r.stay.mean), text("%.4f", r.start.mean),
               text("%.4f", r.shrink.mean), text("%.4f", r.subset.mean), difference_text(r.price),
               parts});
  }
  return table.text();
}

json_value rows_json(std::vector<change_row> const& rows) {
  auto out = json_value::array();
  for (auto const& r : rows) {
    json_value one = {{"model", r.model},
                      {"before", r.before},
                      {"after", r.after},
                      {"stays", to_json(r.stay)},
                      {"begun_smaller", to_json(r.start)},
                      {"shrunk", to_json(r.shrink)},
                      {"subset_reused", to_json(r.subset)},
                      {"shrunk_less_begun", to_json(r.price)},
                      {"reused_less_begun", to_json(r.reuse_price)},
                      {"shrunk_less_begun_by_part", json_value::array()}};
    for (auto const& p : r.by_part) one["shrunk_less_begun_by_part"].push_back(to_json(p));
    out.push_back(std::move(one));
  }
  return out;
}

/// All pairs of a strategy and one that keeps a part of its leaders.
void add_rows(std::vector<change_row>& rows, changing_model& model, shrink_options const& o,
              std::vector<window> const& windows, live_text& news) {
  auto const strategies = resolve_strategies(o.strategies, model.config());
  std::vector<half_losses> plain;
  for (auto const& s : strategies)
    if (!interrupted()) plain.push_back(model.losses(windows, s, s, depth_way::stay));
  for (std::size_t i = 0; i < plain.size(); ++i)
    for (std::size_t j = 0; j < plain.size(); ++j) {
      if (!keeps_less(strategies[j], strategies[i])) continue;
      news.show(text("%s: %s, then %s\n", model.name().c_str(), strategies[i].given.c_str(),
                     strategies[j].given.c_str()));
      auto row = compare(model, windows, strategies[i], strategies[j], plain[i], plain[j]);
      if (interrupted()) return;  // of a part of the text it compares with nothing
      rows.push_back(std::move(row));
    }
}

}  // namespace

void run_shrink(shrink_options o) {
  require_writable("--json", o.json_file);
  auto const config = load_model_config(o.models.front());
  check_windows(o, config);
  scored_text const scored(o, o.models.front(), config);
  auto const windows = halved(scored.windows(), o.context);
  if (windows.empty())
    throw failure(scored.name() + ": no window of " + std::to_string(o.context) + " tokens");
  strata::thread_pool pool(o.threads);
  live_text news(stderr);
  std::vector<change_row> rows;
  auto models = json_value::array();
  for (auto const& file : o.models) {
    if (interrupted()) break;
    changing_model model(file, o, pool);
    models.push_back(model.about());
    add_rows(rows, model, o, windows, news);
  }
  news.clear();
  std::printf("%s tokens of %s: the second halves of %zu windows of %d\n\n%s",
              count_text(tokens_scored(windows)).c_str(), scored.name().c_str(), windows.size(),
              o.context, rows_text(rows).c_str());
  if (o.json_file.empty()) return;
  json_value json = {{"tokens", tokens_scored(windows)},
                     {"windows", windows.size()},
                     {"text", {{"name", scored.name()}, {"crc32c", scored.checksum()}}},
                     {"context", o.context},
                     {"block_size", o.block_size},
                     {"hold_out", o.hold_out},
                     {"models", models},
                     {"changes", rows_json(rows)}};
  write_json(o.json_file, json);
}

}  // namespace lm
