// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Sequences written down and taken up again: the same bytes in storages of another kind, and files
// that are damaged, cut off, foreign or made up, which change nothing.
#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <utility>
#include <vector>

#include <strata/cache/contiguous_storage.hpp>
#include <strata/cache/paged_storage.hpp>
#include <strata/cache/prefix_index.hpp>
#include <strata/cache/snapshot.hpp>
#include <strata/checksum.hpp>
#include <strata/map/table_map.hpp>

#include "support/print.hpp"
#include "support/sanitized.hpp"
#include "support/storage_types.hpp"

using strata::errc;
using strata::layer_id;
using strata::sequence_id;

namespace {

constexpr std::int32_t num_layers = 4, window = 7;

/// Two classes, one with a window, and a layer without K/V.
strata::kv_classes classes() {
  strata::layer_kind wide, narrow, linear;
  wide.kv = {.kv_heads = 2, .k_dim = 5, .v_dim = 33};
  narrow.kv = {.kv_heads = 1, .k_dim = 9, .v_dim = 2};
  narrow.window = window;
  linear.has_kv = false;
  strata::layer_kind const layers[] = {wide, narrow, linear, wide};
  return *strata::kv_classes::make(layers);
}
strata::route_plan plan_of(std::vector<std::int32_t> const& k, std::vector<std::int32_t> const& v) {
  return *make_plan(*strata::table_map::make(k), *strata::table_map::make(v), classes());
}
strata::route_plan full() { return plan_of({0, 1, 2, 3}, {0, 1, 2, 3}); }
strata::route_plan shared() { return plan_of({0, 1, 2, 0}, {0, 1, 2, 0}); }
strata::route_plan only_v() { return plan_of({0, 1, 2, 0}, {0, 1, 2, 3}); }

/// Scales for head-scaled codecs.
std::vector<float> const scales = {.5F, .25F, 2, 1, 4, 8, .125F, 1};
template <class S>
strata::head_scales scales_of() {
  strata::head_scales given;
  if (strata::head_scaled_codec<typename S::k_codec>) given.k = scales;
  if (strata::head_scaled_codec<typename S::v_codec>) given.v = scales;
  return given;
}

template <class S>
S make(std::int32_t block_size = 4, std::int32_t tensors = 12) {
  support::storage_room const room{.max_sequences = 4,
                                   .max_tokens = 30,
                                   .k_tensors = tensors,
                                   .v_tensors = tensors,
                                   .block_size = block_size};
  return support::make_storage<S>(classes(), room, {}, scales_of<S>());
}

/// Grows a sequence, and writes bytes of its own to every new row and scale.
template <class S>
void grow(S& storage, sequence_id id, std::int32_t tokens, std::int32_t gap = 0) {
  auto const first = storage.length(id);
  strata::growth const g{id, tokens, storage.next_position(id) + gap};
  REQUIRE(storage.reserve({&g, 1}).ok());
  for (layer_id l{0}; l.index < num_layers; ++l.index)
    for (bool const is_k : {true, false}) {
      auto const& plan = storage.plan(id);
      if (!(is_k ? plan[l].k : plan[l].v).stored) continue;
      auto const blocks = is_k ? storage.k_blocks(l) : storage.v_blocks(l);
      auto const row = is_k ? storage.k_row(id, l) : storage.v_row(id, l);
      auto const& kv = storage.classes()[l].kv;
      for (std::int32_t h = 0; h < kv.kv_heads; ++h)
        for (auto t = first; t < first + tokens; ++t) {
          auto const fill = [&](std::byte* to, std::int64_t size, std::int32_t salt) {
            for (std::int64_t i = 0; i < size; ++i)
              to[i] =
                  static_cast<std::byte>(l.index * 61 + t * 7 + h * 19 + i + salt + id.index * 3);
          };
          auto const sizes =
              is_k ? std::pair{S::k_codec::row_bytes(kv.k_dim), S::k_codec::scale_bytes(kv.k_dim)}
                   : std::pair{S::v_codec::row_bytes(kv.v_dim), S::v_codec::scale_bytes(kv.v_dim)};
          fill(blocks.at(row, h, t), sizes.first, is_k);
          bool const once = is_k ? strata::head_scaled_codec<typename S::k_codec>
                                 : strata::head_scaled_codec<typename S::v_codec>;
          auto* const own = blocks.scales_at(row, h, t);
          if (once)
            std::memcpy(own, &scales[static_cast<std::size_t>(l.index * 2 + h)], sizeof(float));
          else if (own != nullptr)
            fill(own, sizes.second, 100 + is_k);
        }
    }
  storage.commit();
}

/// All that a sequence holds and a query may still see, byte by byte.
template <class S>
std::vector<std::byte> contents(S& storage, sequence_id id) {
  std::vector<std::byte> all;
  auto const next = storage.next_position(id);
  for (layer_id l{0}; l.index < num_layers; ++l.index)
    for (bool const is_k : {true, false}) {
      auto const& plan = storage.plan(id);
      if (!(is_k ? plan[l].k : plan[l].v).stored) continue;
      auto const blocks = is_k ? storage.k_blocks(l) : storage.v_blocks(l);
      auto const row = is_k ? storage.k_row(id, l) : storage.v_row(id, l);
      auto const& kind = storage.classes()[l];
      for (std::int32_t t = 0; t < storage.length(id); ++t) {
        if (next - storage.token_positions(id)[static_cast<std::size_t>(t)] >= kind.window)
          continue;
        for (std::int32_t h = 0; h < kind.kv.kv_heads; ++h) {
          auto const row_bytes =
              is_k ? S::k_codec::row_bytes(kind.kv.k_dim) : S::v_codec::row_bytes(kind.kv.v_dim);
          auto const scale_bytes = is_k ? S::k_codec::scale_bytes(kind.kv.k_dim)
                                        : S::v_codec::scale_bytes(kind.kv.v_dim);
          auto const* const at = blocks.at(row, h, t);
          all.insert(all.end(), at, at + row_bytes);
          auto const* const own = blocks.scales_at(row, h, t);
          if (own != nullptr) all.insert(all.end(), own, own + scale_bytes);
        }
      }
    }
  return all;
}

template <class S>
std::vector<std::byte> saved(S const& storage, std::vector<sequence_id> const& ids) {
  std::vector<std::byte> file(static_cast<std::size_t>(*strata::snapshot_bytes(storage, ids)));
  strata::memory_sink sink(file);
  REQUIRE(strata::save(storage, ids, {42}, sink).ok());
  return file;
}

template <class S>
bool same_sequence(S& a, sequence_id in_a, auto& b, sequence_id in_b) {
  auto const positions = a.token_positions(in_a);
  return a.plan(in_a) == b.plan(in_b) && a.length(in_a) == b.length(in_b) &&
         a.next_position(in_a) == b.next_position(in_b) &&
         std::ranges::equal(positions, b.token_positions(in_b)) &&
         a.approximate(in_a) == b.approximate(in_b) && contents(a, in_a) == contents(b, in_b);
}

/// A storage that nothing may have changed.
template <class S>
bool is_empty(S const& storage, std::int32_t k_blocks, std::int32_t v_blocks) {
  for (std::int32_t i = 0; i < 4; ++i)
    if (storage.check_idle({i}).ok()) return false;
  return storage.free_k_blocks() == k_blocks && storage.free_v_blocks() == v_blocks &&
         storage.positions().data == nullptr;
}

using pairs = std::tuple<
    std::pair<strata::paged_storage<strata::f32_codec>, strata::paged_storage<strata::f32_codec>>,
    std::pair<strata::contiguous_storage<strata::bf16_codec, strata::int8_codec>,
              strata::paged_storage<strata::bf16_codec, strata::int8_codec>>,
    std::pair<strata::paged_storage<strata::fp8_codec, strata::q8_0_codec>,
              strata::contiguous_storage<strata::fp8_codec, strata::q8_0_codec>>,
    std::pair<strata::paged_storage<strata::int8_codec, strata::fp8_codec>,
              strata::paged_storage<strata::int8_codec, strata::fp8_codec>>>;

}  // namespace

