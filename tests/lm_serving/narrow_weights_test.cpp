// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Serving with weights of bf16: what is computed is what the rounded weights say, to float's own
// error, whatever the threads.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "narrow_weights.hpp"
#include "served.hpp"
#include "serving_place.hpp"

namespace {

lm::model_config odd_shape() {
  auto c = tiny::shape();
  c.dim = 40;  // a vector of pairs, or two, and a rest
  c.head_dim = 16;
  c.vocab = 300;
  c.mlp = 75;
  return c;
}

/// The same weights in numbers that hold each of them exactly.
template <class T>
lm::parameters<T> widened(lm::narrow_weights& narrow) {
  lm::parameters<T> weights(narrow.config());
  for (std::size_t i = 0; i < weights.table().entries.size(); ++i) {
    auto const& entry = weights.table().entries[i];
    auto const to = weights.tensor(entry);
    for (std::size_t j = 0; j < to.size(); ++j)
      to[j] = static_cast<T>(lm::narrow_weights::is_gain(entry)
                                 ? narrow.gain(i)[j]
                                 : strata::to_float(narrow.matrix(i)[j]));
  }
  return weights;
}

/// Numbers of no pattern, in [-1, 1).
std::vector<float> noise(std::size_t count, std::uint32_t seed) {
  std::vector<float> out;
  for (std::uint32_t i = 0; i < count; ++i) {
    auto const word = strata::draw_words({seed}, 0, strata::draw_purpose::weights, i).word[0];
    out.push_back(static_cast<float>(word) * 0x1p-31F - 1);
  }
  return out;
}

/// x w^T + beta y in double, and how much the numbers add up to without their signs.
struct exact_product {
  double value = 0, size = 0;
};
exact_product dot(float const* x, strata::bfloat16 const* w, std::int64_t in, double before) {
  exact_product sum{before, std::abs(before)};
  for (std::int64_t i = 0; i < in; ++i) {
    auto const term = double{x[i]} * double{strata::to_float(w[i])};
    sum.value += term;
    sum.size += std::abs(term);
  }
  return sum;
}

}  // namespace

TEST_CASE("bf16 weights: products of every kind against double") {
  std::vector<std::vector<float>> results;
  for (std::int32_t const threads : {1, 3}) {
    strata::thread_pool pool(threads);
    std::vector<float> scratch(static_cast<std::size_t>(threads * lm::product_scratch(131)));
    lm::weight_product<float> const product{pool, true, scratch.data(), lm::product_scratch(131),
                                            0};
    std::vector<float> all;
    for (std::int64_t const in : {1, 31, 64, 131})
      for (std::int64_t const out : {1, 13, 1030})  // the last is spread from in = 64 on
        for (std::int64_t const rows : {1, 2, 7, 8, 9}) {
          CAPTURE(in);
          CAPTURE(out);
          CAPTURE(rows);
          auto const x = noise(static_cast<std::size_t>(rows * in), 1);
          auto y = noise(static_cast<std::size_t>(rows * out), 2);
          std::vector<strata::bfloat16> w;
          for (auto const value : noise(static_cast<std::size_t>(out * in), 3))
            w.push_back(strata::to_bfloat16(value));
          auto const before = y;
          float const beta = out == 13 ? 1.0F : 0.0F;
          product(x.data(), {nullptr, w.data()}, y.data(), rows, in, out, beta);
          double worst = 0;
          for (std::int64_t r = 0; r < rows; ++r)
            for (std::int64_t o = 0; o < out; ++o) {
              auto const at = static_cast<std::size_t>(r * out + o);
              auto const sum =
                  dot(x.data() + r * in, w.data() + o * in, in, beta == 0 ? 0 : double{before[at]});
              auto const error = std::abs(double{y[at]} - sum.value) / sum.size;
              if (!(error <= worst)) worst = error;
            }
          CHECK(worst <= 0x1p-24 * static_cast<double>(in + 2));
          all.insert(all.end(), y.begin(), y.end());
        }
    results.push_back(std::move(all));
  }
  CHECK(results[0] == results[1]);
}

