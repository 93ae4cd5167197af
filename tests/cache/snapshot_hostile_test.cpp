// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Files that are damaged, cut off, foreign or made up: they are refused by name, and change nothing.
#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include <strata/checksum.hpp>
#include <strata/map/identity_map.hpp>

#include "support/print.hpp"
#include "support/sanitized.hpp"
#include "support/saved_sequences.hpp"

using namespace support::snapshots;
using strata::errc;
using strata::layer_id;
using strata::sequence_id;

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

// No query that can come sees position 0 from here, but `truncate` may bring the sequence back to it.
TEST_CASE("a layer without a window has let go of nothing even where positions end") {
  auto to = make<small_type>(1);
  std::vector<std::int32_t> const positions = {0, 1, 0x7FFFFFFE};
  std::vector<std::int32_t> first(8);
  strata::imported_sequence const from{full(), 3, positions, first, false};
  REQUIRE(to.import_needs(from).ok());
  first[0] = 1;
  CHECK(to.import_needs(from).state() == strata::status{errc::window_let_go, {0}, 0, 1});
  first[0] = 0;
  first[1] = 2;  // layer 1 has one
  CHECK(to.import_needs(from).ok());
}

TEST_CASE("a sequence without tokens that is called approximate is no sequence of ours") {
  auto from = make<small_type>();
  sequence_id const ids[] = {*from.open(full())};
  auto file = saved(from, {ids[0]});
  auto const [begin, size] = sections_of(file)[1];
  file[begin + 16 + 4] = std::byte{1};
  auto const crc = strata::crc32c(std::span(file).subspan(begin, size));
  std::memcpy(&file[begin + size], &crc, 4);
  auto to = make<small_type>();
  sequence_id got[1];
  CHECK(strata::restore(to, file, {42}, got).state().code == errc::snapshot_damaged);
  CHECK(is_empty(to, 12 * 8, 12 * 8));
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

TEST_CASE("a snapshot of keys that RoPE turned by other frequencies is refused") {
  strata::layer_kind kind;
  kind.kv = {.kv_heads = 2, .k_dim = 5, .v_dim = 33};
  auto const with = [&](std::uint64_t frequencies) {
    kind.kv.rope.frequencies = frequencies;
    return *small_type::make(strata::kv_classes::uniform(4, kind), {4, 30, 4, 90, 90});
  };
  auto const plan = strata::make_plan(strata::identity_map(4), with(0).classes()).value();
  for (std::uint64_t const ours : {0, 1, 9})
    for (std::uint64_t const theirs : {0, 1, 9}) {
      auto from = with(theirs), to = with(ours);
      sequence_id got[1];
      auto const outcome = strata::restore(to, saved(from, {*from.open(plan)}), {42}, got).state();
      CHECK(outcome == (ours == theirs ? strata::status{}
                                       : strata::status{errc::snapshot_foreign, {0}, 6, 0}));
    }
}
