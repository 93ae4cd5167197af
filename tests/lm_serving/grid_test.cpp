// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Depth x bits: each cell against its own server, token by token, and sums written out again.
#include <algorithm>
#include <cmath>
#include <random>

#include "served.hpp"

#include "bits_report.hpp"

using served::text_of;

namespace {

/// Softmax as it is defined, of logits that no exponential overflows.
std::vector<long double> probabilities(std::span<float const> logits) {
  std::vector<long double> p;
  long double sum = 0;
  for (auto const x : logits) sum += p.emplace_back(std::exp(static_cast<long double>(x)));
  for (auto& x : p) x /= sum;
  return p;
}

/// Of every scored prediction of a window its distribution, from a server that is fed single tokens.
std::vector<std::vector<long double>> predictions(lm::server<float>& serving,
                                                  strata::route_plan const& plan,
                                                  lm::window const& w) {
  std::vector<std::vector<long double>> out;
  auto const id = served::open(serving, plan);
  for (std::int32_t i = 0; i < w.inputs; ++i) {
    std::int32_t const token = w.text[i];
    auto const row = served::run(serving, id, std::span(&token, 1), strata::logits::last);
    if (i >= w.first_scored) out.push_back(probabilities(row));
  }
  REQUIRE(serving.close(id).ok());
  return out;
}

double divergence_of(std::vector<long double> const& p, std::vector<long double> const& q) {
  long double sum = 0;
  for (std::size_t i = 0; i < p.size(); ++i) sum += p[i] * std::log(p[i] / q[i]);
  return static_cast<double>(sum);
}

}  // namespace

TEST_CASE("divergence: the sum that it is, whatever is added to all logits") {
  std::mt19937 random(1);
  std::normal_distribution<double> normal(0, 2);
  std::vector<double> p(7), q(7);
  for (auto& x : p) x = normal(random);
  for (auto& x : q) x = normal(random);
  double p_sum = 0, q_sum = 0, expected = 0;
  for (auto const x : p) p_sum += std::exp(x);
  for (auto const x : q) q_sum += std::exp(x);
  for (std::size_t i = 0; i < p.size(); ++i)
    expected +=
        std::exp(p[i]) / p_sum * std::log(std::exp(p[i]) / p_sum / (std::exp(q[i]) / q_sum));
  for (double const shift : {0.0, 900.0, -900.0}) {
    auto moved = q;
    for (auto& x : moved) x += shift;
    auto const moved_total = lm::log_total(moved.data(), 7);
    CHECK(moved_total == doctest::Approx(std::log(q_sum) + shift));
    CHECK(lm::divergence(p.data(), lm::log_total(p.data(), 7), moved.data(), moved_total, 7) ==
          doctest::Approx(expected));
  }
  CHECK(expected > 0.1);
  auto const total = lm::log_total(p.data(), 7);
  CHECK(lm::divergence(p.data(), total, p.data(), total, 7) == 0);
}

TEST_CASE("estimate: mean per token and its error over windows, by hand") {
  std::vector<lm::window> const windows = {{nullptr, 5, 3}, {nullptr, 5, 1}, {nullptr, 5, 3}};
  std::vector<double> const sums = {4, 12, 4};  // of 2, 4 and 2 tokens: 2, 3 and 2 per token
  auto const e = lm::estimate_of(sums, windows);
  CHECK(e.mean == doctest::Approx(2.5));
  // Off by -1, +2 and -1: sqrt(6 * 3 / 2) / 8.
  CHECK(e.error == doctest::Approx(3.0 / 8));
  std::vector<double> const others = {3, 10, 3};  // 1/2 less of each token
  auto const d = lm::difference_of(sums, others, windows);
  CHECK(d.mean == doctest::Approx(0.5));
  CHECK(d.error == doctest::Approx(0).epsilon(1e-12));
  CHECK(lm::estimate_of({}, {}).mean == 0);
}

