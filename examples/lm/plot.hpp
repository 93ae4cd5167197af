// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A plot of a few lines of points over a logarithmic x axis: by gnuplot where it is installed, as
// an SVG of our own where it is not, and as text for the terminal.
#pragma once

#include <spawn.h>
#include <sys/wait.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "report.hpp"
#include "table.hpp"
#include "units.hpp"

extern char** environ;

namespace lm {

struct plot_point {
  double x = 0;  ///< above 0
  double y = 0;
};

struct plot_line {
  std::string name;
  std::vector<plot_point> points;  ///< x ascending
};

/// Puts the points in order; of those at one x the first stays.
inline void tidy(plot_line& line) {
  std::ranges::stable_sort(line.points, {}, &plot_point::x);
  // std::ranges::unique of g++ 12's library does not compile with clang 14.
  auto const twins =
      std::unique(line.points.begin(), line.points.end(),
                  [](plot_point const& a, plot_point const& b) { return a.x == b.x; });
  line.points.erase(twins, line.points.end());
}

struct plot {
  std::string title, x_label, y_label;
  std::vector<plot_line> lines;
};

namespace detail {

/// What the axes cover, with a little air: x by its binary logarithm.
struct plot_frame {
  double x_low = 0, x_high = 1, y_low = 0, y_high = 1;

  explicit plot_frame(plot const& chart) {
    bool any = false;
    for (auto const& line : chart.lines)
      for (auto const& [x, y] : line.points) {
        auto const log_x = std::log2(x);
        x_low = any ? std::min(x_low, log_x) : log_x;
        x_high = any ? std::max(x_high, log_x) : log_x;
        y_low = any ? std::min(y_low, y) : y;
        y_high = any ? std::max(y_high, y) : y;
        any = true;
      }
    x_low -= 0.25;
    x_high += 0.25;
    auto const air = std::max(0.05 * (y_high - y_low), 1e-3);
    y_low -= air;
    y_high += air;
  }

