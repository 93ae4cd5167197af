// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Law 4: only rows whose plan stores a layer can be written at it. Followers have no door, and what
// the others write is exactly their own rows: the pool is compared byte for byte.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <set>
#include <vector>

#include <strata/attention/reference.hpp>
#include <strata/map/table_map.hpp>

#include "support/print.hpp"
#include "support/row_scaled_codec.hpp"
#include "support/storage_types.hpp"
#include "support/toy_serving.hpp"
#include "support/unwritten_step.hpp"

using strata::batch_entry;
using strata::layer_id;
using strata::sequence_id;

namespace {

using writer_storages =
    std::tuple<strata::contiguous_storage<strata::f32_codec, strata::f16_codec>,
               strata::paged_storage<strata::f32_codec, strata::f16_codec>,
               strata::contiguous_storage<strata::int8_codec, strata::q8_0_codec>,
               strata::paged_storage<strata::q8_0_codec, strata::int8_codec>,
               strata::paged_storage<strata::fp8_codec>>;

struct k_and_v_sources {
  std::vector<std::int32_t> k, v;
};

/// A batch of every kind of neighbour: stores all, follows, stores V only, grows by nothing.
std::vector<k_and_v_sources> const& all_sources() {
  static std::vector<k_and_v_sources> const all{{{0, 1, 2, 3, 4, 5}, {0, 1, 2, 3, 4, 5}},
                                                {{0, 1, 2, 0, 1, 0}, {0, 1, 2, 0, 1, 0}},
                                                {{0, 1, 2, 3, 4, 3}, {0, 1, 2, 0, 1, 0}},
                                                {{0, 1, 2, 0, 1, 0}, {0, 1, 2, 3, 4, 5}},
                                                {{0, 1, 2, 3, 1, 5}, {0, 1, 2, 3, 4, 3}}};
  return all;
}

template <class S>
struct written_stack {
  strata::kv_classes kinds = support::mixed_toy_classes();
  support::storage_room room{.max_sequences = 5, .max_tokens = 9, .k_tensors = 25, .v_tensors = 25};
  support::guarded_memory memory = support::memory_for<S>(kinds, room);
  strata::stack<S, strata::reference_attention> stack{
      support::make_storage<S>(kinds, room, memory.borrow())};
  std::vector<sequence_id> ids;

  written_stack() {
    for (auto const& s : all_sources())
      ids.push_back(*stack.open(
          *make_plan(*strata::table_map::make(s.k), *strata::table_map::make(s.v), kinds)));
  }

  /// Offsets into a pool of the bytes that hold token t of the sequence's own tensor at layer l,
  /// scales included; those that a block shares come with its first token.
  template <class Codec>
  void note_bytes(std::set<std::size_t>& bytes, sequence_id id, layer_id l, bool is_k,
                  std::int32_t token) {
    auto& storage = const_cast<S&>(stack.storage());
    auto const blocks = is_k ? storage.k_blocks(l) : storage.v_blocks(l);
    auto const row = is_k ? storage.k_row(id, l) : storage.v_row(id, l);
    auto const& kv = kinds[l].kv;
    auto const* const pool = is_k ? memory.k().data() : memory.v().data();
    auto const dim = is_k ? kv.k_dim : kv.v_dim;
    auto const note = [&](std::byte const* from, std::int64_t count) {
      for (std::int64_t i = 0; i < count; ++i)
        bytes.insert(static_cast<std::size_t>(from + i - pool));
    };
    for (std::int32_t h = 0; h < kv.kv_heads; ++h) {
      note(blocks.at(row, h, token), Codec::row_bytes(dim));
      bool const shared = strata::head_scaled_codec<Codec> && token % blocks.block_size > 0;
      note(blocks.scales_at(row, h, token), shared ? 0 : Codec::scale_bytes(dim));
    }
  }
};

std::vector<std::byte> copied_bytes(std::span<std::byte const> bytes) {
  return {bytes.begin(), bytes.end()};
}

std::set<std::size_t> changed_places(std::vector<std::byte> const& before,
                                     std::span<std::byte const> after) {
  std::set<std::size_t> places;
  for (std::size_t i = 0; i < before.size(); ++i)
    if (before[i] != after[i]) places.insert(i);
  return places;
}

/// A number whose forms in float, float16, int8 and fp8, scale and all, differ from the pattern
/// 0xA5A5... in every byte.
constexpr float unlike_the_pattern = 1.2345f;

template <class Runs>
std::vector<std::int32_t> rows_in(Runs const& runs) {
  std::vector<std::int32_t> rows;
  for (auto const& run : runs)
    for (std::int32_t i = 0; i < run.num_rows(); ++i) rows.push_back(run.first_row() + i);
  return rows;
}

}  // namespace

