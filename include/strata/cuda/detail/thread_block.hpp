// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A block of threads, as the bodies of kernels see it. On a device it is `device_block`, whose
// members are an instruction or two each; the tests have one that runs all threads of a block on
// the host, so that every kernel is computed where there is no device, from the source that a
// device runs. Bodies take their block by this interface and use nothing else of CUDA.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <utility>

#include <strata/cache/element.hpp>
#include <strata/config.hpp>

STRATA_NAMESPACE_BEGIN

namespace cuda::detail {

inline constexpr std::int32_t warp_size = 32;

/// 16 bytes, which a thread moves at once.
struct alignas(16) chunk {
  std::uint32_t words[4];
};

/// - `thread()`, `index()`, `count()`: of the block's threads, this block of the grid, blocks in it
/// - `memory()`: the block's shared memory, 16-byte aligned, not cleared
/// - `sync()` waits for all threads of the block, `sync_warp()` for those of the warp; what the
///   others wrote to shared memory before is then seen
/// - `let_next_begin()`: the launch after this one, if it was started as `overlapping`, may begin;
///   `wait_for_launch_before()`, of such a launch: waits until the one before has ended, and what it
///   wrote is seen
/// - `shuffle(x, lane)`: x of that lane; `shuffle_xor(x, mask)`: of the one whose number differs in
///   the bits of `mask`
/// - `any(condition)`: whether it holds in a lane of the warp
/// - `load(global)`: 16 bytes that nobody else reads soon
/// - `copy_async<N>(shared, global, wanted)`: N bytes, 4, 8 or 16, on their way into shared memory,
///   aligned to N on both sides; zeros where not wanted, and `global` is then not read. Copies up
///   to `commit_copies()` are a group; `wait_copies<N>()` waits for this thread's groups but the
///   last N. Others see the bytes after a sync.
/// - `load_matrices(out, row)`: four matrices of 8 x 8 numbers of 16 bits; lane 8 i + j names row j
///   of matrix i (ldmatrix .x4). `load_matrices_transposed` the same, each matrix transposed.
/// - `multiply_add<T>(c, a, b)`: c += a b, of 16 x 16 by 16 x 8 numbers of T (mma.m16n8k16); which
///   lane holds what: fragments.hpp
/// - `add_fragment(global, c)`: adds the 128 floats that the lanes of a warp hold to 128 floats of
///   global memory, 16-byte aligned, to which other blocks may add at the same time; in which order
///   they lie there is the block's own matter. `load_fragment(global, c)`, in another launch,
///   brings each where it came from.
/// - `widen_e4m3<T>(bytes)`: the float8_e4m3 in bits 0..7 and 8..15 as numbers of T in a word,
///   exact
/// - `pack<T>(low, high)`: two floats as numbers of T in a word
/// - `exp2(x)`, `reciprocal(x)`: off by some 2^-22 at most
template <class B>
concept thread_block =
    requires(B const& block, std::byte* shared, std::byte const* global, float x, bool condition,
             std::uint32_t (&four)[4], std::uint32_t const (&a)[4], std::uint32_t const (&b)[2],
             float (&c)[4], float const (&sum)[4], float* global_sums) {
      { block.thread() } -> std::same_as<std::int32_t>;
      { block.index() } -> std::same_as<std::int32_t>;
      { block.count() } -> std::same_as<std::int32_t>;
      { block.memory() } -> std::same_as<std::byte*>;
      block.sync();
      block.sync_warp();
      block.let_next_begin();
      block.wait_for_launch_before();
      { block.shuffle(x, 1) } -> std::same_as<float>;
      { block.shuffle_xor(x, 1) } -> std::same_as<float>;
      { block.any(condition) } -> std::same_as<bool>;
      { block.load(global) } -> std::same_as<chunk>;
      block.template copy_async<16>(shared, global, condition);
      block.commit_copies();
      block.template wait_copies<1>();
      block.load_matrices(four, shared);
      block.load_matrices_transposed(four, shared);
      block.template multiply_add<float16>(c, a, b);
      block.template multiply_add<bfloat16>(c, a, b);
      block.add_fragment(global_sums, sum);
      block.load_fragment(global_sums, c);
      { block.template widen_e4m3<bfloat16>(a[0]) } -> std::same_as<std::uint32_t>;
      { block.template pack<bfloat16>(x, x) } -> std::same_as<std::uint32_t>;
      { block.exp2(x) } -> std::same_as<float>;
      { block.reciprocal(x) } -> std::same_as<float>;
    };

template <thread_block B>
STRATA_DEVICE inline std::int32_t lane_of(B const& block) {
  return block.thread() % warp_size;
}
template <thread_block B>
STRATA_DEVICE inline std::int32_t warp_of(B const& block) {
  return block.thread() / warp_size;
}

/// body(0) .. body(Count - 1), one after the other without a loop: what is subscripted by the
/// number then lies in registers. Compilers unroll short loops alone.
template <std::int32_t Count, class Body>
STRATA_DEVICE inline void unrolled(Body&& body) {
  [&]<std::int32_t... Numbers>(std::integer_sequence<std::int32_t, Numbers...>) {
    (body(Numbers), ...);
  }(std::make_integer_sequence<std::int32_t, Count>{});
}

/// Whether it holds in a warp of the block. Every thread of a warp says the same;
/// shared: [warps] integers.
template <thread_block Block>
STRATA_DEVICE inline bool any_warp(Block const& block, std::byte* shared, std::int32_t warps,
                                   bool condition) {
  block.sync();  // what lies there has been read
  auto* const said = reinterpret_cast<std::int32_t*>(shared);
  if (lane_of(block) == 0) said[warp_of(block)] = condition;
  block.sync();
  std::int32_t any = 0;
  for (std::int32_t w = 0; w < warps; ++w) any |= said[w];
  block.sync();
  return any != 0;
}

}  // namespace cuda::detail

STRATA_NAMESPACE_END
