// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <doctest/doctest.h>

#include <cstdint>
#include <vector>

#include <strata/cache/footprint.hpp>
#include <strata/cache/fp8_codec.hpp>
#include <strata/map/grouped_map.hpp>
#include <strata/map/identity_map.hpp>
#include <strata/map/leader_set.hpp>
#include <strata/map/table_map.hpp>
#include <strata/plan.hpp>

#include "support/models.hpp"
#include "support/print.hpp"

using strata::bf16_codec;
using strata::bytes_per_token;
using strata::f32_codec;
using strata::f64_codec;
using strata::identity_bytes_per_token;
using strata::make_plan;

namespace {

/// Half a byte per element and, apart, a float per 32 elements or what is left of them.
struct half_byte_codec {
  static constexpr bool exact = false;
  static constexpr std::int64_t row_bytes(std::int32_t n) noexcept { return (n + 1) / 2; }
  static constexpr std::int64_t scale_bytes(std::int32_t n) noexcept { return (n + 31) / 32 * 4; }
  template <class T>
  static void encode(T const*, std::int32_t, std::byte*, std::byte*) noexcept {}
  template <class T>
  static void decode(std::byte const*, std::byte const*, std::int32_t, T*) noexcept {}
};
static_assert(strata::kv_codec<half_byte_codec>);

constexpr strata::kv_class uneven{3, 192, 128};

support::model of_class(std::int32_t layers, strata::kv_class kv) {
  strata::layer_kind kind;
  kind.kv = kv;
  return support::repeated("uniform", layers, {kind});
}

}  // namespace

TEST_CASE("a layer keeps heads times row, of K and of V each by its own codec and size") {
  CHECK(strata::k_bytes<bf16_codec>(uneven) == 3 * 192 * 2);
  CHECK(strata::v_bytes<bf16_codec>(uneven) == 3 * 128 * 2);
  CHECK(strata::k_bytes<f64_codec>(uneven) == 3 * 192 * 8);
  CHECK(strata::k_bytes<half_byte_codec>(uneven) == 3 * (96 + 24));
  CHECK(strata::v_bytes<half_byte_codec>({1, 192, 33}) == 17 + 8);  // the last span is short
  CHECK(strata::k_bytes<f64_codec>({1 << 20, 1 << 20, 1}) == std::int64_t{1} << 43);
}

TEST_CASE("a scale that rows share is no byte of a token") {
  using strata::fp8_codec;
  auto const classes = of_class(7, uneven).classes();
  auto const plan = *make_plan(strata::grouped_map(7, 3), classes);
  CHECK(strata::k_bytes<fp8_codec>(uneven) == 3 * 192);
  CHECK(bytes_per_token<fp8_codec, bf16_codec>(plan, classes) == 3 * 3 * (192 + 2 * 128));
  CHECK(identity_bytes_per_token<fp8_codec>(classes) == 7 * 3 * (192 + 128));
  CHECK(strata::retention<fp8_codec>(plan, classes) == doctest::Approx(3.0 / 7));
}

TEST_CASE("a plan keeps what it stores, and the identity plan everything") {
  auto const classes = of_class(7, uneven).classes();
  auto const plan = *make_plan(strata::grouped_map(7, 3), classes);
  CHECK(bytes_per_token<bf16_codec>(plan, classes) == 3 * 3 * (192 + 128) * 2);
  CHECK(bytes_per_token<f32_codec, half_byte_codec>(plan, classes) == 3 * 3 * (192 * 4 + 64 + 16));
  CHECK(identity_bytes_per_token<bf16_codec>(classes) == 7 * 3 * (192 + 128) * 2);
  CHECK(identity_bytes_per_token<f32_codec, half_byte_codec>(classes) ==
        7 * 3 * (192 * 4 + 64 + 16));
  CHECK(strata::retention(plan, classes) == doctest::Approx(3.0 / 7));
}

TEST_CASE("K and V are counted apart") {
  auto const classes = of_class(4, uneven).classes();
  std::vector<std::int32_t> const one{0, 0, 0, 0}, three{0, 1, 2, 2};
  auto const one_k =
      *make_plan(*strata::table_map::make(one), *strata::table_map::make(three), classes);
  CHECK(bytes_per_token<bf16_codec>(one_k, classes) == 3 * 2 * (192 + 3 * 128));
  CHECK(bytes_per_token<f64_codec, bf16_codec>(one_k, classes) == 3 * (8 * 192 + 3 * 2 * 128));
  CHECK(strata::retention(one_k, classes) == doctest::Approx((192 + 3 * 128) / (4.0 * 320)));
}

TEST_CASE("layers count as much as they keep, those without K/V nothing") {
  strata::layer_kind wide, narrow;
  wide.kv = {4, 64, 64};
  narrow.kv = {1, 32, 32};
  support::model const m{"sizes", {narrow, support::linear_attention(), wide, narrow, wide, wide}};
  auto const classes = m.classes();
  std::vector<std::int32_t> const sources{0, 1, 2, 0, 2, 5};
  auto const plan = *make_plan(*strata::table_map::make(sources), classes);
  CHECK(identity_bytes_per_token<bf16_codec>(classes) == 3 * 1024 + 2 * 128);
  CHECK(bytes_per_token<bf16_codec>(plan, classes) == 2 * 1024 + 128);
  CHECK(strata::retention(plan, classes) == doctest::Approx((2 * 1024 + 128) / (3 * 1024 + 256.0)));
}

TEST_CASE("the identity plan retains everything, whatever the codec") {
  for (auto const& m : support::all_models()) {
    auto const classes = m.classes();
    auto const plan = *make_plan(strata::identity_map(m.num_layers()), classes);
    CHECK(bytes_per_token<half_byte_codec>(plan, classes) ==
          identity_bytes_per_token<half_byte_codec>(classes));
    CHECK(strata::retention(plan, classes) == 1);
  }
}

TEST_CASE("a model without any K/V keeps nothing, and retains nothing of it") {
  auto const classes = support::repeated("linear", 3, {support::linear_attention()}).classes();
  auto const plan = make_plan(strata::identity_map(3), classes);
  REQUIRE(plan.ok());
  CHECK(bytes_per_token<bf16_codec>(*plan, classes) == 0);
  CHECK(identity_bytes_per_token<bf16_codec>(classes) == 0);
  CHECK(strata::retention(*plan, classes) == 0);
}

TEST_CASE("a model that no plan can hold keeps nothing") {
  for (std::int32_t const layers : {-1, 0, 257, 300})
    CHECK(identity_bytes_per_token<bf16_codec>(strata::kv_classes::uniform(layers)) == 0);
  CHECK(strata::retention(strata::route_plan{}, strata::kv_classes::uniform(300)) == 0);
  static_assert(identity_bytes_per_token<bf16_codec>(strata::kv_classes::uniform(300)) == 0);
}
