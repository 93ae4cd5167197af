// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// RoPE on the way into the cache: what a rotation is, against the same in double, and that a row
// rotated while it is stored has the bits of one that was rotated first.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

#include <strata/attention/reference.hpp>
#include <strata/cache/rope.hpp>
#include <strata/map/grouped_map.hpp>
#include <strata/map/identity_map.hpp>

#include "support/exact_numbers.hpp"
#include "support/print.hpp"
#include "support/storage_types.hpp"
#include "support/unwritten_step.hpp"

using strata::errc;
using strata::layer_id;
using strata::rotary;
using strata::status;
using strata::tensor;

static_assert(std::is_trivially_copyable_v<rotary<float>>);

namespace {

constexpr std::int32_t table_positions = 40;

/// Tables for `dims` elements; cosines and sines of a position side by side, as vLLM keeps them.
template <class T>
struct rope_tables {
  std::int32_t dims;
  std::vector<T> both;

  explicit rope_tables(std::int32_t rotated) : dims(rotated) {
    for (std::int32_t at = 0; at < table_positions; ++at)
      for (bool const sine : {false, true})
        for (std::int32_t j = 0; j < dims / 2; ++j)
          both.push_back(static_cast<T>(sine ? std::sin(angle(at, j)) : std::cos(angle(at, j))));
  }
  double angle(std::int32_t position, std::int32_t j) const {
    return position * std::pow(10000.0, -2.0 * j / dims);
  }
  rotary<T> turns(bool interleaved) const {
    return {both.data(), both.data() + dims / 2, dims, table_positions, dims, interleaved};
  }
};

/// The definition, of the leading `dims` elements.
std::vector<double> rotated_head(std::vector<double> const& head, rope_tables<double> const& t,
                                 std::int32_t position, bool interleaved) {
  auto out = head;
  for (std::int32_t j = 0; j < t.dims / 2; ++j) {
    auto const first = static_cast<std::size_t>(interleaved ? 2 * j : j);
    auto const second = static_cast<std::size_t>(interleaved ? 2 * j + 1 : j + t.dims / 2);
    auto const c = std::cos(t.angle(position, j)), s = std::sin(t.angle(position, j));
    out[first] = head[first] * c - head[second] * s;
    out[second] = head[second] * c + head[first] * s;
  }
  return out;
}

strata::kv_class class_of_keys(std::int32_t dim, std::int32_t dims, bool interleaved) {
  strata::kv_class kv;
  kv.k_dim = dim;
  kv.rope.dims = dims;
  kv.rope.interleaved = interleaved;
  return kv;
}

}  // namespace

TEST_CASE_TEMPLATE("rotary: pairs turn by their angles, the other elements stay", T, float,
                   double) {
  double const bound = std::is_same_v<T, double> ? 0x1p-50 : 0x1p-21;
  for (auto const dim : {2, 6, 64, 80, 128})
    for (auto const dims : {2, 6, 64, 80, 128})
      for (bool const interleaved : {false, true}) {
        if (dims > dim) continue;
        CAPTURE(dim);
        CAPTURE(dims);
        rope_tables<T> const t(dims);
        rope_tables<double> const exact(dims);
        for (auto const position : {0, 1, 7, table_positions - 1}) {
          auto head = support::random_values<T>(dim, static_cast<std::uint64_t>(dim + position));
          std::vector<double> const given(head.begin(), head.end());
          t.turns(interleaved).rotate(head.data(), position);
          auto const expected = rotated_head(given, exact, position, interleaved);
          double error = 0;
          for (std::size_t i = 0; i < head.size(); ++i) {
            error = std::max(error, std::abs(static_cast<double>(head[i]) - expected[i]));
            if (i >= static_cast<std::size_t>(dims))
              CHECK(static_cast<double>(head[i]) == given[i]);
          }
          CHECK(error < bound);
          if (position == 0) CHECK(std::vector<double>(head.begin(), head.end()) == given);
        }
      }
}

