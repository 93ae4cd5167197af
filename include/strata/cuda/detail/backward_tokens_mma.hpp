// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Backward, the launch whose blocks own keys: dK and dV of 128 tokens, 16 to a warp, from all pairs
// that see one of them, 32 at a time in ascending order. Scores are those of keys by queries, so
// that their fragments are the left operands of dV += P d_out and dK += dS Q.
//
// At head_dim 128 the sums of a lane are 128 registers: 250 in all, no spills, and 199 at head_dim
// 64 (nvcc 13.0). K, V and two stages of pairs take 106 KB of shared memory. Q and d_out are read
// once for every 128 tokens: 16 KB for each 2^21 multiply-adds, some 1650 cycles at 1270 of them a
// cycle, so 132 multiprocessors ask level 2 for 1.3 KB a cycle, of some 3 that it gives.
//
// Results are rounded products as in forward: P and dS / scale to T. A token one of whose sums is
// not finite is computed again by plain multiply-adds, where weights of 0 count nothing whatever
// they meet. So a token's gradients are finite wherever those of the plain formula are, unless
// products of finite numbers overflow.
#pragma once

#include <cstddef>
#include <cstdint>

#include <strata/config.hpp>
#include <strata/cuda/detail/backward_sums_mma.hpp>
#include <strata/cuda/detail/backward_tiles.hpp>

// g++ takes the bounds of arrays in templates for conversions.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsign-conversion"

STRATA_NAMESPACE_BEGIN

namespace cuda::detail {

/// What the threads of a block know of its tokens. It lies in shared memory: registers are for
/// sums.
struct token_notes {
  row_block tokens;
  key_range keys;            // those of them that the call reads
  std::int32_t pairs;        // of the sequence
  std::int32_t first, last;  // positions of the keys; none: nobody sees one
  sight_bounds const* bounds;
  std::int32_t positions[backward_rows];  // of each token; least_int32: not read
  struct {
    std::int32_t first, last;
    bool all;  // 16 are read
  } of_warps[backward_warps];
};

/// Sums: whether dQ is summed up on the way.
template <class T, class View, std::int32_t Dim, bool Sums>
struct backward_tokens_memory {
  using owned = kv_tiles<T, View, Dim, backward_rows>;
  using stage = pair_tiles<Dim, backward_stage_rows>;
  static constexpr std::int32_t scores_offset = owned::bytes + backward_stages * stage::bytes;
  static constexpr std::int32_t notes_offset = scores_offset + (Sums ? score_tile::bytes : 0);
  static constexpr std::int32_t bytes() {
    return notes_offset + static_cast<std::int32_t>(sizeof(token_notes));
  }
};

/// 16 tokens in one warp.
template <class T, class View, std::int32_t Dim, bool Sums>
class backward_tokens_warp {
 public:
  using memory = backward_tokens_memory<T, View, Dim, Sums>;
  using stage_layout = typename memory::stage;

  /// tile: where K and V of the block lie.
  template <thread_block Block>
  STRATA_DEVICE backward_tokens_warp(Block const& block, backward_args<T, View> const& args,
                                     token_notes const& notes, std::byte const* tile)
      : args_(args),
        notes_(notes),
        scorer_(args.rule.fragments),
        tile_(tile + warp_of(block) * fragment_rows * row_tile_pitch<Dim>) {}

  /// Takes 32 pairs, which lie in `stage` and have these bounds; dS / scale goes to `scores`, too.
  template <thread_block Block>
  STRATA_DEVICE void take(Block const& block, std::byte const* stage, sight_bounds const& bounds,
                          std::byte* scores) {
    auto const& own = notes_.of_warps[warp_of(block)];
    if (!bounds.any_sees(own.first, own.last)) return;
    float weights[backward_fragments][4], d_scores[backward_fragments][4];
    multiply_rows<Dim, T>(block, tile_, stage, weights);
    multiply_rows<Dim, T>(block, tile_ + memory::owned::v_offset,
                          stage + stage_layout::d_out_offset, d_scores);
    differentiate(block, reinterpret_cast<pair_facts const*>(stage + stage_layout::facts_offset),
                  own.all && bounds.all_see(own.first, own.last), weights, d_scores);
    if constexpr (Sums)
      score_tile::store<T>(block, d_scores, scores, warp_of(block) * fragment_rows);
    add_rows<Dim, T>(block, weights, stage + stage_layout::d_out_offset, dv_);
    add_rows<Dim, T>(block, d_scores, stage, dk_);
  }

