// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A block of threads on the host, for the bodies of kernels (cuda/detail/thread_block.hpp): what a
// thread may ask of it, computed as the PTX ISA has it, and a launch of many. How threads run and
// what shows where one is missing: simt_world.hpp.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>

#include <strata/cache/element.hpp>
#include <strata/cache/fp8_codec.hpp>
#include <strata/cuda/detail/thread_block.hpp>

#include "simt_world.hpp"

namespace simt {

/// A thread's view of its block.
class block {
 public:
  block(world& w, std::int32_t thread) : world_(&w), thread_(thread) {}

  std::int32_t thread() const noexcept { return thread_; }
  std::int32_t index() const noexcept { return world_->index(); }
  std::int32_t count() const noexcept { return world_->shape().blocks; }
  std::byte* memory() const noexcept { return world_->memory(); }
  void sync() const { world_->sync(); }
  void sync_warp() const {
    world_->meet(thread_, "sync_warp", nullptr, [](auto&) {});
  }
  void let_next_begin() const noexcept {}  // launches follow each other here
  void wait_for_launch_before() const noexcept {}

  template <class T>
  T shuffle_xor(T x, std::int32_t mask) const {
    return shuffle(x, thread_ % warp_size ^ mask);
  }
  template <class T>
  T shuffle(T x, std::int32_t from) const {
    struct argument {
      T in, out;
      std::int32_t from;
    } a{x, x, from};
    world_->meet(thread_, "shuffle", &a, [](world::slots const& slot) {
      auto const at = [&](int lane) -> argument& { return *static_cast<argument*>(slot[lane]); };
      for (int lane = 0; lane < warp_size; ++lane) at(lane).out = at(at(lane).from % warp_size).in;
    });
    return a.out;
  }
  bool any(bool condition) const {
    world_->meet(thread_, "any", &condition, [](world::slots const& slot) {
      bool const all =
          std::any_of(slot, slot + warp_size, [](void* s) { return *static_cast<bool*>(s); });
      for (auto* const s : slot) *static_cast<bool*>(s) = all;
    });
    return condition;
  }

  strata::cuda::detail::chunk load(std::byte const* global) const {
    check_aligned(global, 16, "load");
    strata::cuda::detail::chunk c;
    std::memcpy(&c, global, sizeof c);
    world_->moved().loaded_bytes += 16;
    return c;
  }
  template <int N>
  void copy_async(std::byte* shared, std::byte const* global, bool wanted) const {
    static_assert(N == 4 || N == 8 || N == 16);
    check_aligned(shared, N, "copy_async to");
    check_shared(shared, N, "copy_async");
    if (wanted) check_aligned(global, N, "copy_async from");
    world_->copy_async(thread_, {shared, global, N, wanted});
  }
  void commit_copies() const { world_->commit_copies(thread_); }
  template <int N>
  void wait_copies() const {
    world_->wait_copies(thread_, N);
  }

  void load_matrices(std::uint32_t (&out)[4], std::byte const* row) const {
    check_matrix_row(row);
    matrices a{row, out};
    world_->meet(thread_, "load_matrices", &a, [](auto& slot) { distribute(slot, false); });
  }
  void load_matrices_transposed(std::uint32_t (&out)[4], std::byte const* row) const {
    check_matrix_row(row);
    matrices a{row, out};
    world_->meet(thread_, "load_matrices_transposed", &a,
                 [](auto& slot) { distribute(slot, true); });
  }

  template <class T>
  void multiply_add(float (&c)[4], std::uint32_t const (&a)[4], std::uint32_t const (&b)[2]) const {
    operands o{c, a, b};
    world_->meet(thread_, "multiply_add", &o, [](auto& slot) { multiply<T>(slot); });
  }

  void add_fragment(float* global, float const (&c)[4]) const {
    check_aligned(global, 16, "add_fragment");
    for (int i = 0; i < 4; ++i) global[4 * (thread_ % warp_size) + i] += c[i];
    world_->moved().added_bytes += 16;
  }
  void load_fragment(float const* global, float (&c)[4]) const {
    check_aligned(global, 16, "load_fragment");
    std::memcpy(c, global + 4 * (thread_ % warp_size), sizeof c);
  }