TEST_CASE_TEMPLATE_DEFINE("sequences come back as they were, in blocks of any length", Pair, back) {
  using from_type = typename Pair::first_type;
  using to_type = typename Pair::second_type;
  auto from = make<from_type>();
  std::vector<sequence_id> ids;
  for (auto const& plan : {full(), shared(), only_v(), full()}) ids.push_back(*from.open(plan));
  grow(from, ids[0], 9);
  grow(from, ids[1], 5);
  grow(from, ids[0], 8);
  grow(from, ids[2], 3, 2);  // a gap
  grow(from, ids[2], 14, 1);
  // The fourth has no tokens.
  auto const file = saved(from, ids);
  for (auto const block_size : {4, 3, 7, 30}) {
    auto to = make<to_type>(block_size);
    std::vector<sequence_id> got(4);
    auto const count = strata::restore(to, file, {42}, got);
    REQUIRE(count.ok());
    CHECK(*count == 4);
    for (std::size_t i = 0; i < 4; ++i) CHECK(same_sequence(from, ids[i], to, got[i]));
    // They go on like any other, and what is saved again is the same file.
    if (block_size == 4 && support::is_paged<from_type> == support::is_paged<to_type>)
      CHECK(saved(to, got) == file);
    grow(to, got[1], 3);
    for (auto const id : got) CHECK(to.close(id).ok());
    auto const fresh = make<to_type>(block_size);
    CHECK(is_empty(to, fresh.free_k_blocks(), fresh.free_v_blocks()));
  }
}
TEST_CASE_TEMPLATE_APPLY(back, pairs);

