// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A cache in an engine's memory under an engine's block tables: the same answers as a storage of
// our own, depths mixed where one allocation holds all layers and refused where it does not.
#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include <strata/attention/reference.hpp>
#include <strata/cache/borrowed_storage.hpp>
#include <strata/map/grouped_map.hpp>
#include <strata/map/identity_map.hpp>

#include "support/print.hpp"
#include "support/storage_types.hpp"
#include "support/toy_serving.hpp"
#include "support/unwritten_step.hpp"

using strata::errc;
using strata::layer_id;
using strata::status;

namespace {

using engine_codec = strata::f32_codec;
using engine_storage = strata::borrowed_storage<engine_codec>;

constexpr std::int32_t engine_layers = 4, engine_sequences = 2, engine_block_size = 3,
                       engine_blocks_per_row = 3;

support::toy_shape engine_shape() {
  support::toy_shape s;
  s.layers = std::vector(engine_layers, support::toy_kind());
  return s;
}

/// An engine's memory: blocks of [block_size, 2, dim], scattered, one table row per (layer,
/// sequence). `shared`: one allocation and one table for all layers, else one for each.
struct engine_memory {
  bool shared;
  std::vector<std::vector<float>> k, v;
  std::vector<std::vector<std::int32_t>> tables;

  explicit engine_memory(bool one_allocation) : shared(one_allocation) {
    auto const rows = engine_sequences * (shared ? engine_layers : 1);
    auto const blocks = static_cast<std::size_t>(rows * engine_blocks_per_row);
    for (int i = 0; i < (shared ? 1 : engine_layers); ++i) {
      k.emplace_back(blocks * engine_block_size * 12, -1.f);
      v.emplace_back(blocks * engine_block_size * 8, -1.f);
      auto& table = tables.emplace_back();
      for (std::size_t b = 0; b < blocks; ++b)  // 5 and the number of blocks share no factor
        table.push_back(static_cast<std::int32_t>(b * 5 % blocks));
    }
  }
  std::vector<strata::borrowed_layer> layers() {
    std::vector<strata::borrowed_layer> all;
    for (std::int32_t l = 0; l < engine_layers; ++l) {
      auto const at = static_cast<std::size_t>(shared ? 0 : l);
      auto const blocks = [&](std::vector<float>& x, std::int32_t dim) {
        auto b = strata::nhd_blocks<engine_codec>(reinterpret_cast<std::byte*>(x.data()),
                                                  engine_block_size, 2, dim);
        b.block_table = tables[at].data();
        b.blocks_per_row = engine_blocks_per_row;
        return b;
      };
      auto const first_row = shared ? l * engine_sequences : 0;
      all.push_back({blocks(k[at], 6), blocks(v[at], 4), first_row, first_row});
    }
    return all;
  }
};

/// Floats, and a scale per row that changes nothing.
struct scaled_float_codec : engine_codec {
  static constexpr std::int64_t scale_bytes(std::int32_t) noexcept { return 4; }
};
static_assert(strata::kv_codec<scaled_float_codec>);

using engine_stack = strata::stack<engine_storage, strata::reference_attention>;

engine_stack engine_stack_over(std::vector<strata::borrowed_layer> const& layers) {
  return engine_stack(*engine_storage::make(engine_shape().classes(), layers, engine_sequences, 9));
}
strata::route_plan every_layer() {
  return *make_plan(strata::identity_map(4), engine_shape().classes());
}
strata::route_plan every_second() {
  return *make_plan(strata::grouped_map(4, 2), engine_shape().classes());
}

}  // namespace

TEST_CASE("the same bits as in memory of our own, whatever lies where") {
  support::toy_model<float> const model(engine_shape());
  using own_storage = strata::contiguous_storage<engine_codec>;
  strata::stack<own_storage, strata::reference_attention> own(
      support::make_storage<own_storage>(engine_shape().classes()));
  support::toy_server<float, decltype(own)> own_server(model, own);
  for (bool const shared : {true, false})
    for (bool const mixed : {false, true}) {
      if (mixed && !shared) continue;
      CAPTURE(shared);
      CAPTURE(mixed);
      engine_memory e(shared);
      auto st = engine_stack_over(e.layers());
      support::toy_server<float, engine_stack> server(model, st);
      auto const plan_b = mixed ? every_layer() : every_second();
      auto const a = *st.open(every_second()), b = *st.open(plan_b);
      auto const own_a = *own.open(every_second()), own_b = *own.open(plan_b);
      for (std::vector<std::int32_t> const& tokens :
           {std::vector{1, 2, 3, 4}, std::vector{5}, std::vector{6, 7}}) {
        auto const out = server.serve({{a, tokens}, {b, {tokens[0]}}});
        auto const expected = own_server.serve({{own_a, tokens}, {own_b, {tokens[0]}}});
        REQUIRE(out.state.ok());
        CHECK(support::same_bits(out.logits, expected.logits));
      }
      CHECK(own.close(own_a).ok());
      CHECK(own.close(own_b).ok());
    }
}

