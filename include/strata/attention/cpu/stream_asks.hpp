// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What streamed attention asks for while it works on a tile: the lines of the next.
//
// A core reads memory at its full pace while it computes, if it never waits to be told what to read
// (one thread of a Zen 3: 6.2 ns a line beside 4.9 ns of multiply-adds, where the lines alone take
// 5.5). What matters is the order, which is that of memory (each head's rows for themselves: 1.4 times
// as long); that each line is asked for once, at an even pace (a tile's in one go: most requests are
// dropped, 1.5 times); and that it is to come into level 2 (level 1 holds less than two tiles: 1.7
// times on a Zen 4, on a Zen 3 it makes no difference).
#pragma once

#include <cstddef>
#include <cstdint>

#include <strata/attention/cpu/lanes.hpp>
#include <strata/config.hpp>

STRATA_NAMESPACE_BEGIN

namespace cpu {
inline namespace STRATA_CPU_ISA {
namespace detail {

/// Keys that are scored before their softmax is taken up, at most. K and V of 64 tokens are 32 KB at
/// head_dim 128 and 16 bits; larger tiles gain nothing, smaller ones pay more for each softmax.
inline constexpr std::int32_t stream_keys = 64;

/// How many keys before it is read a row is asked for once more, into level 1; 0: not at all. An
/// Emerald Rapids drops requests while it has too many under way, however even their pace. With 8, a
/// thread of it reads a line in 4.5 ns where it took 4.8 (f16, 1 query head on each of 8 KV heads;
/// plain reads 3.8). 4 do as well beside 4 query heads, but not with 32 KV heads; 16 gain less. Keys of
/// queries that are spread are left out: 0.99 of the time. A Zen 3 drops none and loses by it.
inline constexpr std::int32_t asked_again = has_half_vectors ? 8 : 0;

/// Asks for lines, one after the other. Loops keep a copy of it in registers.
class stream_asks {
 public:
  /// lines[count], in so many passes over the tile.
  stream_asks(std::byte const* const* lines, std::uint32_t count, std::int32_t passes) noexcept
      : lines_(lines), pass_(whole_line * count / static_cast<std::uint32_t>(passes)) {}
  /// Those from `first` on, each `apart` bytes behind the one before.
  stream_asks(std::byte const* first, std::int64_t apart, std::uint32_t count,
              std::int32_t passes) noexcept
      : stream_asks(nullptr, count, passes) {
    first_ = first;
    apart_ = apart;
  }

  /// The pass that begins calls `line` at most so often, once at least. If that is more often than
  /// there are lines, some are asked for more than once, which costs little.
  void begin_pass(std::int32_t calls) noexcept {
    step_ = pass_ / static_cast<std::uint32_t>(calls);
  }

  [[gnu::always_inline]] void line() noexcept { ask_for<2>(next()); }
  [[gnu::always_inline]] std::byte const* next() noexcept {
    auto const at = at_ / whole_line;
    at_ += step_;
    return lines_ == nullptr ? first_ + at * apart_ : lines_[at];
  }

 private:
  static constexpr std::uint32_t whole_line = 1 << 16;
  std::byte const* const* lines_;
  std::byte const* first_ = nullptr;
  std::int64_t apart_ = 0;
  std::uint32_t pass_, at_ = 0, step_ = 0;  // in parts of a line
};

/// Bytes from each of tokens[keys] to the next; 0 where that differs.
inline std::int64_t even_stride(std::byte const* const* tokens, std::int32_t keys) noexcept {
  auto const stride = tokens[1] - tokens[0];
  bool even = true;
  for (std::int32_t i = 2; i < keys; ++i) even &= tokens[i] - tokens[i - 1] == stride;
  return even ? stride : 0;
}

/// How the rows of the heads that are taken up lie in memory, in bytes.
struct stream_layout {
  std::int32_t first = 0, heads = 1;  // taken up
  std::int64_t step = 0, row = 0;     // from one head of a token to the next; of a head
  bool adjoin = false;                // the rows of a token's heads lie side by side
};

/// The lines of the tile after that of one head. Of heads that adjoin each has its share of the rows
/// of all.
class stream_lines {
 public:
  /// keys: of a tile.
  void take_up(stream_layout const& layout, std::int32_t keys) noexcept {
    layout_ = layout;
    keys_ = keys;
    bytes_ = layout.adjoin ? layout.step : layout.row;
    apart_ = 64 * ceil_divide<std::int64_t>(bytes_, 64 * row_lines);
    count_ = keys * bytes_ / apart_;
  }

  /// tokens[keys]: where head 0 of each has its row; stride: their even_stride; head: the one
  /// at work. Tokens that adjoin need no list: with one a call takes 1.02 to 1.05 times as long.
  void find(std::byte const* const* tokens, std::int64_t stride, std::int32_t head) noexcept {
    auto const token_bytes = layout_.adjoin ? layout_.heads * bytes_ : bytes_;
    auto const offset = (layout_.adjoin ? layout_.first : head) * layout_.step;
    auto const begin = layout_.adjoin ? (head - layout_.first) * keys_ * bytes_ : 0;
    one_run_ = count_ == 0 || stride == token_bytes;
    if (one_run_)
      first_ = tokens[0] + offset + begin;
    else
      list(tokens + begin / token_bytes, begin % token_bytes, offset, token_bytes);
  }

  stream_asks ask(std::int32_t passes) const noexcept {
    auto const count = static_cast<std::uint32_t>(count_);
    return one_run_ ? stream_asks(first_, apart_, count, passes)
                    : stream_asks(lines_, count, passes);
  }

 private:
  /// Of longer rows, 1 KB, not all lines are asked for: the next is what a core reads by itself.
  static constexpr std::int32_t row_lines = 16;

  /// From byte `at` of the first token on.
  void list(std::byte const* const* token, std::int64_t at, std::int64_t offset,
            std::int64_t token_bytes) noexcept {
    auto** line = lines_;
    for (auto** const end = lines_ + count_; line < end; ++token) {
      auto const* const run = *token + offset;  // of tokens that adjoin
      auto const wanted = at + (end - line) * apart_;
      auto run_bytes = token_bytes;
      for (; run_bytes < wanted && token[1] == token[0] + token_bytes; ++token)
        run_bytes += token_bytes;
      auto const rest = larger<std::int64_t>(smaller(run_bytes, wanted) - at, 0);
      auto const lines = ceil_divide(rest, apart_);
      for (std::int64_t i = 0; i < lines; ++i) line[i] = run + at + i * apart_;  // four at a time
      line += lines;
      at += lines * apart_ - run_bytes;  // a line may reach into the next run
    }
  }

  bool one_run_ = false;  // whether the lines are those from first_ on, or lines_
  std::byte const* first_ = nullptr;
  std::byte const* lines_[stream_keys * row_lines];
  stream_layout layout_;
  std::int32_t keys_ = stream_keys;
  std::int64_t bytes_ = 0, apart_ = 64, count_ = 0;  // of a head; from line to line; of the lines
};

}  // namespace detail
}  // namespace STRATA_CPU_ISA
}  // namespace cpu

STRATA_NAMESPACE_END