TEST_CASE("a snapshot under a smaller plan says that it is approximate") {
  using storage_type = strata::paged_storage<strata::f32_codec>;
  auto from = make<storage_type>();
  std::vector<sequence_id> const ids = {*from.open(full()), *from.open(shared())};
  for (auto const id : ids) grow(from, id, 10);
  auto const file = saved(from, ids);
  auto to = make<storage_type>();
  std::vector<sequence_id> got(2);
  CHECK(strata::restore_subset(to, file, {42}, full(), got).state() ==
        strata::status{errc::not_a_subset, {3}});
  CHECK(is_empty(to, 12 * 8, 12 * 8));
  REQUIRE(strata::restore_subset(to, file, {42}, shared(), got).ok());
  CHECK(to.approximate(got[0]));
  CHECK(!to.approximate(got[1]));  // it was its own plan
  REQUIRE(from.shrink(ids[0], shared()).ok());
  for (std::size_t i = 0; i < 2; ++i) CHECK(same_sequence(from, ids[i], to, got[i]));
  // What is approximate stays so when it is saved again.
  auto again = make<storage_type>();
  REQUIRE(strata::restore(again, saved(to, got), {42}, got).ok());
  CHECK(again.approximate(got[0]));
}

// Tokens from 24 on are there of the layer with a window; a block of 16 that holds them begins at 16.
TEST_CASE("in longer blocks a sequence has no more tokens than it brought") {
  using storage_type = strata::paged_storage<strata::f32_codec>;
  auto from = make<storage_type>(4);
  sequence_id const ids[] = {*from.open(full())};
  grow(from, ids[0], 30);
  auto to = make<storage_type>(16);
  sequence_id got[1];
  REQUIRE(strata::restore(to, saved(from, {ids[0]}), {42}, got).ok());
  CHECK(to.first_token(got[0], {1}, strata::tensor::k) == 24);
  auto const refused = to.truncate(got[0], 29);
  CHECK(refused == from.truncate(ids[0], 29));
  CHECK(refused == strata::status{errc::window_let_go, {1}, 23, 24});
  CHECK(to.for_bytes(got[0], {1}, strata::tensor::k, 16, 30, [](auto) {}).code ==
        errc::value_too_small);
  // Saved again, it says the same; nor is a block learnt that is not whole.
  CHECK(saved(to, {got[0]}) == saved(from, {ids[0]}));
  auto index = *strata::prefix_index<storage_type>::make(to, {8, 1});
  std::vector<std::int32_t> const tokens(30);
  CHECK(*index.insert(to, got[0], tokens, {}) == 1);
  CHECK(index.find(tokens, full(), {}).num_tokens == 0);
  CHECK(to.truncate(got[0], 0).ok());
  CHECK(to.first_token(got[0], {1}, strata::tensor::k) == 0);
}

namespace {

using small_type = strata::paged_storage<strata::bf16_codec, strata::int8_codec>;

/// A file of two sequences, one with a gap.
std::vector<std::byte> small_file() {
  auto from = make<small_type>();
  std::vector<sequence_id> const ids = {*from.open(only_v()), *from.open(full())};
  grow(from, ids[0], 10);
  grow(from, ids[1], 3, 4);
  return saved(from, ids);
}

/// Where each section begins, and its bytes without the checksum at its end.
std::vector<std::pair<std::size_t, std::size_t>> sections_of(std::vector<std::byte> const& file) {
  std::vector<std::pair<std::size_t, std::size_t>> sections;
  for (std::size_t at = 0; at < file.size();) {
    std::uint64_t body = 0;
    std::memcpy(&body, &file[at + 8], 8);
    auto const size = 16 + static_cast<std::size_t>((body + 7) / 8 * 8);
    sections.push_back({at, size});
    at += size + 8;
  }
  return sections;
}

}  // namespace