TEST_CASE_TEMPLATE_DEFINE("writers are the rows that store, in runs as long as can be", S,
                          writer_rows) {
  written_stack<S> f;
  for (auto const wanted : {strata::logits::all, strata::logits::last, strata::logits::none}) {
    std::vector<batch_entry> batch;
    std::vector<std::size_t> sequence_of;  // [batch rows]
    for (auto const id : f.ids) {
      batch.push_back({id, id.index == 2 ? 0 : 2, wanted});
      sequence_of.insert(sequence_of.end(), id.index == 2 ? 0 : 2,
                         static_cast<std::size_t>(id.index));
    }
    auto step = f.stack.begin(batch);
    REQUIRE(step.state().ok());
    for (layer_id l{0}; l.index < 6; ++l.index) {
      CAPTURE(l.index);
      auto const input = step.input_rows(l);
      for (bool const is_k : {true, false}) {
        std::vector<std::int32_t> expected;  // of the input rows
        std::size_t runs = 0;
        for (std::size_t i = 0; i < input.size(); ++i) {
          auto const& from = all_sources()[sequence_of[static_cast<std::size_t>(input[i])]];
          auto const source = (is_k ? from.k : from.v)[static_cast<std::size_t>(l.index)];
          if (!f.kinds[l].has_kv || source != l.index) continue;
          auto const at = static_cast<std::int32_t>(i);
          runs += expected.empty() || expected.back() != at - 1;
          expected.push_back(at);
        }
        CHECK((is_k ? rows_in(step.k_writers(l)) : rows_in(step.v_writers(l))) == expected);
        CHECK((is_k ? step.k_writers(l).size() : step.v_writers(l).size()) == runs);
      }
    }
  }
}
TEST_CASE_TEMPLATE_APPLY(writer_rows, writer_storages);

TEST_CASE_TEMPLATE_DEFINE("a layer's step changes the bytes of its leaders and no others", S,
                          writer_bytes) {
  written_stack<S> f;
  std::vector<batch_entry> batch;
  for (auto const id : f.ids) batch.push_back({id, 1 + id.index % 3, strata::logits::all});
  support::share_executor exec{3, true};
  support::workspace_memory workspace;
  for (int round = 0; round < 2; ++round) {  // the second grows sequences that hold tokens
    auto step = f.stack.begin(batch);
    REQUIRE(step.state().ok());
    for (layer_id l{0}; l.index < 6; ++l.index) {
      CAPTURE(l.index);
      auto const& kv = f.kinds[l].kv;
      auto const k_before = copied_bytes(f.memory.k()), v_before = copied_bytes(f.memory.v());
      std::vector<float> const heads(
          static_cast<std::size_t>(3 * step.num_rows() * kv.kv_heads * 8), unlike_the_pattern);
      for (auto const& run : step.k_writers(l)) run.store_all(heads.data());
      for (auto const& run : step.v_writers(l)) run.store_all(heads.data());
      if (f.kinds[l].has_kv) {
        std::vector<float> q(static_cast<std::size_t>(step.num_rows() * 4 * kv.k_dim), 0.5f);
        std::vector<float> out(static_cast<std::size_t>(step.num_rows() * 4 * kv.v_dim));
        strata::layer_queries<float> const queries{q.data(), out.data(), nullptr, 4};
        auto const bytes = *step.workspace_bytes(l, queries, 3);
        REQUIRE(step.attend(exec, l, queries, workspace.get(bytes)).ok());
      }
      std::set<std::size_t> k_expected, v_expected;
      for (std::size_t s = 0; s < batch.size(); ++s) {
        auto const id = batch[s].sequence;
        for (std::int32_t i = 0; i < batch[s].new_tokens && f.kinds[l].has_kv; ++i) {
          auto const token = f.stack.storage().length(id) + i;
          auto const at = static_cast<std::size_t>(l.index);
          if (all_sources()[s].k[at] == l.index)
            f.template note_bytes<typename S::k_codec>(k_expected, id, l, true, token);
          if (all_sources()[s].v[at] == l.index)
            f.template note_bytes<typename S::v_codec>(v_expected, id, l, false, token);
        }
      }
      CHECK(changed_places(k_before, f.memory.k()) == k_expected);
      CHECK(changed_places(v_before, f.memory.v()) == v_expected);
    }
    REQUIRE(step.commit().ok());
  }
  CHECK(f.memory.guards_intact());
}
TEST_CASE_TEMPLATE_APPLY(writer_bytes, writer_storages);

