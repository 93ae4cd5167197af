// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// strata-lm bench: its tables, what it predicts, and the figures of the paper beside it.
#include "bench_row.hpp"

#include <string>
#include <vector>

#include "bench_report.hpp"
#include "commanded.hpp"
#include "commands.hpp"
#include "cuda/device_serving.hpp"
#include "published.hpp"
#include "serving_place.hpp"
#include "shapes.hpp"

using namespace commanded;

namespace {

constexpr auto bf16 = lm::cache_codec::bf16;
constexpr double mib = 1 << 20;

lm::bench_row row_of(std::string const& shape, std::string const& strategy,
                     lm::bench_case const& about) {
  auto const config = lm::find_shape(shape);
  lm::bench_row row;
  row.what = lm::resolve_strategy(strategy, config);
  row.cost = lm::cost_of(row.what.plan, config, bf16, 2, about);
  row.missing = "nobody ran it";
  return row;
}

/// Tables as a machine leaves them that can run none of it.
std::vector<lm::bench_table> unrun(std::string const& shape) {
  std::vector<lm::bench_table> tables;
  for (auto const& about : lm::published_cases())
    tables.push_back({about, {row_of(shape, "full", about), row_of(shape, "every:4", about)}});
  return tables;
}

lm::comparison const& figure(std::vector<lm::comparison> const& figures, std::string const& name) {
  for (auto const& f : figures)
    if (f.figure == name) return f;
  FAIL("there is no " << name);
  return figures.front();
}

/// Operations of a prompt of a model without a window, counted token by token.
double counted_flops(lm::model_config const& c, std::vector<std::int32_t> const& leaders,
                     std::int32_t tokens) {
  std::int64_t sum = 0;
  for (std::int32_t l = 0; l < c.layers; ++l)
    for (std::int32_t t = 0; t < tokens; ++t) {
      bool const keeps = std::ranges::find(leaders, l) != leaders.end();
      bool const goes_on = l < leaders.back() || t + 1 == tokens;
      if (keeps) sum += 2 * c.dim * c.kv_dim();
      if (!goes_on) continue;
      sum += 2 * c.dim * c.q_dim() + 3 * c.dim * c.mlp;
      sum += 2 * std::int64_t{c.q_dim()} * (c.window > 0 ? std::min(t + 1, c.window) : t + 1);
    }
  return 2 * static_cast<double>(sum + std::int64_t{c.dim} * c.vocab);
}

}  // namespace

TEST_CASE("bench: a table for each context and batch, full and what fits the layers in each") {
  scratch_folder const folder;
  write_small_model(folder / "model");
  {
    capture output(stdout), news(stderr);
    CHECK(run_program({"bench", "--model", folder / "model", "--context", "20", "40", "--batch",
                       "1", "2", "--prefill", "--repeat", "2", "--threads", "1", "--codec", "f32",
                       "--json", folder / "json"}) == 0);
    auto const text = output.text();
    INFO(text);
    CHECK(contains(text, "\n2 x 40 tokens, then 5 more of each\n"));
    CHECK(contains(text, "4 of 4"));
    CHECK(contains(text, "first token"));
  }
  auto const json = read_json(folder / "json");
  CHECK(json.at("device") == "cpu");
  CHECK(json.at("weights_in") == "f32");
  auto const& tables = json.at("tables");
  REQUIRE(tables.size() == 4);
  for (std::size_t i = 0; i < tables.size(); ++i) {
    auto const context = i < 2 ? 20 : 40, batch = i % 2 == 0 ? 1 : 2;
    CHECK(tables[i].at("context") == context);
    CHECK(tables[i].at("batch") == batch);
    CHECK(tables[i].at("generated") == 5);
    std::vector<std::string> names;
    for (auto const& row : tables[i].at("strategies")) {
      names.push_back(row.at("strategy"));
      auto const kv = static_cast<int>(row.at("leaders").size()) * 2 * 16 * 4 * batch;
      CHECK(row.at("kv_bytes") == kv * (context + 5));
      CHECK(row.at("peak_bytes") > json.at("weight_bytes").get<int>() + kv * (context + 5));
      for (auto const* const key :
           {"ttft_ms", "ttft_ratio_to_full", "predicted_ttft_ratio_to_full", "decode_ms",
            "ttft_fraction_of_roofline", "fraction_of_roofline", "product_flops_per_second",
            "ratio_to_full", "predicted_ratio_to_full"})
        CHECK(row.at(key) > 0.0);
    }
    CHECK(names == std::vector<std::string>{"full", "every:2", "every:4"});  // of four layers
    CHECK(tables[i].at("strategies")[0].at("ttft_ratio_to_full") == 1.0);
  }
}

