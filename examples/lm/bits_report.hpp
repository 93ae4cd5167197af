// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What depth x bits says of several models: tables, JSON and a heat map.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "bits_grid.hpp"
#include "checkpoint.hpp"
#include "estimate.hpp"
#include "heat_map.hpp"
#include "report.hpp"
#include "table.hpp"
#include "units.hpp"

namespace lm {

/// The grid of one model. Cells and windows lie elsewhere, and the first cell is full in f32.
struct graded {
  std::string file;
  model_config config;
  std::span<grid_cell const> cells;
  std::span<window const> windows;
  json_value training = {};  ///< how it was trained, from its file

  std::string name() const { return std::filesystem::path(file).stem().string(); }
  estimate loss(grid_cell const& c) const { return estimate_of(c.loss, windows); }
  estimate from_depth(grid_cell const& c) const { return estimate_of(c.from_depth, windows); }
  estimate from_full(grid_cell const& c) const { return estimate_of(c.from_full, windows); }
  /// Above the same model, all layers in f32.
  estimate above_full(grid_cell const& c) const {
    return difference_of(c.loss, cells.front().loss, windows);
  }
};

/// The cell of least loss that takes no more bytes, or null.
inline grid_cell const* best_within(graded const& model, double bytes) {
  grid_cell const* best = nullptr;
  for (auto const& cell : model.cells) {
    if (cell.bytes_per_token > bytes) continue;
    if (best == nullptr || model.loss(cell).mean < model.loss(*best).mean) best = &cell;
  }
  return best;
}

/// All cells of all models; then, for each cell of a further model, what the first model makes of
/// as many bytes.
inline std::string grid_text(std::vector<graded> const& models) {
  text_table table({"model", "strategy", "codec", "K/V per token", "loss", "above full f32",
                    "KL from f32", "KL from full f32"},
                   3);
  for (auto const& m : models)
    for (auto const& c : m.cells)
      table.add({m.name(), c.depth->given, codec_name(c.codec), bytes_text(c.bytes_per_token),
                 estimate_text(m.loss(c)), difference_text(m.above_full(c)),
                 text("%.3g", m.from_depth(c).mean), text("%.3g", m.from_full(c).mean)});
  auto out = table.text();
  if (models.size() < 2) return out;
  text_table equal({"model", "codec", "K/V per token", "loss", "best of " + models.front().name(),
                    "its K/V", "its loss less that"},
                   2);
  for (auto const& m : models) {
    if (&m == &models.front()) continue;
    for (auto const& c : m.cells)
      if (auto const* const best = best_within(models.front(), c.bytes_per_token))
        equal.add({m.name(), codec_name(c.codec), bytes_text(c.bytes_per_token),
                   text("%.4f", m.loss(c).mean), best->depth->given + " " + codec_name(best->codec),
                   bytes_text(best->bytes_per_token),
                   difference_text(difference_of(best->loss, c.loss, m.windows))});
  }
  return out + "\nAgainst equal bytes by other means:\n\n" + equal.text();
}

inline json_value cell_json(graded const& m, grid_cell const& c) {
  return {{"strategy", c.depth->given},
          {"leaders", c.depth->leaders},
          {"codec", codec_name(c.codec)},
          {"kv_bytes_per_token", c.bytes_per_token},
          {"loss", to_json(m.loss(c))},
          {"above_full_f32", to_json(m.above_full(c))},
          {"kl_from_f32", to_json(m.from_depth(c))},
          {"kl_from_full_f32", to_json(m.from_full(c))}};
}

/// "models": all cells of each. "at_equal_bytes": as in the table.
inline json_value grid_json(std::vector<graded> const& models) {
  json_value out = {{"tokens", tokens_scored(models.front().windows)},
                    {"windows", models.front().windows.size()},
                    {"models", json_value::array()},
                    {"at_equal_bytes", json_value::array()}};
  for (auto const& m : models) {
    json_value one = {{"name", m.name()},
                      {"model", to_json(m.config)},
                      {"training", m.training},
                      {"cells", json_value::array()}};
    for (auto const& c : m.cells) {
      one["cells"].push_back(cell_json(m, c));
      auto const* const best = best_within(models.front(), c.bytes_per_token);
      if (&m == &models.front() || best == nullptr) continue;
      out["at_equal_bytes"].push_back(
          {{"model", m.name()},
           {"codec", codec_name(c.codec)},
           {"kv_bytes_per_token", c.bytes_per_token},
           {"best_of", models.front().name()},
           {"strategy", best->depth->given},
           {"its_codec", codec_name(best->codec)},
           {"its_kv_bytes_per_token", best->bytes_per_token},
           {"its_loss_less_that", to_json(difference_of(best->loss, c.loss, m.windows))}});
    }
    out["models"].push_back(std::move(one));
  }
  return out;
}

/// Rows are strategies, columns codecs; the colour is the loss above full f32.
inline heat_map map_of(graded const& m) {
  heat_map map{
      "Depth x bits: " + m.name(),
      "layers",
      "elements of K and V (K/V)",
      {},
      {},
      {},
      "Colour: loss above all layers in f32, nats per byte. In a cell: loss, divergence from "
      "full f32 (nats), K/V per token."};
  for (auto const& c : m.cells) {
    auto const row = short_name(c.depth->given);
    if (map.rows.empty() || map.rows.back() != row) map.rows.push_back(row);
    if (map.rows.size() == 1) map.columns.push_back(codec_name(c.codec));
    map.cells.push_back({m.above_full(c).mean,
                         {text("%.4f", m.loss(c).mean), text("%.2g", m.from_full(c).mean),
                          bytes_text(c.bytes_per_token)}});
  }
  return map;
}

}  // namespace lm