TEST_CASE("depths cannot be mixed over separate allocations") {
  engine_memory e(false);
  auto st = engine_stack_over(e.layers());
  auto const a = *st.open(every_layer()), b = *st.open(every_second());
  strata::batch_entry const both[] = {{a, 2}, {b, 1}};
  // Layer 1 of a reads itself, of b layer 0.
  CHECK(st.begin(both).state() == status{errc::separate_allocations, {1}, 0, 1});
  CHECK(st.storage().length(a) == 0);
  CHECK(support::grow_unwritten(st, {a, 2}).ok());  // one at a time they can be served
  CHECK(support::grow_unwritten(st, {b, 1}).ok());
}

// The same memory is not enough: one call reads through one table.
TEST_CASE("depths cannot be mixed over a table per layer") {
  engine_memory e(true);
  auto layers = e.layers();
  for (auto& l : layers) {
    l.k.block_table += l.k_first_row * engine_blocks_per_row;
    l.v.block_table += l.v_first_row * engine_blocks_per_row;
    l.k_first_row = l.v_first_row = 0;
  }
  auto st = engine_stack_over(layers);
  auto const a = *st.open(every_layer()), b = *st.open(every_second());
  strata::batch_entry const both[] = {{a, 2}, {b, 1}};
  CHECK(st.begin(both).state() == status{errc::separate_allocations, {1}, 0, 1});
  CHECK(support::grow_unwritten(st, {b, 1}).ok());
}

TEST_CASE("a plan that stores where the engine gave no memory is refused") {
  engine_memory e(true);
  auto layers = e.layers();
  layers[3].v = {};
  auto st = engine_stack_over(layers);
  CHECK(st.open(every_layer()).state() == status{errc::layer_without_memory, {3}});
  CHECK(st.open(every_second()).ok());
  layers[2].k = {};
  CHECK(engine_stack_over(layers).open(every_second()).state() ==
        status{errc::layer_without_memory, {2}});
}

TEST_CASE("layers must be as many as the model has") {
  engine_memory e(true);
  auto layers = e.layers();
  layers.pop_back();
  CHECK(engine_storage::make(engine_shape().classes(), layers, engine_sequences, 9).state() ==
        status{errc::layer_count_mismatch, {}, 3, 4});
  CHECK(engine_storage::make(engine_shape().classes(), e.layers(), 0, 9).state().code ==
        errc::bad_max_sequences);
}

TEST_CASE("blocks that could not hold what they promise are refused") {
  engine_memory e(true);
  auto const refused = [&](auto change, std::int32_t max_tokens = 9) {
    auto layers = e.layers();
    change(layers[2]);
    return engine_storage::make(engine_shape().classes(), layers, engine_sequences, max_tokens)
        .state();
  };
  using layer = strata::borrowed_layer;
  auto const short_row = [](std::int64_t room, std::int64_t bound) {
    return status{errc::row_too_short, {2}, room, bound};
  };
  auto const out_of_range = [](std::int64_t value, std::int64_t bound) {
    return status{errc::bad_row_of_blocks, {2}, value, bound};
  };
  CHECK(refused([](layer&) {}).ok());
  CHECK(refused([](layer& l) { l.k.block_size = 0; }) == status{errc::bad_block_size, {2}, 0, 1});
  CHECK(refused([](layer& l) { l.v.block_size = -3; }) == status{errc::bad_block_size, {2}, -3, 1});
  // A row is blocks_per_row blocks where there is a table, one block where there is none.
  CHECK(refused([](layer& l) { l.k.blocks_per_row = 2; }) == short_row(6, 9));
  CHECK(refused([](layer& l) { l.v.blocks_per_row = -1; }) == short_row(0, 9));
  CHECK(refused([](layer& l) { l.v.block_table = nullptr; }) == short_row(3, 9));
  CHECK(refused([](layer& l) { l.v.block_table = nullptr, l.v.block_size = 9; }).ok());
  // Products that 32 and 64 bits do not hold are room enough.
  CHECK(refused([](layer& l) { l.k.blocks_per_row = std::int64_t{1} << 62; }).ok());
  CHECK(refused([](layer& l) { l.k.blocks_per_row = 1 << 30, l.k.block_size = 8; }).ok());
  CHECK(refused([](layer& l) { l.k_first_row = -1; }) == out_of_range(-1, 0));
  CHECK(refused([](layer& l) { l.v_first_row = -5; }) == out_of_range(-5, 0));
  CHECK(refused([](layer& l) { l.v_first_row = 0x7FFFFFFF; }) ==
        out_of_range(std::int64_t{1} << 31, 0x7FFFFFFF));
  // What is left empty promises nothing.
  CHECK(refused([](layer& l) { l = {}, l.k.block_size = 0, l.v_first_row = -1; }).ok());
}

TEST_CASE("blocks of a codec that keeps scales apart need them") {
  using scaled = strata::borrowed_storage<engine_codec, scaled_float_codec>;
  auto layers = engine_memory(true).layers();
  std::byte scales[1] = {};
  for (auto& l : layers) l.v.scales = scales;
  auto const make = [&] {
    return scaled::make(engine_shape().classes(), layers, engine_sequences, 9).state();
  };
  CHECK(make().ok());
  layers[1].v.scales = nullptr;
  CHECK(make() == null_pointer(strata::tensor::v_scales, {1}));
  layers[1].v = {};
  CHECK(make().ok());
}