TEST_CASE("rotary: check refuses what does not rotate these keys") {
  rope_tables<float> const t(8);
  auto const good = t.turns(false);
  CHECK(good.check(class_of_keys(8, -1, false)).ok());
  CHECK(good.check(class_of_keys(10, 8, false)).ok());
  CHECK(t.turns(true).check(class_of_keys(10, 8, true)).ok());
  float const x[8] = {};
  CHECK(rotary<float>::of(x, x, 2, 8).check(class_of_keys(8, 8, false)).ok());
  CHECK(rotary<float>::of(x, x, 2, 8).stride == 4);

  CHECK(rotary<float>{}.check(class_of_keys(8, -1, false)) == null_pointer(tensor::rope_cos));
  auto bad = good;
  bad.sin = nullptr;
  CHECK(bad.check(class_of_keys(8, -1, false)) == null_pointer(tensor::rope_sin));
  bad = good;
  bad.positions = 0;
  CHECK(bad.check(class_of_keys(8, -1, false)) == status{errc::rope_too_short, {}, 0, 0});
  bad = good;
  bad.stride = 3;
  CHECK(bad.check(class_of_keys(8, -1, false)) == status{errc::rope_stride_too_small, {}, 3, 4});
  for (auto const dims : {-2, 0, 7, 10}) {
    bad = good;
    bad.dims = dims;
    CHECK(bad.check(class_of_keys(8, -1, false)) == status{errc::rope_dims_mismatch, {}, dims, 8});
  }
  CHECK(good.check(class_of_keys(10, -1, false)) == status{errc::rope_dims_mismatch, {}, 8, 10});
  CHECK(good.check(class_of_keys(10, 6, false)) == status{errc::rope_dims_mismatch, {}, 8, 6});
  CHECK(good.check(class_of_keys(1026, 8, false)) ==
        status{errc::rope_head_too_large, {}, 1026, 1024});
  CHECK(good.check(class_of_keys(8, -1, true)) == status{errc::rope_pairs_mismatch, {}, 0, 1});
  auto without = class_of_keys(8, -1, false);
  without.rope.theta = 0;
  CHECK(good.check(without) == status{errc::rope_not_wanted});
}

TEST_CASE("rotary: covers heads and positions that the tables have") {
  rope_tables<float> const t(8);
  auto const turns = t.turns(true);
  CHECK((turns.covers(8, 0) && turns.covers(1024, table_positions - 1)));
  CHECK_FALSE((turns.covers(7, 0) || turns.covers(1025, 0)));
  CHECK_FALSE((turns.covers(8, -1) || turns.covers(8, table_positions)));
}

namespace {

constexpr std::int32_t rope_heads = 2, rope_dim = 40,
                       rope_dims = 36;  // more than a span of int8

strata::kv_classes rope_classes() {
  strata::layer_kind kind;
  kind.kv.kv_heads = rope_heads;
  kind.kv.k_dim = kind.kv.v_dim = rope_dim;
  kind.kv.rope.dims = rope_dims;
  return strata::kv_classes::uniform(3, kind);
}

/// K rows of T, rotated first or while they are stored.
template <class S>
struct rope_server {
  support::storage_room room;
  support::guarded_memory memory = support::memory_for<S>(rope_classes(), room);
  strata::stack<S, strata::reference_attention> stack{
      support::make_storage<S>(rope_classes(), room, memory.borrow())};
  strata::sequence_id all = *stack.open(*make_plan(strata::identity_map(3), rope_classes()));
  strata::sequence_id one = *stack.open(*make_plan(strata::grouped_map(3, 3), rope_classes()));

  /// A step whose sequences stand at different positions, one of them behind a gap.
  template <class T>
  void run(bool fused, std::int32_t round, rotary<strata::rotated_t<T>> const& turns) {
    auto step = stack.begin({{one, 3, strata::logits::all, 4 + 9 * round}, {all, 2}});
    REQUIRE(step.state().ok());
    for (layer_id l{0}; l.index < 3; ++l.index) {
      CHECK(turns.check(rope_classes()[l].kv).ok());
      for (auto const& run : step.k_writers(l))
        for (std::int32_t i = 0; i < run.num_rows(); ++i) {
          auto const at = static_cast<std::size_t>(run.first_row() + i);
          auto const row = static_cast<std::size_t>(step.input_rows(l)[at]);
          CHECK(run.position(i) == step.positions()[row]);
          auto const k = random_row<T>(100 * round + 10 * l.index + static_cast<int>(row));
          if (fused)
            run.store_rotated(i, k.data(), turns);
          else
            store_after(run, i, k, turns);
        }
    }
    for (layer_id l{0}; l.index < 3; ++l.index)
      for (auto const& run : step.v_writers(l)) run.mark_stored();
    CHECK(step.commit().ok());
  }

  template <class T>
  static std::vector<T> random_row(std::int32_t seed) {
    std::vector<T> row;
    for (auto const x :
         support::random_values<float>(rope_heads * rope_dim, static_cast<std::uint64_t>(seed))) {
      if constexpr (std::is_same_v<T, strata::float16>)
        row.push_back(strata::to_float16(x));
      else if constexpr (std::is_same_v<T, strata::bfloat16>)
        row.push_back(strata::to_bfloat16(x));
      else
        row.push_back(static_cast<T>(x) / 3);
    }
    return row;
  }