TEST_CASE("a row is stored where it says, row by row or all at once") {
  written_stack<strata::contiguous_storage<strata::f32_codec, strata::f16_codec>> f;
  auto step = f.stack.begin({f.ids[0], 3});
  std::vector<float> rows(36);  // [3, kv_heads 2, k_dim 6]
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<float>(i);
  auto const run = step.k_writers({3})[0];
  CHECK(run.num_rows() == 3);
  auto const& to = run.destination();  // for an append kernel of one's own
  CHECK(to.kv_heads * to.dim == 12);
  for (std::int32_t i = 0; i < 3; ++i) CHECK(to.token[to.rows[run.first_row() + i]] == i);
  auto const read = [&] {
    std::vector<float> all, row(6);
    for (std::int32_t t = 0; t < 3; ++t)
      for (std::int32_t h = 0; h < 2; ++h) {
        step.view({3})->load_k(0, h, t, row.data());
        all.insert(all.end(), row.begin(), row.end());
      }
    return all;
  };
  run.store_all(rows.data());
  CHECK(read() == rows);
  run.store(1, rows.data());
  std::copy(rows.begin(), rows.begin() + 12, rows.begin() + 12);
  CHECK(read() == rows);
}

// What lies in memory that is used again is another sequence's.
TEST_CASE_TEMPLATE_DEFINE("a row that was not stored is neither read nor committed", S,
                          writer_leaves_out) {
  written_stack<S> f;
  std::vector<float> const heads(15 * 2 * 8, 0.5f), q(15 * 4 * 8, 0.5f);
  std::vector<float> const untouched(15 * 4 * 8, -7);
  support::share_executor exec;
  support::workspace_memory workspace;
  for (auto const& id : f.ids) REQUIRE(support::grow_unwritten(f.stack, {id, 2}).ok());
  std::vector<batch_entry> batch;
  for (auto const id : f.ids) batch.push_back({id, 1 + id.index % 3});
  auto const attend = [&](auto& step, layer_id l, std::vector<float>& out) {
    strata::layer_queries<float> const queries{q.data(), out.data(), nullptr, 4};
    return step.attend(exec, l, queries, workspace.get(*step.workspace_bytes(l, queries, 1)));
  };
  for (layer_id left_out{0}; left_out.index < 6; ++left_out.index)
    for (bool const in_k : {true, false}) {
      CAPTURE(left_out.index);
      auto step = f.stack.begin(batch);
      std::int32_t rows = 0;
      // All but the last row of one layer.
      auto const store = [&](auto const& runs, bool but_last) {
        for (auto const& run : runs)
          for (std::int32_t i = 0; i < run.num_rows(); ++i)
            if (!but_last || &run != &runs.back() || i < run.num_rows() - 1)
              run.store(i, heads.data());
        if (!but_last) return;
        for (auto const& run : runs) rows += run.num_rows();
      };
      for (layer_id l{0}; l.index < 6; ++l.index) {
        store(step.k_writers(l), l == left_out && in_k);
        store(step.v_writers(l), l == left_out && !in_k);
      }
      if (rows == 0) continue;  // the layer without K/V
      strata::status const expected{strata::errc::rows_not_stored, left_out, 1, rows};
      for (layer_id l{0}; l.index < 6; ++l.index) {
        if (!f.kinds[l].has_kv) continue;
        bool reads = false;
        for (auto const& from : all_sources())
          reads |= (in_k ? from.k : from.v)[static_cast<std::size_t>(l.index)] == left_out.index;
        auto out = untouched;
        CHECK(attend(step, l, out) == (reads ? expected : strata::status{}));
        CHECK((out == untouched) == reads);
      }
      CHECK(step.commit() == expected);
      CHECK(step.commit() == expected);
      if (in_k)
        step.k_writers(left_out).back().store_all(heads.data());
      else
        step.v_writers(left_out).back().mark_stored();
      auto out = untouched;
      CHECK(attend(step, left_out, out).ok());
      // Dropped here: the next step begins with nothing stored.
    }
}
TEST_CASE_TEMPLATE_APPLY(writer_leaves_out, writer_storages);

