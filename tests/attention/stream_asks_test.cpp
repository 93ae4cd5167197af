// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Which lines streamed attention asks for, against those in which the rows of the next tile lie.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <strata/attention/cpu/stream_asks.hpp>
#include <strata/attention/cpu/stream_blocks.hpp>
#include <strata/attention/cpu/stream_scores.hpp>
#include <strata/attention/cpu/stream_spread.hpp>
#include <strata/attention/cpu/stream_values.hpp>
#include <strata/cache/codec.hpp>
#include <strata/cache/int8_codec.hpp>

namespace {

using namespace strata::cpu::detail;  // what the kernels see

/// Rows of the next tile, in memory that nobody reads: tokens in blocks, those with odd numbers
/// before the others.
struct imagined_tile {
  std::int32_t heads, block, keys;
  std::int64_t row;
  std::vector<std::byte> memory;
  std::vector<std::byte const*> tokens;  // [keys]

  imagined_tile(std::int32_t head_count, std::int32_t block_size, std::int64_t row_bytes,
                std::int32_t key_count = stream_keys)
      : heads(head_count),
        block(block_size),
        keys(key_count),
        row(row_bytes),
        memory(static_cast<std::size_t>(keys * heads * row)) {
    auto const blocks = keys / block;
    for (std::int32_t t = 0; t < keys; ++t) {
      auto const b = t / block, place = blocks == 1 ? 0 : b % 2 * (blocks / 2) + b / 2;
      tokens.push_back(memory.data() + (place * block + t % block) * heads * row);
    }
  }

  std::int64_t line_of(std::byte const* at) const { return (at - memory.data()) / 64; }

