// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What a server takes from memory, and whose memory that is.
#include <cstddef>

#include "served.hpp"

namespace {

lm::model_config byte_shape() {
  auto c = tiny::shape();
  c.vocab = 256;
  return c;
}

}  // namespace

TEST_CASE("memory: tables count, RoPE's and those of positions") {
  auto const config = byte_shape();
  lm::rope_table<float> const rope(37, config);
  auto const rope_bytes = 2 * rope.positions() * rope.half() * std::int64_t{sizeof(float)};
  lm::cache_options const cache{lm::cache_codec::f16, 3, 37};
  CHECK(lm::table_bytes(config, cache) == rope_bytes + 3 * 37 * 4);
  auto const plan = served::plan("every:2", config);
  CHECK(lm::server_bytes(plan, config, cache) ==
        lm::cache_bytes(plan, config, cache) + lm::table_bytes(config, cache));
  lm::cache_options const endless{lm::cache_codec::f32, 1 << 30, 1 << 30};
  CHECK_THROWS_AS(static_cast<void>(lm::server_bytes(plan, config, endless)), lm::failure);
}

TEST_CASE("memory: K and V that fit alone are refused where their tables do not fit beside them") {
  lm::model_config config;
  config.layers = 1;
  config.dim = config.mlp = 2;
  config.q_heads = config.kv_heads = 1;
  config.head_dim = 1024;  // a token of K and V in 16 bits weighs as much as its cosines and sines
  auto const plan = served::plan("full", config);
  auto const tokens = lm::available_memory() * 3 / 4 / 4096;
  if (tokens > 1 << 30) return;  // nobody says how much there is
  lm::cache_options const cache{lm::cache_codec::f16, 1, static_cast<std::int32_t>(tokens)};
  REQUIRE(lm::cache_bytes(plan, config, cache) < lm::available_memory());
  lm::parameters<float> const model(config);
  strata::thread_pool pool(1);
  try {
    static_cast<void>(lm::make_server(model, pool, plan, cache));
    FAIL("tables larger than the memory were made");
  } catch (lm::failure const& refusal) {
    CHECK(refusal.code() == lm::exit_code::does_not_fit);
    CHECK(std::string(refusal.what()).starts_with("serving: "));
  }
}

TEST_CASE("memory: K and V lie in memory that is lent, and nowhere else") {
  auto const config = byte_shape();
  auto const model = served::model<float>(config);
  strata::thread_pool pool(1);
  auto const plan = served::plan("every:2", config);
  lm::cache_options const cache{lm::cache_codec::f32, 2, 20};
  auto const bytes = lm::cache_bytes(plan, config, cache);
  lm::aligned_buffer<std::byte> memory(bytes);
  auto const half = static_cast<std::size_t>(bytes / 2);
  strata::borrowed_memory const lent{memory.values().first(half), memory.values().last(half)};

  auto const own = lm::make_server(model, pool, plan, cache);
  auto const borrowing = lm::make_server(model, pool, plan, cache, lent);
  CHECK(borrowing->allocated_bytes() == bytes);
  auto const text = served::tokens(config, 20);
  auto const expected = served::run(*own, served::open(*own, plan), text, strata::logits::all);
  CHECK(served::run(*borrowing, served::open(*borrowing, plan), text, strata::logits::all) ==
        expected);
  for (auto const part : {lent.k, lent.v})
    CHECK(std::ranges::any_of(part, [](std::byte b) { return b != std::byte{}; }));

  auto const full = served::plan("full", config);
  CHECK_THROWS_WITH_AS(static_cast<void>(lm::make_server(model, pool, full, cache, lent)),
                       doctest::Contains("the K/V cache: the memory given has "), lm::failure);
}