TEST_CASE("bench: what a prompt and a step cost, against a count by hand") {
  // Qwen3-8B in bf16 after 8192 + 3 + 63 tokens, the middle of 125 steps: 7 568 409 600 weights, all
  // but the embedding; K and V of 8258 tokens. every:4 leaves out K and V projections, and K's norm,
  // of 27 layers, and no byte of what attention reads.
  lm::bench_case const about{8192, 1, 125};
  auto const full = row_of("qwen3-8b", "full", about), four = row_of("qwen3-8b", "every:4", about);
  CHECK(full.cost.step_bytes == 2 * 7568409600.0 + 8258 * 147456.0);
  CHECK(four.cost.step_bytes == full.cost.step_bytes - 2 * 27 * (2 * 4096 * 1024 + 128.0));
  auto const gain = lm::predicted_gains(four, full);
  CHECK(gain.decode == doctest::Approx(1.0285).epsilon(1e-4));
  CHECK(full.cost.prompt_flops == 130021346770944.0);
  CHECK(four.cost.prompt_flops == 115591565279232.0);
  CHECK(gain.ttft == doctest::Approx(1.1248).epsilon(1e-4));
  CHECK(lm::predicted_gains(full, full).decode == 1.0);
}

TEST_CASE("bench: operations of a prompt, token by token, with and without a window") {
  for (std::int32_t const window : {0, 5})
    for (std::int32_t const tokens : {1, 3, 12})
      for (auto const* const given : {"full", "every:2", "every:3", "leaders:0", "leaders:0,1"}) {
        CAPTURE(window);
        CAPTURE(tokens);
        CAPTURE(given);
        auto config = small_shape();
        config.window = window;
        auto const s = lm::resolve_strategy(given, config);
        CHECK(lm::prompt_flops(s.plan, config, tokens) == counted_flops(config, s.leaders, tokens));
      }
}

TEST_CASE("bench: the bytes of K and V that the paper published are those of our caches") {
  auto const figures =
      lm::compare_with_paper("qwen3-8b", lm::find_shape("qwen3-8b"), unrun("qwen3-8b"));
  struct expected {
    char const* name;
    double published, exact;
  };
  // 144 KiB a token, a quarter of it at every:4. The paper rounds.
  expected const lines[] = {{"1 x 8 192, full: K/V of the prompt", 1152, 1152},
                            {"1 x 8 192, full: K/V with 128 tokens more", 1170, 1170},
                            {"1 x 8 192, every:4: K/V of the prompt", 288, 288},
                            {"1 x 8 192, every:4: K/V with 128 tokens more", 293, 292.5},
                            {"16 x 8 192, every:4: K/V of the prompt", 4608, 4608},
                            {"16 x 8 192, every:4: K/V with 63 tokens more", 4643, 4643.4375}};
  for (auto const& line : lines) {
    CAPTURE(line.name);
    auto const& f = figure(figures, line.name);
    CHECK(f.paper == line.published);
    CHECK(f.here == line.exact);
  }
  // The library's own footprint says the same.
  auto const config = lm::find_shape("qwen3-8b");
  auto const per_token = [&](char const* given) {
    auto const plan = lm::resolve_strategy(given, config).plan;
    return static_cast<double>(strata::bytes_per_token<strata::bf16_codec>(plan, config.classes()));
  };
  CHECK(per_token("full") * (8192 + 128) / mib == 1170);
  CHECK(per_token("every:4") * 16 * (8192 + 63) / mib == 4643.4375);
}

TEST_CASE("bench: what nobody measured is shown as missing, what is known is shown") {
  auto const figures =
      lm::compare_with_paper("qwen3-8b", lm::find_shape("qwen3-8b"), unrun("qwen3-8b"));
  auto const& decode = figure(figures, "1 x 8 192, every:4: gain in decoding");
  CHECK(decode.paper == doctest::Approx(41.6 / 34.0));
  CHECK(decode.here == 0);
  CHECK(decode.predicted == doctest::Approx(1.0285).epsilon(1e-4));
  CHECK(figure(figures, "1 x 8 192, every:4: gain in the first token").paper ==
        doctest::Approx(297.0 / 286));
  for (auto const& f : figures)
    if (!contains(f.figure, "K/V")) CHECK(f.here == 0);
  auto const text = lm::comparison_text(figures);
  CHECK(contains(text, "out of memory"));
  auto const table = lm::table_text(unrun("qwen3-8b")[2], true);
  INFO(table);
  CHECK(contains(table, "\n  not run: nobody ran it\n"));
  CHECK(contains(table, "1.14 GiB"));  // 1170 MiB
  CHECK(contains(table, "1.12x"));
  CHECK(contains(table, "1.03x"));
  auto const json = lm::to_json(unrun("qwen3-8b")[2], true).at("strategies")[1];
  CHECK(json.at("refused") == "nobody ran it");
  CHECK(json.at("predicted_ratio_to_full") == doctest::Approx(1.0285).epsilon(1e-4));
  for (auto const* const key : {"peak_bytes", "ttft_ms", "decode_ms", "ratio_to_full"})
    CHECK_FALSE(json.contains(key));
  CHECK(lm::compare_with_paper("demo", lm::find_shape("demo"), unrun("demo")).empty());
}