  /// What the heads [first, last) ask for in turn, as numbers of lines. listed: whether tokens that
  /// adjoin are treated as those that do not.
  std::vector<std::int64_t> asked(std::int32_t first, std::int32_t last, bool adjoin,
                                  std::int32_t passes, std::int32_t calls_of_line,
                                  bool listed = false) const {
    std::vector<std::int64_t> all;
    for (auto head = first; head < last; ++head) {
      stream_lines lines;
      lines.take_up({first, last - first, row, row, adjoin}, keys);
      lines.find(tokens.data(), listed ? 0 : even_stride(tokens.data(), keys), head);
      auto asks = lines.ask(passes);
      auto const calls = static_cast<std::int32_t>(row) * calls_of_line;
      for (std::int32_t p = 0; p < passes; ++p) {
        asks.begin_pass(calls);
        for (std::int32_t i = 0; i < calls; ++i) {
          auto const line = line_of(asks.next());
          if (all.empty() || all.back() != line) all.push_back(line);
        }
      }
    }
    return all;
  }
  /// The lines of all tokens' heads [first, last), in the order of tokens.
  std::vector<std::int64_t> held(std::int32_t first, std::int32_t last) const {
    std::vector<std::int64_t> all;
    for (auto const* token : tokens)
      for (auto at = first * row; at < last * row; ++at)
        if (auto const line = line_of(token + at); all.empty() || all.back() != line)
          all.push_back(line);
    return all;
  }
};

template <std::int32_t Keys, class Reader>
bool asks_for_all(std::int32_t dim) {
  auto const bytes = ceil_divide(dim, Reader::elements) * Reader::bytes;
  return score_pace<Keys, Reader>::calls(dim) * 64 >= Keys * bytes;
}

/// How many lines of `bytes` are asked for by the scores of queries that are spread.
template <class Codec>
std::ptrdiff_t asked_by_spread(std::int32_t dim, std::int32_t pairs, std::int32_t count,
                               std::int64_t bytes) {
  using reader = row_reader<Codec>;
  auto const slots = static_cast<std::size_t>(slots_of<reader>(dim));
  std::vector<std::byte> row(static_cast<std::size_t>(Codec::row_bytes(dim))), lines(4096);
  std::vector<std::byte const*> rows(stream_keys, row.data()), at;
  for (auto const& line : lines) at.push_back(&line);
  std::vector<float> q(32 * slots), copy(spread_keys * slots), scores(32 * stream_keys);
  stream_asks asks(at.data(), static_cast<std::uint32_t>(bytes / 64), 1);
  score_spread_tile<reader>({rows.data(), rows.data(), dim}, asks, count, pairs, q.data(),
                            static_cast<std::int64_t>(slots), copy.data(), scores.data());
  return asks.next() - lines.data();
}
/// Within a line of all there are: of steps that are parts of a line some may be left at the end.
template <class Codec>
void check_asks_of_spread() {
  for (std::int32_t const dim : {32, 64, 80, 128, 256})
    for (std::int32_t const pairs : {5, 8, 9, 13, 32})
      for (std::int32_t const count : {1, 3, 16, 17, 31, 32, 64}) {
        CAPTURE(dim);
        CAPTURE(pairs);
        CAPTURE(count);
        auto const bytes = stream_keys * Codec::row_bytes(dim);
        auto const asked = asked_by_spread<Codec>(dim, pairs, count, bytes);
        CHECK(asked <= bytes / 64);
        if (count % spread_keys == 0) CHECK(asked >= bytes / 64 - 1);
      }
}

/// Whether scores and sums of `count` keys end their passes within the lines that they were given.
template <std::int32_t Pairs, class Codec>
bool ends_in_time(std::int32_t dim, std::int32_t count) {
  using reader = row_reader<Codec>;
  auto const slots = static_cast<std::size_t>(slots_of<reader>(dim));
  auto const bytes = Codec::row_bytes(dim);
  std::vector<std::byte> row(static_cast<std::size_t>(bytes)),
      lines(static_cast<std::size_t>(bytes + 2));
  std::vector<std::byte const*> rows(stream_keys + asked_again, row.data()), at;
  for (auto const& line : lines) at.push_back(&line);  // two more than are to be asked for
  std::vector<float> q(Pairs * slots), scores(Pairs * stream_keys), kept(Pairs, 1.0f);
  stream_rows const tile{rows.data(), rows.data(), dim};  // these codecs read no scales
  auto const stride = static_cast<std::int64_t>(slots);
  stream_asks keys(at.data(), static_cast<std::uint32_t>(bytes), 1), values = keys, spread = keys;
  score_pairs<Pairs, reader>(tile, keys, count, q.data(), stride, scores.data());
  weigh_pairs<Pairs, reader>(tile, values, count, scores.data(), kept.data(), q.data(), stride);
  std::vector<float> copy(spread_keys * slots), queries(stream_pairs * slots);
  score_spread_tile<reader>(tile, spread, count, Pairs, queries.data(), stride, copy.data(),
                            scores.data());
  return keys.next() != at.back() && values.next() != at.back() && spread.next() != at.back();
}

}  // namespace

TEST_CASE("asks: heads that adjoin ask for every line of the next tile once, as memory has them") {
  for (std::int32_t const keys : {stream_keys, stream_keys / 2})
    for (std::int32_t const heads : {1, 2, 3, 5, 8, 16})
      for (std::int32_t const block : {64, 32, 16})
        for (std::int64_t const row : {16, 32, 36, 64, 128, 160, 256, 1024})
          for (std::int32_t const passes : {1, 2, 3, 8}) {
            if (block > keys || block * heads * row % 64 != 0)
              continue;  // blocks begin with a line
            CAPTURE(keys);
            CAPTURE(heads);
            CAPTURE(block);
            CAPTURE(row);
            CAPTURE(passes);
            imagined_tile const tile(heads, block, row, keys);
            CHECK(tile.asked(0, heads, true, passes, 1) == tile.held(0, heads));
            CHECK(tile.asked(0, heads, true, passes, 3) == tile.held(0, heads));
            CHECK(tile.asked(0, heads, true, passes, 1, true) == tile.held(0, heads));
          }
}

TEST_CASE("asks: a tile of less than a line asks for that line") {
  imagined_tile const tile(3, 32, 1, 32);
  for (bool const listed : {false, true})
    for (bool const adjoin : {false, true})
      for (auto const line : tile.asked(0, 3, adjoin, 1, 1, listed))
        CHECK((line == 0 || line == 1));
}