TEST_CASE("damage of any byte is found, and changes nothing") {
  auto const file = small_file();
  auto to = make<small_type>();
  std::vector<sequence_id> got(2);
  REQUIRE(sections_of(file).size() == 1 + 2 + 5 + 6);
  auto const step = static_cast<std::size_t>(support::case_step());
  for (std::size_t i = 0; i < file.size(); i += step) {
    auto damaged = file;
    damaged[i] ^= std::byte{1};
    CAPTURE(i);
    auto const outcome = strata::restore(to, damaged, {42}, got).state();
    bool const told = outcome.code == errc::snapshot_damaged ||
                      outcome.code == errc::snapshot_truncated;  // where a length grew
    REQUIRE(told);
  }
  for (std::size_t size = 0; size < file.size(); size += step) {
    auto const outcome = strata::restore(to, std::span(file).first(size), {42}, got).state();
    CAPTURE(size);
    REQUIRE((outcome.code == errc::snapshot_truncated || outcome.code == errc::snapshot_damaged));
  }
  auto longer = file;
  longer.resize(file.size() + 8);
  CHECK(strata::restore(to, longer, {42}, got).state().code == errc::snapshot_damaged);
  CHECK(is_empty(to, 12 * 8, 12 * 8));
  CHECK(strata::restore(to, file, {42}, got).ok());
}

// A file whose checksums are right can still lie.
TEST_CASE("numbers that are made up are refused, or harmless") {
  auto const file = small_file();
  auto to = make<small_type>();
  std::vector<sequence_id> got(2);
  std::int32_t refused = 0, taken = 0;
  auto const sections = sections_of(file);
  for (auto const& [begin, size] : sections) {
    // The tensors' own bytes may be anything.
    auto const end = begin + (file[begin] == std::byte{3} ? 24 : size);
    for (auto at = begin; at + 4 <= end; at += 4)
      for (auto const value : {0x00000000U, 0x00000001U, 0x00000007U, 0x0000001EU, 0x0000001FU,
                               0x7FFFFFFFU, 0x80000000U, 0xFFFFFFFFU, 0xFFFFFFF8U}) {
        auto hostile = file;
        std::memcpy(&hostile[at], &value, 4);
        auto const crc = strata::crc32c(std::span(hostile).subspan(begin, size));
        std::memcpy(&hostile[begin + size], &crc, 4);
        auto const outcome = strata::restore(to, hostile, {42}, got);
        if (!outcome.ok()) {
          ++refused;
        } else {
          ++taken;
          // What was taken up is what the file says, all of it.
          REQUIRE(saved(to, {got.begin(), got.begin() + *outcome}) == hostile);
          for (std::int32_t i = 0; i < *outcome; ++i)
            REQUIRE(to.close(got[static_cast<std::size_t>(i)]).ok());
        }
        REQUIRE(is_empty(to, 12 * 8, 12 * 8));
      }
  }
  CHECK(refused > 500);
  CHECK(taken >
        20);  // other sources within the class, other positions, a note that it is approximate
}

TEST_CASE("a section with more in it than belongs there is refused") {
  auto const file = small_file();
  auto to = make<small_type>();
  std::vector<sequence_id> got(2);
  for (auto const& [begin, size] : sections_of(file)) {
    std::vector<std::byte> section(file.begin() + static_cast<std::ptrdiff_t>(begin),
                                   file.begin() + static_cast<std::ptrdiff_t>(begin + size));
    std::uint64_t body = 0;
    std::memcpy(&body, &section[8], 8);
    body = size - 16 + 8;
    std::memcpy(&section[8], &body, 8);
    section.resize(size + 8);
    auto const crc = strata::crc32c(section);
    section.resize(size + 16);
    std::memcpy(&section[size + 8], &crc, 4);
    auto longer = file;
    auto const at = longer.begin() + static_cast<std::ptrdiff_t>(begin);
    longer.erase(at, at + static_cast<std::ptrdiff_t>(size + 8));
    longer.insert(longer.begin() + static_cast<std::ptrdiff_t>(begin), section.begin(),
                  section.end());
    auto const code = strata::restore(to, longer, {42}, got).state().code;
    CHECK((code == errc::snapshot_damaged || code == errc::snapshot_foreign));
  }
  CHECK(is_empty(to, 12 * 8, 12 * 8));
}

