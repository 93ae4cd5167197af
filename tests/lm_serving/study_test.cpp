// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What several seeds say together, and plots.
#include "study.hpp"

#include <doctest/doctest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "plot.hpp"

namespace {

lm::json_value model(char const* name, std::vector<std::pair<double, double>> const& lines) {
  lm::json_value m = {{"name", name}, {"strategies", lm::json_value::array()}};
  for (auto const& [bytes, loss] : lines)
    m["strategies"].push_back({{"strategy", m["strategies"].empty() ? "full" : "every:2"},
                               {"loss", loss},
                               {"kv_bytes_per_token", bytes}});
  return m;
}

lm::json_value run(int seed, double shift) {
  return {{"seed", seed},
          {"steps", 7},
          {"models",
           {model("plain", {{8, 1.0 + 10 * shift}, {4, 2.0 + 10 * shift}}),
            model("rcla", {{8, 1.1 + 11 * shift}, {4, 1.2 + 11 * shift}}),
            model("plain-half", {{4, 1.5 + 10 * shift}, {2, 3.0}})}}};
}

std::size_t occurrences(std::string const& text, std::string const& what) {
  std::size_t times = 0;
  for (auto at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++times;
  return times;
}

lm::plot two_lines() {
  lm::plot chart{"title <1 & 2>", "bytes", "loss", {}};
  chart.lines.push_back({"one", {{512, 2.0}, {1024, 1.5}, {4096, 1.0}}});
  chart.lines.push_back({"two", {{512, 1.2}, {4096, 1.1}}});
  return chart;
}

}  // namespace

TEST_CASE("study: differences are taken within a seed before they are averaged") {
  lm::json_value study = {{"runs", {run(1, 0), run(2, 1), run(3, 2)}}};
  lm::summarise(study);
  CHECK(study.at("losses").size() == 6);
  auto const& plain = study.at("losses")[0];
  CHECK(plain.at("mean") == doctest::Approx(11.0));
  CHECK(plain.at("deviation") == doctest::Approx(10.0));
  auto const& against = study.at("against_plain");
  REQUIRE(against.size() == 4);
  // rcla at full: .1, 1.1, 2.1 above plain, although the losses themselves spread tenfold.
  CHECK(against[0].at("model") == "rcla");
  CHECK(against[0].at("strategy") == "full");
  CHECK(against[0].at("mean") == doctest::Approx(1.1));
  CHECK(against[0].at("deviation") == doctest::Approx(1.0));
  CHECK(against[0].at("smallest") == doctest::Approx(0.1));
  CHECK(against[0].at("largest") == doctest::Approx(2.1));
  // At 4 bytes: plain and rcla at every:2 against the shallow model that keeps everything.
  auto const& equal = study.at("at_equal_bytes");
  REQUIRE(equal.size() == 2);
  CHECK(equal[0].at("model") == "plain");
  CHECK(equal[0].at("than") == "plain-half");
  CHECK(equal[0].at("mean") == doctest::Approx(0.5));
  CHECK(equal[1].at("model") == "rcla");
  CHECK(equal[1].at("mean") == doctest::Approx(0.7));
}

TEST_CASE("study: its table and its plot show means, and the table their spread") {
  lm::json_value study = {{"runs", {run(1, 0), run(2, 1), run(3, 2)}}};
  lm::summarise(study);
  auto const words = lm::study_text(study);
  CHECK(words.find("11.0000 +- 10.0000") != std::string::npos);  // plain at full
  CHECK(words.find("+1.1000 +- 1.0000") != std::string::npos);   // rcla against it
  CHECK(words.find("+0.7000 +- 1.0000") != std::string::npos);   // and against plain-half
  auto const chart = lm::study_plot(study);
  REQUIRE(chart.lines.size() == 3);
  CHECK(chart.lines[1].name == "rcla");
  REQUIRE(chart.lines[1].points.size() == 2);
  CHECK(chart.lines[1].points[0].x == 4);  // ascending
  CHECK(chart.lines[1].points[0].y == doctest::Approx(12.2));
}

TEST_CASE("plot: every point is in the SVG, and marks are words") {
  auto const svg = lm::svg_text(two_lines());
  CHECK(occurrences(svg, "<circle") == 5);
  CHECK(svg.find("title &lt;1 &amp; 2>") != std::string::npos);
  CHECK(svg.find(">1024</text>") != std::string::npos);
  CHECK(svg.ends_with("</svg>\n"));
}

TEST_CASE("plot: on a terminal, points lie where their numbers are") {
  auto const text = lm::terminal_plot(two_lines(), 40, 11);
  std::vector<std::string> lines;
  for (std::size_t at = 0; at < text.size(); at = text.find('\n', at) + 1)
    lines.push_back(text.substr(at, text.find('\n', at) - at));
  // Title, blank, 11 rows, axis, ticks, labels, legend.
  REQUIRE(lines.size() == 17);
  auto const first = lines[2].find('P');  // the highest loss, at the left
  CHECK(first != std::string::npos);
  CHECK(first < 16);
  auto const last = lines[2 + 10].find('P');  // the lowest, at the right
  CHECK(last != std::string::npos);
  CHECK(last > 44);
  CHECK(lines[14].find("512") < lines[14].find("4096"));
  CHECK(lines.back() == "    P one  R two");
}

TEST_CASE("plot: an SVG is left behind without gnuplot, too") {
  auto const folder = std::filesystem::temp_directory_path() / "strata_lm_plot_test";
  std::filesystem::create_directories(folder);
  std::string const path = std::getenv("PATH");
  setenv("PATH", "/nowhere", 1);
  auto const pictures = lm::write_plot(two_lines(), (folder / "plot").string());
  setenv("PATH", path.c_str(), 1);
  REQUIRE(pictures.size() == 1);
  CHECK(pictures[0].ends_with("plot.svg"));
  CHECK(std::filesystem::file_size(pictures[0]) > 500);
  std::filesystem::remove_all(folder);
}