  double across(double x) const { return (std::log2(x) - x_low) / (x_high - x_low); }
  double up(double y) const { return (y - y_low) / (y_high - y_low); }
};

inline std::string gnuplot_quoted(std::string const& text) {
  std::string out = "'";
  for (char const c : text) out += c == '\'' ? "''" : std::string(1, c);
  return out + "'";
}

inline std::string escaped(std::string const& text) {
  std::string out;
  for (char const c : text) out += c == '<' ? "&lt;" : c == '&' ? "&amp;" : std::string(1, c);
  return out;
}

inline constexpr char const* plot_colours[] = {"#1b6ca8", "#d1495b", "#66a182",
                                               "#edae49", "#6a4c93", "#8d99ae"};

inline char const* colour(std::size_t line) { return plot_colours[line % 6]; }

}  // namespace detail

/// A gnuplot script that draws the plot into `picture`, an .svg or a .png.
inline std::string gnuplot_script(plot const& chart, std::string const& picture) {
  using detail::gnuplot_quoted;
  bool const svg = picture.ends_with(".svg");
  std::string out = "# gnuplot draws this plot from this file alone.\n";
  for (std::size_t i = 0; i < chart.lines.size(); ++i) {
    out += "$line" + std::to_string(i) + " << EOD\n";
    for (auto const& [x, y] : chart.lines[i].points) out += text("%.10g %.10g\n", x, y);
    out += "EOD\n";
  }
  out += svg ? "set terminal svg size 900,600 background rgb 'white'\n"
             : "set terminal pngcairo size 900,600\n";
  out += "set output " + gnuplot_quoted(picture) + "\nset title " + gnuplot_quoted(chart.title) +
         " noenhanced\n";
  out += "set xlabel " + gnuplot_quoted(chart.x_label) + "\nset ylabel " +
         gnuplot_quoted(chart.y_label) + "\n";
  out += "set logscale x 2\nset grid\nset key outside right top noenhanced\n";
  detail::plot_frame const frame(chart);
  out += text("set xrange [%.10g:%.10g]\nset yrange [%.10g:%.10g]\n", std::exp2(frame.x_low),
              std::exp2(frame.x_high), frame.y_low, frame.y_high);
  out += "plot ";
  for (std::size_t i = 0; i < chart.lines.size(); ++i)
    out += (i > 0 ? ", \\\n     " : "") + ("$line" + std::to_string(i)) +
           " with linespoints lw 2 pt 7 lc rgb '" + detail::colour(i) + "' title " +
           gnuplot_quoted(chart.lines[i].name);
  return out + "\n";
}

/// The plot as an SVG, without anybody's help.
inline std::string svg_text(plot const& chart) {
  constexpr double width = 900, height = 600, left = 80, right = 690, top = 50, bottom = 530;
  detail::plot_frame const frame(chart);
  auto const x_of = [&](double x) { return left + frame.across(x) * (right - left); };
  auto const y_of = [&](double y) { return bottom - frame.up(y) * (bottom - top); };
  auto const label = [](double x, double y, char const* anchor, std::string const& words) {
    return text("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", x, y, anchor) +
           detail::escaped(words) + "</text>\n";
  };
  std::string out = text(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" "
      "font-family=\"sans-serif\" font-size=\"14\">\n<rect width=\"100%%\" height=\"100%%\" "
      "fill=\"white\"/>\n<rect x=\"%.0f\" y=\"%.0f\" width=\"%.0f\" height=\"%.0f\" fill=\"none\" "
      "stroke=\"black\"/>\n",
      width, height, left, top, right - left, bottom - top);
  out += label((left + right) / 2, top - 20, "middle", chart.title);
  out += label((left + right) / 2, bottom + 50, "middle", chart.x_label);
  out += text("<g transform=\"rotate(-90 20 %.0f)\">", (top + bottom) / 2) +
         label(20, (top + bottom) / 2, "middle", chart.y_label) + "</g>\n";
  for (auto power = std::ceil(frame.x_low); power <= frame.x_high; ++power)
    out += label(x_of(std::exp2(power)), bottom + 22, "middle", text("%.0f", std::exp2(power)));
  for (int i = 0; i <= 5; ++i) {
    auto const y = frame.y_low + (frame.y_high - frame.y_low) * i / 5;
    out += label(left - 8, y_of(y) + 5, "end", text("%.3f", y));
    out += text("<path d=\"M%.1f %.1fH%.1f\" stroke=\"#ddd\"/>\n", left, y_of(y), right);
  }
  for (std::size_t i = 0; i < chart.lines.size(); ++i) {
    auto const* const colour = detail::colour(i);
    std::string path;
    for (auto const& [x, y] : chart.lines[i].points) {
      path += text("%s%.1f %.1f", path.empty() ? "M" : "L", x_of(x), y_of(y));
      out +=
          text("<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\" fill=\"%s\"/>\n", x_of(x), y_of(y), colour);
    }
    out += "<path fill=\"none\" stroke-width=\"2\" stroke=\"" + std::string(colour) + "\" d=\"" +
           path + "\"/>\n";
    auto const y = top + 12 + 24 * static_cast<double>(i);
    out += text("<path d=\"M%.0f %.0fh30\" stroke-width=\"3\" stroke=\"%s\"/>\n", right + 20, y - 5,
                colour);
    out += label(right + 58, y, "start", chart.lines[i].name);
  }
  return out + "</svg>\n";
}

/// The plot as text, `columns` wide and `rows` high without axes and legend.
inline std::string terminal_plot(plot const& chart, std::size_t columns = 64,
                                 std::size_t rows = 16) {
  static constexpr char marks[] = "PRFHQ123456789";
  detail::plot_frame const frame(chart);
  std::vector<std::string> canvas(rows, std::string(columns, ' '));
  auto const cell = [&](double across, double up) -> char& {
    auto const at = [](double fraction, std::size_t count) {
      return static_cast<std::size_t>(
          std::clamp(fraction, 0.0, 1.0) * static_cast<double>(count - 1) + 0.5);
    };
    return canvas[rows - 1 - at(up, rows)][at(across, columns)];
  };
  for (auto const& line : chart.lines)
    for (std::size_t j = 1; j < line.points.size(); ++j)
      for (int s = 0; s <= 100; ++s) {
        auto const mix = [s](double a, double b) { return a + (b - a) * s / 100; };
        auto const &a = line.points[j - 1], &b = line.points[j];
        cell(mix(frame.across(a.x), frame.across(b.x)), mix(frame.up(a.y), frame.up(b.y))) = '.';
      }
  for (std::size_t i = chart.lines.size(); i-- > 0;)  // the first line lies on top
    for (auto const& [x, y] : chart.lines[i].points)
      cell(frame.across(x), frame.up(y)) = marks[i % (sizeof(marks) - 1)];

  std::string out = "  " + chart.title + "\n\n";
  for (std::size_t r = 0; r < rows; ++r) {
    auto const y = frame.y_high - (frame.y_high - frame.y_low) * static_cast<double>(r) /
                                      static_cast<double>(rows - 1);
    auto const axis = r % 5 == 0 || r == rows - 1 ? text("%8.3f", y) : std::string(8, ' ');
    out += axis + " |" + canvas[r] + "\n";
  }
  out += std::string(9, ' ') + '+' + std::string(columns, '-') + '\n';
  std::string ticks(columns + 18, ' ');
  for (auto power = std::ceil(frame.x_low); power <= frame.x_high; ++power) {
    auto const digits = text("%.0f", std::exp2(power));
    auto const at = static_cast<std::size_t>(10 + frame.across(std::exp2(power)) *
                                                      static_cast<double>(columns - 1));
    ticks.replace(at - digits.size() / 2, digits.size(), digits);
  }
  out += ticks.substr(0, ticks.find_last_not_of(' ') + 1) + "\n";
  out += std::string(10, ' ') + chart.x_label + "; up: " + chart.y_label + "\n  ";
  for (std::size_t i = 0; i < chart.lines.size(); ++i)
    out += std::string("  ") + marks[i % (sizeof(marks) - 1)] + " " + chart.lines[i].name;
  return out + "\n";
}

/// Runs a program with one argument; false if there is none of that name or if it fails.
inline bool run_program(char const* program, std::string argument) {
  char* const arguments[] = {const_cast<char*>(program), argument.data(), nullptr};
  pid_t child = 0;
  if (posix_spawnp(&child, program, nullptr, nullptr, arguments, environ) != 0) return false;
  int outcome = 0;
  while (waitpid(child, &outcome, 0) < 0)
    if (errno != EINTR) return false;
  return WIFEXITED(outcome) && WEXITSTATUS(outcome) == 0;
}

/// Writes <stem>.svg, and with gnuplot <stem>.png and the script <stem>.gp, too. Returns the
/// pictures.
inline std::vector<std::string> write_plot(plot const& chart, std::string const& stem) {
  std::vector<std::string> pictures;
  for (char const* const kind : {".svg", ".png"}) {
    write_text(stem + ".gp", gnuplot_script(chart, stem + kind));
    if (run_program("gnuplot", stem + ".gp")) pictures.push_back(stem + kind);
  }
  bool const drawn = !pictures.empty() && pictures.front().ends_with(".svg");
  if (!drawn) {
    write_text(stem + ".svg", svg_text(chart));
    pictures.insert(pictures.begin(), stem + ".svg");
  }
  return pictures;
}

}  // namespace lm