TEST_CASE("bench: gains are full's time over a row's, and the roofline the slower of two") {
  lm::bench_row full, row;
  full.ttft_ms = 300;
  full.decode_ms = 20;
  row.ttft_ms = 200;
  row.decode_ms = 16;
  auto const gain = lm::measured_gains(row, full);
  CHECK(gain.ttft == 1.5);
  CHECK(gain.decode == 1.25);
  CHECK(lm::measured_gains(row, lm::bench_row{}).decode == 0);  // full did not run
  row.cost = {0, 8e9, 1e12, 4e9};
  CHECK(row.ttft_fraction() == 0);  // nobody knows the rates
  row.read_bytes_per_second = 1e12;
  row.product_flops_per_second = 1e13;
  CHECK(row.decode_fraction() == doctest::Approx(0.5));
  CHECK(row.ttft_fraction() == doctest::Approx(0.5));
  row.product_flops_per_second = 1e15;  // the bytes are slower now
  CHECK(row.ttft_fraction() == doctest::Approx(0.02));
}

TEST_CASE("bench: --paper has the paper's contexts and batches, refused as a budget says") {
  scratch_folder const folder;
  capture output(stdout), errors(stderr);
  CHECK(run_program({"bench", "--shape", "demo", "--paper", "--kv-budget", "1KiB", "--json",
                     folder / "json"}) == 3);
  auto const text = output.text();
  CHECK(contains(text, "\n1 x 32 768 tokens, then 128 more of each\n"));
  CHECK(contains(text, "\n16 x 8 192 tokens, then 63 more of each\n"));
  CHECK_FALSE(contains(text, "The paper"));  // it has no figures of this shape
  auto const json = read_json(folder / "json");
  CHECK(json.at("tables").size() == 7);
  CHECK(json.at("codec") == "bf16");
}

TEST_CASE("place: codecs that a device lacks are refused with those that it has") {
  std::vector<lm::cache_codec> served;
  for (auto const codec : lm::cache_codecs) {
    if (lm::cuda::serves(codec)) {
      served.push_back(codec);
      CHECK_NOTHROW(lm::cuda::require_served(codec));
      continue;
    }
    try {
      lm::cuda::require_served(codec);
      FAIL("taken: " << lm::codec_name(codec));
    } catch (lm::failure const& refusal) {
      CHECK(refusal.code() == lm::exit_code::wrong_use);
      CHECK(contains(refusal.what(), lm::codec_name(codec)));
      CHECK(contains(refusal.what(), "bf16, int8 or fp8"));
    }
  }
  CHECK(served == std::vector{lm::cache_codec::bf16, lm::cache_codec::int8, lm::cache_codec::fp8});
  // Where nobody says, the processor keeps what a command wants there.
  CHECK(lm::choose_codec({}, lm::device_kind::cpu, lm::cache_codec::f16) == lm::cache_codec::f16);
  CHECK(lm::choose_codec(bf16, lm::device_kind::cpu, lm::cache_codec::f16) == bf16);
}

TEST_CASE("place: what it counts and measures on the processor") {
  auto const config = small_shape();
  lm::parameters<float> model(config);
  lm::initialise(model, 1);
  strata::thread_pool pool(2);
  lm::cpu_place place(model, pool);
  auto const plan = lm::resolve_strategy("every:2", config).plan;
  lm::cache_options const cache{lm::cache_codec::f32, 2, 30};
  auto const serving = place.make_server(plan, cache, {});
  auto const before = place.used_memory(*serving);
  CHECK(before == static_cast<std::int64_t>(model.values().size_bytes()) +
                      lm::server_bytes(plan, config, cache));
  CHECK(place.server_bytes(plan, cache, {}) == lm::server_bytes(plan, config, cache));
  auto const id = serving->open(plan);
  REQUIRE(id.ok());
  std::vector<std::int32_t> const tokens(20, 7);
  REQUIRE(serving->run({*id, tokens, strata::logits::all}).ok());
  // At least x, normed x, Q and attention's output of 20 rows, and the logits.
  CHECK(place.used_memory(*serving) - before >= 4 * 20 * (4 * 16 + 256));
  CHECK(place.read_rate() > 0);
  CHECK(place.product_rate(64) > 0);
  CHECK(place.threads() == 2);
  auto const bytes = [&](lm::device_kind device, lm::weight_type type) {
    return lm::weight_bytes(config, device, type);
  };
  CHECK(bytes(lm::device_kind::cuda, lm::weight_type::bf16) * 2 ==
        bytes(lm::device_kind::cpu, lm::weight_type::f32));
}