  template <class T>
  std::uint32_t widen_e4m3(std::uint32_t bytes) const {
    auto const number = [&](int i) {
      return strata::to_float(strata::float8_e4m3{static_cast<std::uint8_t>(bytes >> 8 * i)});
    };
    return pack<T>(number(0), number(1));
  }
  template <class T>
  std::uint32_t pack(float low, float high) const {
    return strata::detail::narrow<T>(low).bits |
           static_cast<std::uint32_t>(strata::detail::narrow<T>(high).bits) << 16;
  }
  float exp2(float x) const { return std::exp2(x); }
  float reciprocal(float x) const { return 1 / x; }

 private:
  struct matrices {
    std::byte const* row;
    std::uint32_t* out;
  };
  struct operands {
    float* c;
    std::uint32_t const* a;
    std::uint32_t const* b;
  };

  static void check_aligned(void const* p, std::uintptr_t to, char const* what) {
    if (reinterpret_cast<std::uintptr_t>(p) % to != 0)
      throw std::logic_error(std::string(what) + ": not aligned to " + std::to_string(to));
  }
  void check_shared(void const* p, std::int64_t bytes, char const* what) const {
    auto const* const at = static_cast<std::byte const*>(p);
    if (at < memory() || at + bytes > memory() + world_->shape().shared_bytes)
      throw std::logic_error(std::string(what) + ": outside of shared memory");
  }
  void check_matrix_row(std::byte const* row) const {
    check_aligned(row, 16, "load_matrices");
    check_shared(row, 16, "load_matrices");
  }

  /// PTX ISA, ldmatrix: lane L gets, of matrix i, elements 2 (L % 4) and the next of row L / 4; or
  /// of column L / 4 where the matrix is transposed.
  static void distribute(world::slots const& slot, bool transposed) {
    auto const at = [&](int lane) -> matrices& { return *static_cast<matrices*>(slot[lane]); };
    for (int lane = 0; lane < warp_size; ++lane)
      for (int i = 0; i < 4; ++i) {
        std::uint16_t pair[2];
        for (int j = 0; j < 2; ++j) {
          int const row = transposed ? 2 * (lane % 4) + j : lane / 4;
          int const column = transposed ? lane / 4 : 2 * (lane % 4) + j;
          std::memcpy(&pair[j], at(8 * i + row).row + 2 * column, 2);
        }
        at(lane).out[i] = static_cast<std::uint32_t>(pair[0] | pair[1] << 16);
      }
  }

  template <class T>
  static double number(std::uint32_t word, int half) {
    return strata::to_float(T{static_cast<std::uint16_t>(word >> 16 * half)});
  }

  /// PTX ISA, mma.m16n8k16: figures of the fragments of A, B and C.
  template <class T>
  static void multiply(world::slots const& slot) {
    auto const at = [&](int lane) -> operands& { return *static_cast<operands*>(slot[lane]); };
    static thread_local double a[16][16], b[16][8];
    for (int lane = 0; lane < warp_size; ++lane)
      for (int half = 0; half < 2; ++half) {
        int const group = lane / 4, pair = 2 * (lane % 4) + half;
        for (int r = 0; r < 4; ++r)
          a[group + 8 * (r % 2)][pair + 8 * (r / 2)] = number<T>(at(lane).a[r], half);
        for (int r = 0; r < 2; ++r) b[pair + 8 * r][group] = number<T>(at(lane).b[r], half);
      }
    for (int lane = 0; lane < warp_size; ++lane)
      for (int r = 0; r < 4; ++r) {
        int const row = lane / 4 + 8 * (r / 2), column = 2 * (lane % 4) + r % 2;
        double sum = at(lane).c[r];
        for (int k = 0; k < 16; ++k) sum += a[row][k] * b[k][column];
        at(lane).c[r] = static_cast<float>(sum);
      }
  }

  world* world_;
  std::int32_t thread_;
};

/// Runs the body for every thread of every block, one block after the other.
template <class Body>
traffic launch(launch_shape const& shape, Body const& body, order o = order::ascending,
               arrival copies = arrival::at_wait) {
  traffic moved;
  for (std::int32_t i = 0; i < shape.blocks; ++i) {
    world w(shape, i, copies, moved);
    w.run([&](std::int32_t thread) { body(block(w, thread)); }, o);
  }
  return moved;
}

}  // namespace simt
