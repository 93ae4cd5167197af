// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The servers that strata-lm runs: floats, contiguous caches, the blocked kernel.
#include "served.hpp"

#include "evaluate.hpp"
#include "lm/allocations.hpp"

namespace {

lm::model_config shape_of_24() {
  auto c = tiny::shape();
  c.dim = 24;
  c.head_dim = 16;
  c.vocab = 256;
  c.mlp = 40;
  return c;
}

}  // namespace

TEST_CASE("shipped: every codec stays near f32, and token by token near the full pass") {
  strata::thread_pool pool(2);
  auto const config = shape_of_24();
  auto const model = served::model<float>(config);
  auto const text = served::tokens(config, 140);
  // Of logits of the order of 10: float sums, and what 11 and 8 bits of K and V leave. The steps of
  // int8, 1/127 of the greatest of a head's 16 numbers, are on average 3 times those of bf16; the 4
  // bits of fp8 leave up to 10. Those of int4 are 18 times those of int8, which leaves little of
  // such logits.
  // Against the same weights in double a full pass is up to 1.9e-4 off and token by token 1.6e-4,
  // so that in float the two may be 3.5e-4 apart; how much they are is the compiler's choice.
  double const stepwise_bound[] = {5e-4, 0.3, 2.4, 7.2, 7.2, 20, 20, 20, 20, 20};
  double const codec_bound[] = {0, 0.3, 2.4, 7.2, 7.2, 20, 30, 30, 30, 30};
  for (auto const& given : served::strategies) {
    CAPTURE(given);
    auto const plan = served::plan(given, config);
    std::vector<float> exact, int8, last;
    double last_difference = 0;
    for (auto const codec : lm::cache_codecs) {
      auto const which = static_cast<std::size_t>(codec);
      CAPTURE(which);
      auto const serving = lm::make_server(model, pool, plan, {codec, 2, 140});
      auto const difference =
          lm::stepwise_difference<float>(*serving, plan, std::span<std::int32_t const>(text));
      REQUIRE(difference.ok());
      CHECK(*difference < stepwise_bound[which]);
      auto const all =
          served::run(*serving, served::open(*serving, plan), text, strata::logits::all);
      if (exact.empty()) exact = all;
      auto const from_f32 = served::largest_difference(exact, all);
      CHECK(from_f32 <= codec_bound[which]);
      // The codec asked for is the one that stores: each float has 3 bits less than the one before.
      if (codec == lm::cache_codec::f16 || codec == lm::cache_codec::bf16)
        CHECK(from_f32 > 2 * last_difference);
      if (codec == lm::cache_codec::fp8) CHECK(from_f32 > last_difference);
      if (lm::has_int4(codec)) CHECK(from_f32 > served::largest_difference(exact, int8));
      if (codec != lm::cache_codec::q8_0) CHECK(all != last);
      last = all;
      last_difference = from_f32;
      // Both have the same numbers in other places.
      if (codec == lm::cache_codec::int8) int8 = all;
      if (codec == lm::cache_codec::q8_0) CHECK(all == int8);
      if (codec == lm::cache_codec::int8) CHECK(from_f32 > 0);
    }
  }
}

TEST_CASE("shipped: the bytes said before are the bytes allocated, and those per token are exact") {
  strata::thread_pool pool(1);
  auto const config = shape_of_24();
  auto const model = served::model<float>(config);
  for (auto const& given : served::strategies)
    for (auto const codec : lm::cache_codecs) {
      CAPTURE(given);
      auto const s = lm::resolve_strategy(given, config);
      lm::cache_options const cache{codec, 3, 37};
      auto const serving = lm::make_server(model, pool, s.plan, cache);
      CHECK(serving->allocated_bytes() == lm::cache_bytes(s.plan, config, cache));
      auto const per_token = lm::with_codecs(codec, [&]<class K, class V>(K, V) {
        return strata::bytes_per_token<K, V>(s.plan, config.classes());
      });
      // Rows and scales of a tensor are each rounded up to 64 bytes. A token of a layer in floats is
      // that or a multiple here, so that no rounding hides anything.
      bool const in_floats = codec < lm::cache_codec::int8;
      auto const hidden = serving->allocated_bytes() - per_token * 3 * 37;
      CHECK(hidden >= 0);
      CHECK(hidden <= (in_floats ? 0 : 2 * 63 * 3 * (s.plan.k_slots + s.plan.v_slots)));
      CHECK(s.leaders.size() == static_cast<std::size_t>(s.plan.k_slots));
      CHECK(s.retention == doctest::Approx(static_cast<double>(s.leaders.size()) / config.layers));
    }
}

TEST_CASE("shipped: decoding allocates nothing after the first step") {
  strata::thread_pool pool(2);
  auto const config = shape_of_24();
  auto const model = served::model<float>(config);
  auto const plan = served::plan("every:2", config);
  auto const serving = lm::make_server(model, pool, plan, {lm::cache_codec::f16, 3, 700});
  std::int32_t const token = 65;
  std::vector<lm::feed> batch;
  for (int i = 0; i < 3; ++i) {
    auto const id = served::open(*serving, plan);
    REQUIRE(serving->fill_with_noise(id, 600).ok());
    batch.push_back({id, std::span(&token, 1), strata::logits::last});
  }
  REQUIRE(serving->run(batch).ok());
  auto const before = allocations();
  for (int i = 0; i < 20; ++i) REQUIRE(serving->run(batch).ok());
  CHECK(allocations() == before);
}

TEST_CASE("shipped: the number of threads changes no bit") {
  auto const config = shape_of_24();
  auto const model = served::model<float>(config);
  auto const plan = served::plan("every:3", config);
  auto const text = served::tokens(config, 300);
  std::vector<std::vector<float>> logits;
  for (std::int32_t const threads : {1, 2, 3}) {
    strata::thread_pool pool(threads);
    auto const serving = lm::make_server(model, pool, plan, {lm::cache_codec::f32, 1, 310});
    auto const id = served::open(*serving, plan);
    auto all = served::run(*serving, id, text, strata::logits::all);
    for (std::int32_t token = 0; token < 10; ++token) {
      auto const next = served::run(*serving, id, std::span(&token, 1), strata::logits::last);
      all.insert(all.end(), next.begin(), next.end());
    }
    logits.push_back(std::move(all));
  }
  CHECK(logits[0] == logits[1]);
  CHECK(logits[0] == logits[2]);
}