  template <thread_block Block>
  STRATA_DEVICE void finish(Block const& block) {
    auto const first = warp_of(block) * fragment_rows;
    bool odd[2];
    unrolled<2>([&](std::int32_t i) {
      auto const row = first + fragment_row(lane_of(block), 2 * i);
      bool const dk_finite = row_finite(block, dk_, i), dv_finite = row_finite(block, dv_, i);
      bool const finite = dk_finite && dv_finite;
      odd[i] = row < notes_.tokens.pairs && !finite;
      if (row < notes_.tokens.pairs && finite) store(block, i, notes_.tokens.first_pair + row);
    });
    for_each_odd_row(block, odd, [&](std::int32_t row) {
      token_gradient<ceil_divide(Dim, chunk_elements * warp_size)>(
          block, args_, notes_.tokens.seq, notes_.tokens.kv_head,
          notes_.tokens.first_pair + first + row);
    });
  }

 private:
  /// Dot products become P, and d_out . V becomes dS / scale.
  template <thread_block Block>
  STRATA_DEVICE void differentiate(Block const& block, pair_facts const* facts, bool all,
                                   float (&weights)[backward_fragments][4],
                                   float (&d_scores)[backward_fragments][4]) const {
    unrolled<2 * backward_fragments>([&](std::int32_t j) {
      auto const n = j / 2, c = j % 2;
      auto const of_pair = facts[n * fragment_columns + fragment_column(lane_of(block), c)];
      unrolled<2>([&](std::int32_t i) {
        auto &weight = weights[n][2 * i + c], &d_score = d_scores[n][2 * i + c];
        pair_gradient const g(block, scorer_, of_pair, weight, d_score);
        auto const token = warp_of(block) * fragment_rows + fragment_row(lane_of(block), 2 * i);
        bool const seen = all || of_pair.sight.sees(notes_.positions[token]);
        weight = seen ? g.weight : 0.f;
        d_score = seen ? g.d_score : 0.f;
      });
    });
  }

  template <thread_block Block>
  STRATA_DEVICE void store(Block const& block, std::int32_t i, std::int32_t token) const {
    auto const& grad = args_.grad;
    if (grad.dk != nullptr)
      store(block, i, dk_, args_.rule.scale, grad.add_k,
            gradient_row(grad.dk, grad.dk_stride, notes_.tokens.seq, notes_.tokens.kv_head, token));
    if (grad.dv != nullptr)
      store(block, i, dv_, 1, grad.add_v,
            gradient_row(grad.dv, grad.dv_stride, notes_.tokens.seq, notes_.tokens.kv_head, token));
  }
  template <thread_block Block>
  STRATA_DEVICE static void store(Block const& block, std::int32_t i,
                                  float const (&sums)[Dim / fragment_columns][4], float scale,
                                  bool add, float* to) {
    unrolled<Dim / fragment_columns>([&](std::int32_t j) {
      for (std::int32_t c = 0; c < 2; ++c) {
        float* const at = to + j * fragment_columns + fragment_column(lane_of(block), c);
        *at = (add ? *at : 0.f) + sums[j][2 * i + c] * scale;
      }
    });
  }