TEST_CASE("what was stored counts for its own step") {
  written_stack<strata::contiguous_storage<strata::f32_codec, strata::f16_codec>> f;
  strata::status const expected{strata::errc::rows_not_stored, {0}, 2, 2};
  for (bool const commit : {false, true}) {
    auto step = f.stack.begin({f.ids[1], 2});
    support::mark_all_stored(step, 6);
    if (commit) CHECK(step.commit().ok());
  }
  auto const kept = [&] {
    auto step = f.stack.begin({f.ids[1], 2});
    return step.k_writers({0})[0];
  }();
  auto step = f.stack.begin({f.ids[1], 2});
  kept.mark_stored();
  CHECK(step.commit() == expected);
  support::mark_all_stored(step, 6);
  CHECK(step.commit().ok());
  CHECK(f.stack.storage().length(f.ids[1]) == 4);
}

static_assert(strata::storable<float, support::row_scaled_codec>);
static_assert(!strata::storable<strata::bfloat16, support::row_scaled_codec>);
static_assert(!strata::storable<int, strata::f32_codec>);

// Rows of 16 bits: bit for bit in a codec of their own, NaN included, else as their floats.
TEST_CASE_TEMPLATE("rows of 16 bits", T, strata::float16, strata::bfloat16) {
  written_stack<strata::contiguous_storage<strata::f32_codec, strata::f16_codec>> wide;
  written_stack<strata::contiguous_storage<strata::bf16_codec, strata::f16_codec>> narrow;
  std::vector<T> rows(3 * 2 * 6);
  std::vector<float> floats;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    rows[i].bits = static_cast<std::uint16_t>(0x3A31 + 77 * i);
    floats.push_back(to_float(rows[i]));
  }
  auto const check = [&](auto& f) {
    auto by_rows = f.stack.begin({f.ids[0], 3});
    auto const bytes_after = [&](auto const* from) {
      by_rows.k_writers({3})[0].store_all(from);
      for (std::int32_t i = 0; i < 3; ++i) by_rows.v_writers({3})[0].store(i, from + i * 8);
      return std::pair(copied_bytes(f.memory.k()), copied_bytes(f.memory.v()));
    };
    auto const as_they_are = bytes_after(rows.data());
    by_rows.k_writers({3})[0].store_all(std::vector<float>(36).data());
    CHECK(bytes_after(floats.data()) == as_they_are);
  };
  check(wide);
  check(narrow);
}

TEST_CASE("a codec copies its own elements, whatever they are") {
  std::vector<strata::bfloat16> row(8);
  for (std::size_t i = 0; i < 8; ++i) row[i].bits = static_cast<std::uint16_t>(0x7F80 + i);
  std::vector<strata::bfloat16> stored(8);
  strata::bf16_codec::encode(row.data(), 8, reinterpret_cast<std::byte*>(stored.data()), nullptr);
  CHECK(stored == row);  // infinity and NaN of which some are signalling
}
