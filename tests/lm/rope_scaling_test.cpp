// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// RoPE scaling: frequencies as transformers computes them, files with and without it, and models
// whose caches must not be taken for each other's.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "config_json.hpp"
#include "layers.hpp"
#include "shapes.hpp"
#include "tiny.hpp"

using lm::rope_scaling;
using lm::rope_scaling_kind;

namespace {

constexpr rope_scaling llama3{rope_scaling_kind::llama3, 8, 1, 4, 8192};
constexpr rope_scaling linear{rope_scaling_kind::linear, 8};

lm::model_config with(rope_scaling const& scaling) {
  auto c = tiny::shape();
  c.rope_scaling = scaling;
  return c;
}

}  // namespace

// transformers 5.24.0, ROPE_INIT_FUNCTIONS["llama3"], in float32.
TEST_CASE("rope scaling: the frequencies of Llama 3.1 and 3.2 are those of transformers") {
  using list = std::vector<std::pair<std::int32_t, double>>;
  auto const check = [](char const* shape, list const& expected) {
    auto const config = lm::find_shape(shape);
    for (auto const& one : expected) {
      CAPTURE(one.first);
      CHECK(config.rope_frequency(one.first) == doctest::Approx(one.second).epsilon(1e-6));
    }
  };
  check("llama-3.1-8b", {{0, 1.0},
                         {1, 0.8146172165870667},
                         {28, 0.0032114461064338684},  // the last that stays
                         {29, 0.0021665706299245358},
                         {33, 0.0003126936499029398},
                         {35, 9.556212171446532e-05},  // the first that is divided
                         {63, 3.068925877869333e-07}});
  check("llama-3.2-1b", {{0, 1.0},
                         {14, 0.0032114461064338684},
                         {15, 0.0012905480107292533},
                         {17, 9.708286233944818e-05},
                         {18, 1.9461638657958247e-05},
                         {31, 9.418306490260875e-08}});
}

TEST_CASE("rope scaling: linear is a table of positions that lie closer together") {
  auto plain = with({}), scaled = with(linear);
  lm::rope_table<double> const far(9, plain), near(65, scaled);
  for (std::int64_t at = 0; at < 9; ++at)
    for (std::int64_t i = 0; i < far.half(); ++i) {
      CHECK(near.cos(8 * at)[i] == doctest::Approx(far.cos(at)[i]).epsilon(1e-12));
      CHECK(near.sin(8 * at)[i] == doctest::Approx(far.sin(at)[i]).epsilon(1e-12));
    }
}

TEST_CASE("rope scaling: keys that are turned by other angles are of other KV classes") {
  auto const changed = [](auto change) {
    auto s = llama3;
    change(s);
    return with(s).kind().kv;
  };
  auto const of_llama3 = with(llama3).kind().kv;
  CHECK(changed([](rope_scaling&) {}) == of_llama3);
  CHECK(changed([](rope_scaling& s) { s.factor = 32; }) != of_llama3);
  CHECK(changed([](rope_scaling& s) { s.low = 2; }) != of_llama3);
  CHECK(changed([](rope_scaling& s) { s.high = 3; }) != of_llama3);
  CHECK(changed([](rope_scaling& s) { s.original_context = 4096; }) != of_llama3);
  CHECK(with(linear).kind().kv != of_llama3);
  CHECK(with(linear).kind().kv != with({}).kind().kv);
  auto other_theta = with(llama3);
  other_theta.rope_theta = 5e5;
  CHECK(other_theta.kind().kv != of_llama3);
}

TEST_CASE("rope scaling: a file keeps it, and one without it is what it was") {
  for (auto const& scaling : {rope_scaling{}, linear, llama3}) {
    auto const json = lm::to_json(with(scaling));
    CHECK(lm::config_from_json(json) == with(scaling));
    CHECK(json.contains("rope_scaling") == (scaling.kind != rope_scaling_kind::none));
  }
}

TEST_CASE("rope scaling: what cannot be is refused in words") {
  auto const refusal = [](auto change) {
    auto s = llama3;
    change(s);
    return with(s).check();
  };
  constexpr auto nan = std::numeric_limits<double>::quiet_NaN();
  CHECK(refusal([](rope_scaling&) {}) == "");
  CHECK(with(linear).check() == "");
  CHECK(refusal([](rope_scaling& s) { s.factor = 0.5; }) ==
        "RoPE scaling: factor is 0.500000; it must be from 1 to a million");
  CHECK(refusal([](rope_scaling& s) { s.factor = nan; }) != "");
  CHECK(refusal([](rope_scaling& s) { s.low = 0; }) ==
        "RoPE scaling: low_freq_factor is 0.000000; it must be above 0");
  CHECK(refusal([](rope_scaling& s) { s.high = 1; }) ==
        "RoPE scaling: high_freq_factor is 1.000000; it must be above low_freq_factor");
  CHECK(refusal([](rope_scaling& s) { s.high = nan; }) != "");
  CHECK(refusal([](rope_scaling& s) { s.original_context = 0; }) ==
        "RoPE scaling: original_max_position_embeddings is 0; it must be from 1 to 16777216");
  CHECK(refusal([](rope_scaling& s) { s.kind = rope_scaling_kind::none; }) ==
        "RoPE scaling: has numbers, but no kind");

  auto json = lm::to_json(with(llama3));
  json["rope_scaling"]["kind"] = "yarn";
  CHECK_THROWS_WITH_AS(lm::config_from_json(json), "rope_scaling: there is no kind 'yarn'",
                       lm::failure);
  json["rope_scaling"] = {{"kind", "linear"}, {"factor", -1}};
  CHECK_THROWS_AS(lm::config_from_json(json), lm::failure);
  json["rope_scaling"].erase("factor");
  CHECK_THROWS_AS(lm::config_from_json(json), nlohmann::json::exception);
}
