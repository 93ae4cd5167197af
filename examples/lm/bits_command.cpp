// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// strata-lm bits: loss and divergence of a cache of fewer layers and fewer bits, beside models that
// keep as few bytes by other means.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bits_report.hpp"
#include "commands.hpp"
#include "formats/open_model.hpp"
#include "progress.hpp"
#include "report.hpp"
#include "scored_text.hpp"
#include "serving_place.hpp"

namespace lm {
namespace {

/// f32 first, which others are compared with; each once.
std::vector<cache_codec> codecs_of(bits_options const& o) {
  std::vector<cache_codec> codecs = {cache_codec::f32};
  auto const add = [&](cache_codec codec) {
    if (std::ranges::find(codecs, codec) == codecs.end()) codecs.push_back(codec);
  };
  if (o.codecs.empty()) std::ranges::for_each(cache_codecs, add);
  std::ranges::for_each(o.codecs, add);
  return codecs;
}

/// full first; of strategies that are one plan the first stays.
std::vector<strategy> depths_of(std::vector<std::string> const& given, model_config const& config) {
  std::vector<strategy> depths = {resolve_strategy("full", config)};
  for (auto& one : resolve_strategies(given, config))
    if (std::ranges::none_of(depths, [&](auto const& d) { return d.plan == one.plan; }))
      depths.push_back(std::move(one));
  return depths;
}

/// A model, and its grid over the windows of a text.
class graded_model {
 public:
  graded_model(std::string const& file, std::vector<std::string> const& strategies,
               bits_options const& o)
      : file_(file),
        place_(open_model(file, {device_kind::cpu, o.threads})),
        depths_(depths_of(strategies, place_->config())),
        grid_(*place_, depths_, codecs_of(o), o.context) {}

  void score(scored_text const& scored, live_text& news) {
    grid_.score(scored.windows(), [&](std::int64_t done, double seconds) {
      auto const rate = static_cast<double>(done) / seconds;
      auto const left = static_cast<double>(scored.tokens() - done) / rate;
      news.show(text("%s: %s of %s tokens in %zu cells, %s left\n", file_.c_str(),
                     count_text(done).c_str(), count_text(scored.tokens()).c_str(),
                     grid_.cells().size(), duration_text(left).c_str()));
    });
  }

  graded report(std::vector<window> const& windows) const {
    return {file_, place_->config(), grid_.cells(),
            std::span(windows).first(grid_.windows_scored()), load_model(file_).training};
  }

 private:
  std::string file_;
  std::unique_ptr<serving_place> place_;
  std::vector<strategy> depths_;
  bits_grid grid_;
};

}  // namespace

void run_bits(bits_options o) {
  require_writable("--json", o.json_file);
  require_writable("--picture", o.picture);
  auto const config = load_model_config(o.model);
  check_windows(o, config);
  scored_text const scored(o, o.model, config);
  live_text news(stderr);
  std::vector<std::unique_ptr<graded_model>> models;
  std::vector<graded> reports;
  std::vector<std::string> const only_full = {"full"};
  auto files = o.beside;
  files.insert(files.begin(), o.model);
  for (auto const& file : files) {
    if (interrupted()) break;
    auto const& strategies = models.empty() ? o.strategies : only_full;
    models.push_back(std::make_unique<graded_model>(file, strategies, o));
    models.back()->score(scored, news);
    reports.push_back(models.back()->report(scored.windows()));
    // Cells compare window by window: a model that was cut short compares with none.
    if (reports.back().windows.size() < reports.front().windows.size()) reports.pop_back();
  }
  news.clear();
  std::printf("%s tokens of %s, windows of %d every %d\n\n%s",
              count_text(tokens_scored(reports.front().windows)).c_str(), scored.name().c_str(),
              o.context, o.stride, grid_text(reports).c_str());
  if (!o.json_file.empty()) {
    auto json = grid_json(reports);
    json["text"] = {{"name", scored.name()}, {"crc32c", scored.checksum()}};
    json["context"] = o.context;
    json["stride"] = o.stride;
    json["hold_out"] = o.hold_out;
    write_json(o.json_file, json);
  }
  if (!o.picture.empty()) write_text(o.picture, svg_text(map_of(reports.front())));
}

}  // namespace lm