  template <class Run, class T>
  static void store_after(Run const& run, std::int32_t i, std::vector<T> const& k,
                          rotary<strata::rotated_t<T>> const& turns) {
    std::vector<strata::rotated_t<T>> row;
    for (auto const x : k) {
      if constexpr (std::floating_point<T>)
        row.push_back(x);
      else
        row.push_back(to_float(x));
    }
    for (std::int32_t h = 0; h < rope_heads; ++h)
      turns.rotate(row.data() + h * rope_dim, run.position(i));
    run.store(i, row.data());
  }
};

template <class S, class T>
void check_same_bits() {
  rope_tables<strata::rotated_t<T>> const t(rope_dims);
  rope_server<S> fused, apart;
  for (std::int32_t round = 0; round < 3; ++round) {
    fused.template run<T>(true, round, t.turns(false));
    apart.template run<T>(false, round, t.turns(false));
  }
  CHECK(std::ranges::equal(fused.memory.borrow().k, apart.memory.borrow().k));
  CHECK((fused.memory.guards_intact() && apart.memory.guards_intact()));
}

}  // namespace

TEST_CASE_TEMPLATE_DEFINE("a row rotated while it is stored is a row rotated before", S,
                          rope_bits) {
  check_same_bits<S, float>();
  check_same_bits<S, double>();
  check_same_bits<S, strata::float16>();
  check_same_bits<S, strata::bfloat16>();
}
TEST_CASE_TEMPLATE_APPLY(rope_bits, support::all_storages);

TEST_CASE("a row beyond the RoPE table is not stored, and attention and commit say why") {
  using storage = strata::paged_storage<strata::f32_codec>;
  rope_server<storage> s;
  rope_tables<float> const t(rope_dims);
  auto turns = t.turns(false);
  turns.positions = 5;
  auto const row = rope_server<storage>::random_row<float>(1);
  auto step =
      s.stack.begin({{s.all, 3, strata::logits::all, 2}, {s.one, 4, strata::logits::all, 3}});
  for (layer_id l{0}; l.index < 3; ++l.index) {
    for (auto const& run : step.v_writers(l)) run.mark_stored();
    if (l.index > 0)
      for (auto const& run : step.k_writers(l)) run.mark_stored();
  }
  auto const& run = step.k_writers({0})[0];
  REQUIRE(run.num_rows() == 7);  // at 2, 3, 4 of one sequence and 3, 4, 5, 6 of the other
  for (std::int32_t i = 0; i < 7; ++i) run.store_rotated(i, row.data(), turns);

  status const expected{errc::rope_too_short, {0}, 5, 5};
  CHECK(step.commit() == expected);
  strata::serial_executor exec;
  std::vector<float> q(7 * rope_heads * rope_dim), out = q;
  strata::layer_queries<float> const queries{
      .q = q.data(), .out = out.data(), .q_heads = rope_heads};
  std::vector<std::byte> workspace(4096);
  CHECK(step.attend(exec, {2}, queries, workspace) == expected);  // `one` reads layer 0 there
  CHECK(std::string(describe(expected).c_str()) ==
        "layer 0: a key stands at position 5, beyond the RoPE table of 5 positions");
  // Stored after all, with tables that are long enough, they count.
  for (std::int32_t i = 5; i < 7; ++i) run.store_rotated(i, row.data(), t.turns(false));
  CHECK(step.attend(exec, {2}, queries, workspace).ok());
  CHECK(step.commit().ok());
}

TEST_CASE("what a row holds after it was stored rotated is its rotation") {
  using storage = strata::paged_storage<strata::f64_codec>;
  rope_server<storage> s;
  rope_tables<double> const t(rope_dims);
  s.run<double>(true, 0, t.turns(false));
  auto step = s.stack.begin({{s.one, 0}, {s.all, 0}});
  auto const view = step.view({0});
  REQUIRE(view.ok());
  for (std::int32_t token = 0; token < 3; ++token) {
    auto const given =
        rope_server<storage>::random_row<double>(token);  // of layer 0, batch row token
    for (std::int32_t h = 0; h < rope_heads; ++h) {
      std::vector<double> held(rope_dim);
      view->load_k(0, h, token, held.data());
      auto const expected = rotated_head(
          {given.begin() + h * rope_dim, given.begin() + (h + 1) * rope_dim}, t, 4 + token, false);
      for (std::size_t i = 0; i < held.size(); ++i) CHECK(std::abs(held[i] - expected[i]) < 1e-15);
    }
  }
}