TEST_CASE("asks: rows that lie apart are asked for within themselves, however short they are") {
  for (std::int64_t const row : {16, 20, 34, 40, 48, 64, 68, 96, 200}) {
    CAPTURE(row);
    imagined_tile const tile(3, 64, row);
    stream_lines lines;
    lines.take_up({1, 1, row, row, false}, stream_keys);
    lines.find(tile.tokens.data(), even_stride(tile.tokens.data(), stream_keys), 1);
    auto asks = lines.ask(1);
    auto const calls = static_cast<std::int32_t>(stream_keys * row / 64);
    asks.begin_pass(calls);
    for (std::int32_t i = 0; i < calls; ++i) {
      auto const at = asks.next() - tile.memory.data();
      CHECK(at % (3 * row) / row == 1);  // of head 1
    }
  }
}

TEST_CASE("asks: a head that asks for itself, or some of the heads, ask for no line of others") {
  imagined_tile const tile(6, 16, 128);
  CHECK(tile.asked(2, 3, false, 1, 1) == tile.held(2, 3));
  CHECK(tile.asked(2, 5, true, 2, 1) == tile.held(2, 5));
  CHECK(tile.asked(5, 6, true, 1, 2) == tile.held(5, 6));
}

TEST_CASE("asks: of rows of more than 1 KB some lines, all of their own") {
  imagined_tile const tile(2, 64, 1600);
  auto const asked = tile.asked(0, 2, true, 1, 1), held = tile.held(0, 2);
  CHECK(asked.size() >= held.size() / 2);
  CHECK(std::ranges::is_sorted(asked));
  CHECK(std::ranges::includes(held, asked));
  CHECK(tile.asked(0, 2, true, 1, 1, true) == asked);
}

TEST_CASE("asks: tokens are evenly apart or not") {
  CHECK(even_stride(imagined_tile(3, 64, 32).tokens.data(), stream_keys) == 96);
  CHECK(even_stride(imagined_tile(3, 16, 32).tokens.data(), stream_keys) == 0);
  auto last_repeated = imagined_tile(3, 64, 32).tokens;
  last_repeated.back() = *(last_repeated.end() - 2);
  CHECK(even_stride(last_repeated.data(), stream_keys) == 0);
}

TEST_CASE("asks: scores of any number of keys ask as often as the keys have lines") {
  for (std::int32_t const dim : {1, 8, 40, 64, 80, 96, 128, 256, 576}) {
    CAPTURE(dim);
    CHECK(asks_for_all<1, row_reader<strata::f16_codec>>(dim));
    CHECK(asks_for_all<2, row_reader<strata::f16_codec>>(dim));
    CHECK(asks_for_all<3, row_reader<strata::f16_codec>>(dim));
    CHECK(asks_for_all<5, row_reader<strata::bf16_codec>>(dim));
    CHECK(asks_for_all<8, row_reader<strata::f32_codec>>(dim));
    CHECK(asks_for_all<5, row_reader<strata::int8_codec>>(dim));
    CHECK(asks_for_all<16, row_reader<strata::int8_codec>>(dim));
  }
}

TEST_CASE("asks: a tile of any number of keys asks for no more lines than there are") {
  for (std::int32_t const dim : {8, 24, 40, 64, 80, 128})
    for (std::int32_t count = 1; count <= stream_keys; ++count) {
      CAPTURE(dim);
      CAPTURE(count);
      CHECK(ends_in_time<1, strata::f16_codec>(dim, count));
      CHECK(ends_in_time<2, strata::f16_codec>(dim, count));
      CHECK(ends_in_time<3, strata::f16_codec>(dim, count));
      CHECK(ends_in_time<4, strata::f16_codec>(dim, count));
      CHECK(ends_in_time<1, strata::f32_codec>(dim, count));
      CHECK(ends_in_time<3, strata::bf16_codec>(dim, count));
    }
}

TEST_CASE("asks: scores of queries that are spread ask for all lines, and for no more") {
  check_asks_of_spread<strata::f32_codec>();
  check_asks_of_spread<strata::f16_codec>();
  check_asks_of_spread<strata::bf16_codec>();
  check_asks_of_spread<strata::int8_codec>();
  check_asks_of_spread<strata::q8_0_codec>();
}