TEST_CASE("grid: every cell is what its own server says, token by token") {
  strata::thread_pool pool(1);
  auto const config = tiny::shape();
  auto const model = served::model<float>(config);
  lm::cpu_place place(model, pool);
  auto const text = text_of(90, config.vocab);
  constexpr std::int32_t context = 16;
  auto const windows = lm::cut_windows(text, context, 5);
  std::vector<lm::strategy> depths;
  for (auto const* const given : {"full", "every:3"})
    depths.push_back(lm::resolve_strategy(given, config));
  std::vector const codecs = {lm::cache_codec::f32, lm::cache_codec::int8_int4,
                              lm::cache_codec::rot_int4_int4};
  lm::bits_grid grid(place, depths, codecs, context);
  grid.score(windows, [](std::int64_t, double) {});
  REQUIRE(grid.windows_scored() == windows.size());
  REQUIRE(grid.cells().size() == 6);

  // [strategies, codecs]
  std::vector<std::unique_ptr<lm::server<float>>> servers;
  for (auto const& depth : depths)
    for (auto const codec : codecs)
      servers.push_back(lm::make_server(model, pool, depth.plan, {codec, 1, context}));
  for (std::size_t w = 0; w < windows.size(); ++w) {
    auto const full = predictions(*servers[0], depths[0].plan, windows[w]);
    for (std::size_t c = 0; c < 6; ++c) {
      CAPTURE(w);
      CAPTURE(c);
      auto const& cell = grid.cells()[c];
      auto const& plan = depths[c / 3].plan;
      CHECK(cell.depth == &depths[c / 3]);
      CHECK(cell.codec == codecs[c % 3]);
      auto const same_depth = predictions(*servers[c / 3 * 3], plan, windows[w]);
      auto const own = predictions(*servers[c], plan, windows[w]);
      double loss = 0, from_depth = 0, from_full = 0;
      for (std::size_t t = 0; t < own.size(); ++t) {
        auto const next =
            windows[w].text[static_cast<std::size_t>(windows[w].first_scored) + t + 1];
        loss -= static_cast<double>(std::log(own[t][next]));
        from_depth += divergence_of(same_depth[t], own[t]);
        from_full += divergence_of(full[t], own[t]);
      }
      // Float sums in another order, of logits of the order of 10.
      CHECK(cell.loss[w] == doctest::Approx(loss).epsilon(1e-4));
      CHECK(std::abs(cell.from_depth[w] - from_depth) < 4e-4);
      CHECK(std::abs(cell.from_full[w] - from_full) < 4e-4);
      if (c % 3 == 0) CHECK(cell.from_depth[w] == 0);
      if (c % 3 > 0) CHECK(from_depth > 4e-3);
      if (c >= 3) CHECK(from_full > 0.1);
    }
  }
  // Bytes: 2 heads of 6 elements. f32 24 and 24; int8 6 + 2, int4 3 + 2.
  double const bytes_of_layer[] = {96, 26, 20};
  for (std::size_t c = 0; c < 6; ++c)
    CHECK(grid.cells()[c].bytes_per_token == bytes_of_layer[c % 3] * (c < 3 ? 5 : 2));
}

TEST_CASE("grid: as many bytes by other means compare with the best cell that takes no more") {
  std::vector<lm::window> const windows = {{nullptr, 2, 0}, {nullptr, 2, 0}};
  auto const config = tiny::shape();
  auto const depth = lm::resolve_strategy("full", config);
  auto const cell = [&](double bytes, double loss) {
    return lm::grid_cell{&depth, lm::cache_codec::f32, bytes, {loss, loss}, {0, 0}, {0, 0}};
  };
  std::vector const cells = {cell(100, 3), cell(50, 4), cell(40, 3.5), cell(10, 9)};
  lm::graded const model{"dir/routed.strata", config, cells, windows};
  CHECK(model.name() == "routed");
  CHECK(lm::best_within(model, 1000) == &cells[0]);
  CHECK(lm::best_within(model, 99) == &cells[2]);
  CHECK(lm::best_within(model, 39) == &cells[3]);
  CHECK(lm::best_within(model, 9) == nullptr);
  std::vector const other = {cell(60, 3)};
  auto const json = lm::grid_json({model, {"plain.strata", config, other, windows}});
  REQUIRE(json.at("at_equal_bytes").size() == 1);
  CHECK(json.at("at_equal_bytes")[0].at("its_kv_bytes_per_token") == 40.0);
  CHECK(json.at("at_equal_bytes")[0].at("its_loss_less_that").at("mean") == doctest::Approx(0.25));
}

TEST_CASE("heat map: every cell is drawn with its words, the greatest darkest") {
  lm::heat_map map{"a < b", "rows", "columns", {"r0", "r1"}, {"c0", "c1", "c2"}, {}, "legend"};
  for (int i = 0; i < 6; ++i)
    map.cells.push_back({i == 4 ? 9.0 : 0.1 * i, {"v" + std::to_string(i), "w"}});
  auto const svg = lm::svg_text(map);
  auto const count = [&](std::string const& part) {
    int found = 0;
    for (auto at = svg.find(part); at != std::string::npos; at = svg.find(part, at + 1)) ++found;
    return found;
  };
  for (int i = 0; i < 6; ++i) CHECK(count(">v" + std::to_string(i) + "<") == 1);
  CHECK(count(">w<") == 6);
  CHECK(count("<rect ") == 7);
  CHECK(count(lm::detail::heat_colour(1)) == 1);
  CHECK(count(lm::detail::heat_colour(0)) == 1);
  CHECK(count("a &lt; b") == 1);
  for (auto const* const word : {"rows", "columns", "r0", "r1", "c0", "c1", "c2", "legend"})
    CHECK(count(std::string(">") + word + "<") == 1);
}