TEST_CASE("what is imported must be a sequence of the storage's") {
  auto to = make<small_type>();
  std::vector<std::int32_t> positions = {0, 1, 5, 6, 7, 8, 9, 10, 11, 12}, first(8);
  strata::imported_sequence from{full(), 10, positions, first, false};
  auto const code = [&] { return to.import_needs(from).state(); };
  REQUIRE(code().ok());
  positions[4] = 6;
  CHECK(code() == strata::status{errc::position_not_ahead, strata::no_layer, 6, 7});
  positions[4] = 7;
  positions[0] = -1;
  CHECK(code().code == errc::position_not_ahead);
  positions[0] = 0;
  positions[9] = 0x7FFFFFFF;
  CHECK(code().code == errc::position_too_large);
  positions[9] = 12;
  from.positions = from.positions.first(9);
  CHECK(code().code == errc::too_few_tokens);
  from.positions = positions;
  // Of layer 1 the next query, at 13, sees positions from 7 on: token 4.
  first[1] = 4;
  CHECK(code().ok());
  first[1] = 5;
  CHECK(code() == strata::status{errc::window_let_go, {1}, 4, 5});
  first[1] = -1;
  CHECK(code().code == errc::window_let_go);
  first[1] = 0;
  first[4] = 1;  // V of layer 0, which has no window
  CHECK(code() == strata::status{errc::window_let_go, {0}, 0, 1});
  first[4] = 0;
  from.first_tokens = from.first_tokens.first(7);
  CHECK(code().code == errc::layer_count_mismatch);
  from.first_tokens = {};
  from.length = -1;
  CHECK(code().code == errc::bad_new_tokens);
  from.length = 31;
  CHECK(code().code == errc::sequence_full);
  CHECK(is_empty(to, 12 * 8, 12 * 8));
}

TEST_CASE("bytes are there of what is stored and held") {
  auto storage = make<small_type>();
  auto const id = *storage.open(only_v());
  grow(storage, id, 17);
  auto const code = [&](layer_id l, strata::tensor which, std::int32_t begin, std::int32_t end) {
    return storage.for_bytes(id, l, which, begin, end, [](auto) {});
  };
  CHECK(code({0}, strata::tensor::k, 0, 17).ok());
  CHECK(code({0}, strata::tensor::k, 0, 18) == strata::status{errc::value_too_large, {0}, 18, 17});
  CHECK(code({0}, strata::tensor::k, -1, 1).code == errc::value_too_small);
  CHECK(code({0}, strata::tensor::k, 5, 4).code == errc::value_too_small);
  CHECK(code({3}, strata::tensor::k, 0, 1) == strata::status{errc::layer_stores_nothing, {3}});
  CHECK(code({3}, strata::tensor::v_scales, 0, 1).ok());
  CHECK(code({4}, strata::tensor::k, 0, 1).code == errc::layer_out_of_range);
  CHECK(code({-1}, strata::tensor::k, 0, 1).code == errc::layer_out_of_range);
  CHECK(code({1}, strata::tensor::k, 7, 17) == strata::status{errc::value_too_small, {1}, 7, 8});
  CHECK(storage.for_bytes({2}, {0}, strata::tensor::k, 0, 0, [](auto) {}).code ==
        errc::unknown_sequence);
}

TEST_CASE("scales of a head that are not the storage's own are refused") {
  using storage_type = strata::paged_storage<strata::fp8_codec>;
  auto from = make<storage_type>(), to = make<storage_type>();
  sequence_id const ids[] = {*from.open(full())};
  grow(from, ids[0], 5);
  auto file = saved(from, {ids[0]});
  auto const [begin, size] = sections_of(file)[2];  // K of layer 0: five tokens of ten bytes
  auto const scale = 3.0F;
  std::memcpy(&file[begin + 24 + 5 * 2 * 5], &scale, sizeof(scale));
  auto const crc = strata::crc32c(std::span(file).subspan(begin, size));
  std::memcpy(&file[begin + size], &crc, 4);
  sequence_id got[1];
  CHECK(strata::restore(to, file, {42}, got).state() ==
        strata::status{errc::snapshot_foreign, {0}, 7, 0});
  CHECK(strata::restore(to, saved(from, {ids[0]}), {42}, got).ok());
}

