// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Byte pair encoding of one piece of text: of all neighbours that may merge, the pair of the lowest
// rank does so first, the leftmost of several. A piece of n bytes costs O(n log n).
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "failure.hpp"

namespace lm {

/// Two tokens that become a third. Their place in a list is their rank.
struct merge_rule {
  std::int32_t left = 0, right = 0, result = 0;
};

namespace detail {

/// From two tokens to the rank of their merge: open addressing, at most half full.
class merge_table {
 public:
  explicit merge_table(std::span<merge_rule const> rules)
      : slots_(std::bit_ceil(2 * rules.size() + 2)) {
    for (std::size_t rank = 0; rank < rules.size(); ++rank) {
      auto& slot = slots_[place(rules[rank].left, rules[rank].right)];
      if (slot.rank < 0)
        slot = {rules[rank].left, rules[rank].right, rules[rank].result,
                static_cast<std::int32_t>(rank)};
    }
  }

  struct entry {
    std::int32_t left = -1, right = -1, result = -1;
    std::int32_t rank = -1;  ///< -1: they do not merge
  };
  entry const& find(std::int32_t left, std::int32_t right) const noexcept {
    return slots_[place(left, right)];
  }

 private:
  std::size_t place(std::int32_t left, std::int32_t right) const noexcept {
    auto const key =
        std::uint64_t{static_cast<std::uint32_t>(left)} << 32 | static_cast<std::uint32_t>(right);
    auto const mask = slots_.size() - 1;
    auto at = static_cast<std::size_t>((key * 0x9E37'79B9'7F4A'7C15u) >> 32) & mask;
    while (slots_[at].rank >= 0 && (slots_[at].left != left || slots_[at].right != right))
      at = (at + 1) & mask;
    return at;
  }

  std::vector<entry> slots_;
};

}  // namespace detail

/// Memory that calls of bpe::append share, one after the other.
class bpe_room {
  friend class bpe;
  struct symbol {
    std::int32_t token, before, after;  // token -1: merged into the one before; before, after: -1
  };
  struct candidate {
    std::int32_t rank, at, left, right, result;
    bool operator>(candidate const& other) const noexcept {
      return rank != other.rank ? rank > other.rank : at > other.at;
    }
  };
  std::vector<symbol> symbols;
  std::vector<candidate> heap;
};

/// The merges of a vocabulary. Threads: const calls at the same time, each with its own room.
class bpe {
 public:
  /// bytes: the token of each byte, -1 where there is none. Tokens are from 0 on.
  bpe(std::array<std::int32_t, 256> const& bytes, std::span<merge_rule const> rules)
      : bytes_(bytes), merges_(rules) {}

  std::array<std::int32_t, 256> const& bytes() const noexcept { return bytes_; }

  /// Appends the tokens of a piece. Bytes without a token are left out, as the package `tokenizers`
  /// does where a model has no unk_token.
  void append(std::string_view piece, bpe_room& room, std::vector<std::int32_t>& tokens) const {
    begin(piece, room);
    while (!room.heap.empty()) {
      std::pop_heap(room.heap.begin(), room.heap.end(), std::greater{});
      auto const next = room.heap.back();
      room.heap.pop_back();
      merge(next, room);
    }
    for (auto const& symbol : room.symbols)
      if (symbol.token >= 0) tokens.push_back(symbol.token);
  }

 private:
  void begin(std::string_view piece, bpe_room& room) const {
    // Places are 32 bits wide.
    if (piece.size() >= (std::size_t{1} << 31))
      throw failure("a piece of text has " + std::to_string(piece.size()) +
                    " bytes; the tokenizer takes less than 2147483648");
    room.symbols.clear();
    for (auto const byte : piece) {
      auto const token = bytes_[static_cast<unsigned char>(byte)];
      if (token < 0) continue;
      auto const at = static_cast<std::int32_t>(room.symbols.size());
      room.symbols.push_back({token, at - 1, at + 1});
    }
    if (!room.symbols.empty()) room.symbols.back().after = -1;
    room.heap.clear();
    for (std::size_t at = 0; at + 1 < room.symbols.size(); ++at)
      consider(static_cast<std::int32_t>(at), room, false);
    std::make_heap(room.heap.begin(), room.heap.end(), std::greater{});
  }

  /// Whether the symbol at a place may merge with the one after it.
  void consider(std::int32_t at, bpe_room& room, bool sift) const {
    auto const& left = room.symbols[static_cast<std::size_t>(at)];
    auto const& right = room.symbols[static_cast<std::size_t>(left.after)];
    auto const& found = merges_.find(left.token, right.token);
    if (found.rank < 0) return;
    room.heap.push_back({found.rank, at, left.token, right.token, found.result});
    if (sift) std::push_heap(room.heap.begin(), room.heap.end(), std::greater{});
  }

  /// Does what the heap remembers, unless one of the two has merged otherwise in the meantime.
  void merge(bpe_room::candidate const& c, bpe_room& room) const {
    auto& left = room.symbols[static_cast<std::size_t>(c.at)];
    if (left.token != c.left || left.after < 0) return;
    auto& right = room.symbols[static_cast<std::size_t>(left.after)];
    if (right.token != c.right) return;
    left.token = c.result;
    left.after = right.after;
    right.token = -1;
    if (left.after >= 0) {
      room.symbols[static_cast<std::size_t>(left.after)].before = c.at;
      consider(c.at, room, true);
    }
    if (left.before >= 0) consider(left.before, room, true);
  }

  std::array<std::int32_t, 256> bytes_;
  detail::merge_table merges_;
};

}  // namespace lm
