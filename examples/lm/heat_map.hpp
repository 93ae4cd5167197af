// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A table of numbers as colours, with a few words in each cell, as an SVG.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

#include "plot.hpp"
#include "units.hpp"

namespace lm {

struct heat_cell {
  double value = 0;                ///< the greatest of a map is darkest
  std::vector<std::string> lines;  ///< what is written on it
};

struct heat_map {
  std::string title, row_title, column_title;
  std::vector<std::string> rows, columns;
  std::vector<heat_cell> cells;  ///< [rows, columns]
  std::string legend;            ///< what colours and lines mean
};

namespace detail {

/// From pale yellow over red to dark violet: lightness falls all the way, so that it reads in grey.
inline std::string heat_colour(double warmth) {
  struct colour_stop {
    double red, green, blue;
  };
  static constexpr colour_stop stops[] = {{255, 247, 214}, {254, 204, 122}, {244, 136, 86},
                                          {203, 71, 92},   {128, 32, 98},   {58, 18, 74}};
  constexpr auto last = static_cast<double>(std::size(stops) - 1);
  auto const at = std::clamp(warmth, 0.0, 1.0) * last;
  auto const low = static_cast<std::size_t>(std::min(at, last - 1));
  auto const part = at - static_cast<double>(low);
  auto const& a = stops[low];
  auto const& b = stops[low + 1];
  return text("#%02x%02x%02x", static_cast<unsigned>(a.red + part * (b.red - a.red)),
              static_cast<unsigned>(a.green + part * (b.green - a.green)),
              static_cast<unsigned>(a.blue + part * (b.blue - a.blue)));
}

inline std::string svg_words(double x, double y, char const* attributes, std::string const& words) {
  return text("<text x=\"%.1f\" y=\"%.1f\" %s>", x, y, attributes) + escaped(words) + "</text>\n";
}

}  // namespace detail

/// Cells of 96 x 64 pixels, with room around them for the titles.
inline std::string svg_text(heat_map const& map) {
  using detail::svg_words;
  constexpr double left = 110, top = 90, wide = 96, high = 64;
  auto const columns = static_cast<double>(map.columns.size());
  auto const bottom = top + high * static_cast<double>(map.rows.size());
  auto const width = left + wide * columns + 20;
  double least = 0, most = 0;
  for (std::size_t i = 0; i < map.cells.size(); ++i) {
    least = i == 0 ? map.cells[i].value : std::min(least, map.cells[i].value);
    most = i == 0 ? map.cells[i].value : std::max(most, map.cells[i].value);
  }
  std::string out = text(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" "
      "font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"100%%\" height=\"100%%\" "
      "fill=\"white\"/>\n",
      width, bottom + 50);
  out += svg_words(width / 2, 28, "text-anchor=\"middle\" font-size=\"15\"", map.title);
  out += svg_words(left + wide * columns / 2, 54, "text-anchor=\"middle\"", map.column_title);
  out += svg_words(12, top - 10, "fill=\"#555\"", map.row_title);
  for (std::size_t c = 0; c < map.columns.size(); ++c)
    out += svg_words(left + wide * (static_cast<double>(c) + 0.5), top - 10,
                     "text-anchor=\"middle\"", map.columns[c]);
  for (std::size_t r = 0; r < map.rows.size(); ++r) {
    auto const y = top + high * static_cast<double>(r);
    out += svg_words(12, y + high / 2 + 5, "", map.rows[r]);
    for (std::size_t c = 0; c < map.columns.size(); ++c) {
      auto const& cell = map.cells[r * map.columns.size() + c];
      auto const warmth = most > least ? (cell.value - least) / (most - least) : 0;
      auto const x = left + wide * static_cast<double>(c);
      out += text("<rect x=\"%.0f\" y=\"%.0f\" width=\"%.0f\" height=\"%.0f\" fill=\"%s\"/>\n", x,
                  y, wide - 2, high - 2, detail::heat_colour(warmth).c_str());
      auto line_y = y + high / 2 + 4 - 8 * (static_cast<double>(cell.lines.size()) - 1);
      for (auto const& line : cell.lines) {
        out += svg_words(x + wide / 2 - 1, line_y,
                         warmth > 0.5 ? "text-anchor=\"middle\" font-size=\"12\" fill=\"white\""
                                      : "text-anchor=\"middle\" font-size=\"12\"",
                         line);
        line_y += 16;
      }
    }
  }
  out += svg_words(12, bottom + 26, "fill=\"#555\" font-size=\"12\"", map.legend);
  return out + "</svg>\n";
}

}  // namespace lm