TEST_CASE("a snapshot of something else is refused by name") {
  auto const file = small_file();
  std::vector<sequence_id> got(2);
  auto const part = [&](auto& storage, std::uint64_t model = 42) {
    auto const outcome = strata::restore(storage, file, {model}, got).state();
    CHECK(outcome.code == errc::snapshot_foreign);
    return std::pair{outcome.value, outcome.layer.index};
  };
  auto same = make<small_type>();
  CHECK(part(same, 41) == std::pair<std::int64_t, std::int32_t>{3, -1});
  auto other_codec = make<strata::paged_storage<strata::bf16_codec>>();
  CHECK(part(other_codec) == std::pair<std::int64_t, std::int32_t>{4, -1});
  strata::layer_kind kind;
  kind.kv = {.kv_heads = 2, .k_dim = 5, .v_dim = 33};
  auto fewer = *small_type::make(strata::kv_classes::uniform(3, kind), {4, 30, 4, 90, 90});
  CHECK(part(fewer) == std::pair<std::int64_t, std::int32_t>{5, -1});
  auto alike = *small_type::make(strata::kv_classes::uniform(4, kind), {4, 30, 4, 90, 90});
  CHECK(part(alike) == std::pair<std::int64_t, std::int32_t>{6, 1});
  auto version = file;
  version[16 + 8] = std::byte{2};
  auto const size = sections_of(file)[0].second;
  auto const crc = strata::crc32c(std::span(version).first(size));
  std::memcpy(&version[size], &crc, 4);
  CHECK(strata::restore(same, version, {42}, got).state() ==
        strata::status{errc::snapshot_other_version, strata::no_layer, 2, 1});
}

TEST_CASE("too little room is told before anything changes") {
  auto const file = small_file();
  std::vector<sequence_id> got(2);
  // Ten tokens of K of 2 layers and V of 3, three of 3 and 3, in blocks of four: the window of 7
  // needs tokens from 4 on.
  auto tight = *small_type::make(classes(), {4, 30, 4, 3 + 2 + 3, 3 + 2 + 3 + 3});
  REQUIRE(strata::restore(tight, file, {42}, got).ok());
  CHECK(tight.free_k_blocks() == 0);
  CHECK(tight.free_v_blocks() == 0);
  auto const refusal = [&](strata::paged_options const& options, std::size_t ids = 2) {
    auto storage = *small_type::make(classes(), options);
    auto const outcome = strata::restore(storage, file, {42}, std::span(got).first(ids)).state();
    CHECK(is_empty(storage, options.k_blocks, options.v_blocks));
    return outcome;
  };
  CHECK(refusal({4, 30, 4, 7, 11}) ==
        strata::status{errc::out_of_k_blocks, strata::no_layer, 1, 7});
  CHECK(refusal({4, 30, 4, 8, 9}) == strata::status{errc::out_of_v_blocks, strata::no_layer, 2, 9});
  CHECK(refusal({4, 9, 4, 8, 11}) == strata::status{errc::sequence_full, strata::no_layer, 10, 9});
  CHECK(refusal({1, 30, 4, 8, 11}).code == errc::too_many_sequences);
  CHECK(refusal({4, 30, 4, 8, 11}, 1) ==
        strata::status{errc::value_too_large, strata::no_layer, 2, 1});
}

TEST_CASE("what cannot be saved") {
  auto storage = make<small_type>();
  auto const id = *storage.open(full());
  sequence_id const unknown[] = {id, {3}};
  CHECK(strata::snapshot_bytes(storage, unknown).state().code == errc::unknown_sequence);
  sequence_id const ids[] = {id};
  std::vector<std::byte> memory(static_cast<std::size_t>(*strata::snapshot_bytes(storage, ids)) -
                                1);
  strata::memory_sink sink(memory);
  CHECK(strata::save(storage, ids, {}, sink).code == errc::memory_too_small);
  strata::growth const g{id, 2};
  REQUIRE(storage.reserve({&g, 1}).ok());
  CHECK(strata::snapshot_bytes(storage, ids).state().code == errc::step_in_progress);
  storage.abandon();
}