  backward_args<T, View> const& args_;
  token_notes const& notes_;
  fragment_scorer scorer_;
  std::byte const* tile_;  // K of the warp's tokens; V lies v_offset behind it
  float dk_[Dim / fragment_columns][4] = {}, dv_[Dim / fragment_columns][4] = {};
};

/// The first tile of 32 pairs, from `tile` on, one of which sees a key between these positions.
template <thread_block Block>
STRATA_DEVICE inline std::int32_t next_seen(Block const& block, sight_bounds const* bounds,
                                            std::int32_t tile, std::int32_t count,
                                            std::int32_t first, std::int32_t last) {
  if (tile >= count || bounds[tile].any_sees(first, last)) return smaller(tile, count);
  for (; tile < count; tile += warp_size) {
    auto const own = tile + lane_of(block);
    auto found = own < count && bounds[own].any_sees(first, last) ? own : count;
    for (std::int32_t mask = 1; mask < warp_size; mask *= 2)
      found = smaller(found, block.shuffle_xor(found, mask));
    if (found < count) return found;
  }
  return count;
}

/// All pairs that see one of the block's keys, past its warps. `shared` is laid out as
/// backward_tokens_memory says.
template <class T, class View, std::int32_t Dim, bool Sums, thread_block Block>
STRATA_DEVICE inline void walk_pairs(Block const& block, backward_args<T, View> const& args,
                                     token_notes const& notes, std::byte* shared,
                                     backward_tokens_warp<T, View, Dim, Sums>& warp) {
  using memory = backward_tokens_memory<T, View, Dim, Sums>;
  using layout = typename memory::stage;
  constexpr std::int32_t rows = backward_stage_rows / backward_warps;
  auto const stage = [&](std::int32_t i) {
    return shared + memory::owned::bytes + i % backward_stages * layout::bytes;
  };
  auto const count = ceil_divide(notes.pairs, pairs_of_tile);
  auto const next_after = [&](std::int32_t tile) {
    return next_seen(block, notes.bounds, tile + 1, count, notes.first, notes.last);
  };
  auto const send = [&](std::int32_t i, std::int32_t tile) {
    if (tile < count)
      copy_pairs<Dim, layout, rows>(block, args, notes.tokens.seq, notes.tokens.kv_head,
                                    tile * pairs_of_tile, notes.pairs, warp_of(block) * rows,
                                    stage(i));
    block.commit_copies();
  };
  auto tile = next_after(-1);
  send(0, tile);
  for (std::int32_t i = 0; tile < count; ++i) {
    auto const next = next_after(tile);
    block.template wait_copies<0>();
    block.sync();  // all copies are seen, and the stage before is no longer read
    send(i + 1, next);
    auto* const scores = shared + memory::scores_offset;
    auto const bounds = notes.bounds[tile];
    warp.take(block, stage(i), bounds, scores);
    if constexpr (Sums) {
      auto const seen = [&](std::int32_t w) {
        return bounds.any_sees(notes.of_warps[w].first, notes.of_warps[w].last);
      };
      block.sync();  // all warps have stored their scores
      add_to_queries<Dim, T>(
          block, scores, shared, seen,
          args.sums_of(notes.tokens.seq, notes.tokens.kv_head, tile * pairs_of_tile));
    }
    tile = next;
  }
  block.template wait_copies<0>();
}

/// Notes down what there is to do for a row block of tokens.
template <class T, class View, thread_block Block>
STRATA_DEVICE inline void note_tokens(Block const& block, backward_args<T, View> const& args,
                                      row_block const& tokens, token_notes& notes) {
  block.sync();  // those before have been read
  if (block.thread() == 0) {
    auto keys = strata::detail::keys_of(args.q, args.view, tokens.seq, tokens.kv_head);
    keys.begin = larger(keys.begin, tokens.first_pair);
    keys.end = smaller(keys.end, tokens.first_pair + tokens.pairs);
    bool const any = keys.begin < keys.end;
    notes.tokens = tokens;
    notes.keys = keys;
    notes.pairs = args.pairs(tokens.seq);
    notes.first = any ? keys.position(keys.begin) : most_int32;
    notes.last = any ? keys.position(keys.end - 1) : least_int32;
    notes.bounds = args.bounds_of(tokens.seq, tokens.kv_head);
  }
  block.sync();
  auto const& keys = notes.keys;
  if (auto const i = block.thread(); i < backward_rows) {
    auto const token = tokens.first_pair + i;
    notes.positions[i] =
        token >= keys.begin && token < keys.end ? keys.position(token) : least_int32;
  }
  if (auto const w = block.thread(); w < backward_warps) {
    auto const first = tokens.first_pair + w * fragment_rows;
    auto const from = larger(first, keys.begin), to = smaller(first + fragment_rows, keys.end);
    notes.of_warps[w] = {from < to ? keys.position(from) : most_int32,
                         from < to ? keys.position(to - 1) : least_int32,
                         to - from == fragment_rows};
  }
  block.sync();
}

/// The launch that computes dK and dV by matrix products, after backward_prepare_body. 256 threads.
/// Row blocks of tokens are taken in turn: the first ones, which most queries see, first.
template <std::int32_t Dim, bool Sums, class T, class View, thread_block Block>
STRATA_DEVICE inline void backward_tokens_mma_body(Block const& block,
                                                   backward_args<T, View> const& args) {
  using line = schedule<Block, T, View, token_line>;
  using memory = backward_tokens_memory<T, View, Dim, Sums>;
  auto* const shared = block.memory() + schedule_bytes(backward_threads);
  auto& notes = *reinterpret_cast<token_notes*>(shared + memory::notes_offset);
  auto const split = backward_split(backward_rows);
  line(block, args.q, args.view, split, backward_threads, block.memory())
      .for_each_row_block([&](row_block const& tokens) {
        note_tokens(block, args, tokens, notes);
        tile_copier<typename memory::owned, View, fragment_rows> copier(
            block, args.view, notes.keys, tokens.seq, tokens.kv_head,
            warp_of(block) * fragment_rows);
        copier.find(tokens.first_pair);
        copier.copy(block, shared);  // arrives with the first stage
        backward_tokens_warp<T, View, Dim, Sums> warp(block, args, notes, shared);
        walk_pairs(block, args, notes, shared, warp);
        warp.finish(block);
      });
}

}  // namespace cuda::detail

STRATA_NAMESPACE_END

#pragma GCC diagnostic pop