TEST_CASE("bf16 weights: up to eight rows, no bit depends on the rows beside it") {
  strata::thread_pool pool(1);
  constexpr std::int64_t in = 70, out = 21;
  auto const x = noise(8 * in, 1);
  std::vector<strata::bfloat16> w;
  for (auto const value : noise(out * in, 2)) w.push_back(strata::to_bfloat16(value));
  std::vector<float> scratch(static_cast<std::size_t>(lm::product_scratch(in)));
  auto const run = [&](std::int64_t first, std::int64_t rows) {
    std::vector<float> y(static_cast<std::size_t>(rows * out));
    lm::linear_few_rows(pool, false, x.data() + first * in, w.data(), y.data(), rows, in, out, 0.0F,
                        scratch.data());
    return y;
  };
  std::vector<float> one_by_one;
  for (std::int64_t r = 0; r < 8; ++r) {
    auto const row = run(r, 1);
    one_by_one.insert(one_by_one.end(), row.begin(), row.end());
  }
  for (std::int64_t const rows : {2, 3, 5, 8}) {
    auto const together = run(0, rows);
    CHECK(std::equal(together.begin(), together.end(), one_by_one.begin()));
  }
}

TEST_CASE("bf16 weights: a server's logits are those of the rounded weights") {
  auto const config = odd_shape();
  auto narrow = lm::rounded(served::model<float>(config));
  auto const wide = widened<float>(narrow);
  auto const exact = widened<double>(narrow);
  auto const text = served::tokens(config, 150);
  for (auto const* const given : {"full", "every:2", "tail:4"}) {
    CAPTURE(given);
    auto const plan = served::plan(given, config);
    strata::thread_pool one(1);
    served::exact_server reference(exact, served::room(config, 1, 160), one);
    auto const expected =
        served::run(reference, served::open(reference, plan), text, strata::logits::all);
    std::vector<std::vector<float>> same;
    for (std::int32_t const threads : {1, 2}) {
      strata::thread_pool pool(threads);
      auto const all_of = [&](lm::served_model<float> const& model) {
        auto const serving = lm::make_server(model, pool, plan, {lm::cache_codec::f32, 1, 160});
        auto const id = served::open(*serving, plan);
        std::vector<float> all;
        // Many rows, few and one.
        for (auto const& [first, count] : {std::pair{0, 139}, {139, 9}, {148, 1}, {149, 1}}) {
          auto const part = served::run(*serving, id,
                                        std::span(text).subspan(static_cast<std::size_t>(first),
                                                                static_cast<std::size_t>(count)),
                                        strata::logits::all);
          all.insert(all.end(), part.begin(), part.end());
        }
        return all;
      };
      auto const logits = all_of(narrow.served());
      REQUIRE(logits.size() == expected.size());
      // Logits are of the order of 10; products in float are up to 2e-4 off, as elsewhere.
      std::vector<double> const as_double(logits.begin(), logits.end());
      CHECK(served::largest_difference(as_double, expected) < 5e-4);
      CHECK(served::largest_difference(logits, all_of(wide)) < 5e-4);
      same.push_back(logits);
    }
    CHECK(same[0] == same[1]);
  }
}

TEST_CASE("bf16 weights: they count as what they take, and are refused by that") {
  auto config = odd_shape();
  auto const narrow = lm::rounded(served::model<float>(config));
  strata::thread_pool pool(1);
  lm::cpu_place place(narrow.served(), pool);
  auto const plan = served::plan("full", config);
  lm::cache_options const cache{lm::cache_codec::f16, 1, 30};
  auto const serving = place.make_server(plan, cache, {});
  auto const gains = (2 * config.layers + 1) * config.dim;
  auto const table = lm::make_tensor_table(config).size;
  auto const bytes = lm::weight_bytes(config, lm::device_kind::cpu, lm::weight_type::bf16);
  CHECK(bytes == table * 2 + gains * 4);
  CHECK(place.used_memory(*serving) == bytes + lm::server_bytes(plan, config, cache));

  config.vocab = 1 << 30;
  config.dim = 1 << 20;
  auto const needed = lm::weight_bytes(config, lm::device_kind::cpu, lm::weight_type::bf16);
  lm::place_options const where{lm::device_kind::cpu, 1, lm::weight_type::bf16};
  try {
    static_cast<void>(lm::open_shape(config, "giant", where));
    FAIL("a petabyte was allocated");
  } catch (lm::failure const& refusal) {
    CHECK(refusal.code() == lm::exit_code::does_not_fit);
    CHECK(std::string(refusal.what()).find(lm::count_text(needed) + " bytes") != std::string::npos);
  }
}

TEST_CASE("bf16 weights: who keeps them, where nobody says") {
  using enum lm::weight_type;
  CHECK(lm::choose_weights({}, lm::device_kind::cpu, "") == f32);
  CHECK(lm::choose_weights(bf16, lm::device_kind::cpu, "") == bf16);
  CHECK(lm::choose_weights({}, lm::device_kind::cuda, "") == bf16);
  CHECK_THROWS_WITH_AS(static_cast<void>(lm::choose_weights(f32, lm::device_kind::cuda, "")),
                       "--weights f32: --device cuda keeps weights in bf16", lm::failure);
}
