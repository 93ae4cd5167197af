// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The block of threads that a device runs (thread_block.hpp says what its members mean). sm_80 and
// later.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <strata/config.hpp>
#include <strata/cuda/detail/thread_block.hpp>

STRATA_NAMESPACE_BEGIN

namespace cuda::detail {

struct device_block {
  __device__ std::int32_t thread() const noexcept { return static_cast<std::int32_t>(threadIdx.x); }
  __device__ std::int32_t index() const noexcept { return static_cast<std::int32_t>(blockIdx.x); }
  __device__ std::int32_t count() const noexcept { return static_cast<std::int32_t>(gridDim.x); }

  __device__ std::byte* memory() const noexcept {
    extern __shared__ chunk dynamic_shared_memory[];
    return reinterpret_cast<std::byte*>(dynamic_shared_memory);
  }

  __device__ void sync() const noexcept { __syncthreads(); }
  __device__ void sync_warp() const noexcept { __syncwarp(); }

  __device__ void let_next_begin() const noexcept {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
  }
  __device__ void wait_for_launch_before() const noexcept {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
  }

  template <class T>
  __device__ T shuffle(T x, std::int32_t lane) const noexcept {
    return __shfl_sync(all_lanes, x, lane);
  }
  template <class T>
  __device__ T shuffle_xor(T x, std::int32_t mask) const noexcept {
    return __shfl_xor_sync(all_lanes, x, mask);
  }
  __device__ bool any(bool condition) const noexcept {
    return __any_sync(all_lanes, condition) != 0;
  }

  __device__ chunk load(std::byte const* global) const noexcept {
    chunk c;
    asm volatile("ld.global.nc.L1::no_allocate.v4.b32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(c.words[0]), "=r"(c.words[1]), "=r"(c.words[2]), "=r"(c.words[3])
                 : "l"(global));
    return c;
  }

  /// 16 bytes go past level 1 (.cg), which K and V, read once, would only sweep.
  template <int N>
  __device__ void copy_async(std::byte* shared, std::byte const* global,
                             bool wanted) const noexcept {
    static_assert(N == 4 || N == 8 || N == 16);
    std::int32_t const bytes = wanted ? N : 0;  // the rest of N is filled with zeros
    if constexpr (N == 16)
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address(shared)),
                   "l"(global), "r"(bytes)
                   : "memory");
    else
      asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(address(shared)),
                   "l"(global), "n"(N), "r"(bytes)
                   : "memory");
  }
  __device__ void commit_copies() const noexcept { asm volatile("cp.async.commit_group;"); }
  template <int N>
  __device__ void wait_copies() const noexcept {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
  }

  __device__ void load_matrices(std::uint32_t (&out)[4], std::byte const* row) const noexcept {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(address(row))
                 : "memory");
  }
  __device__ void load_matrices_transposed(std::uint32_t (&out)[4],
                                           std::byte const* row) const noexcept {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(address(row))
                 : "memory");
  }

  template <class T>
  __device__ void multiply_add(float (&c)[4], std::uint32_t const (&a)[4],
                               std::uint32_t const (&b)[2]) const noexcept {
    static_assert(half_element<T>);
    if constexpr (std::is_same_v<T, bfloat16>)
      asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
          "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
          : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    else
      asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
          "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
          : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }

  /// sm_90 adds four floats at once, which then lie side by side; before, what 32 lanes add at once
  /// does.
  __device__ void add_fragment(float* global, float const (&c)[4]) const noexcept {
    auto const lane = thread() % warp_size;
#if __CUDA_ARCH__ >= 900
    asm volatile("red.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(global + 4 * lane),
                 "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3])
                 : "memory");
#else
    for (std::int32_t i = 0; i < 4; ++i)
      asm volatile("red.global.add.f32 [%0], %1;" ::"l"(global + warp_size * i + lane), "f"(c[i])
                   : "memory");
#endif
  }
  __device__ void load_fragment(float const* global, float (&c)[4]) const noexcept {
    auto const lane = thread() % warp_size;
#if __CUDA_ARCH__ >= 900
    auto const four = load(reinterpret_cast<std::byte const*>(global + 4 * lane));
    for (std::int32_t i = 0; i < 4; ++i) c[i] = __uint_as_float(four.words[i]);
#else
    for (std::int32_t i = 0; i < 4; ++i) c[i] = global[warp_size * i + lane];
#endif
  }

  template <class T>
  __device__ std::uint32_t widen_e4m3(std::uint32_t bytes) const noexcept {
    static_assert(half_element<T>);
    std::uint32_t const pair = e4m3_as_f16(bytes);
    if constexpr (std::is_same_v<T, float16>) return pair;
    float low, high;
    asm("{ .reg .b16 a, b; mov.b32 {a, b}, %2; cvt.f32.f16 %0, a; cvt.f32.f16 %1, b; }"
        : "=f"(low), "=f"(high)
        : "r"(pair));
    return pack<T>(low, high);
  }

  template <class T>
  __device__ std::uint32_t pack(float low, float high) const noexcept {
    static_assert(half_element<T>);
    std::uint32_t word;
    if constexpr (std::is_same_v<T, bfloat16>)
      asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
    else
      asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
    return word;
  }

  __device__ float exp2(float x) const noexcept {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
  }
  __device__ float reciprocal(float x) const noexcept {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
  }

 private:
  /// Two e4m3 as two f16. Before sm_89 by bits: those of an f16 of a far too small exponent, times
  /// 2^8, exactly; NaN, which that would make 480, is set.
  __device__ static std::uint32_t e4m3_as_f16(std::uint32_t bytes) noexcept {
#if __CUDA_ARCH__ >= 890
    std::uint32_t pair;
    asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(pair) : "h"(static_cast<std::uint16_t>(bytes)));
    return pair;
#else
    auto const spread = (bytes & 0xFF) | (bytes & 0xFF00) << 8;
    std::uint32_t const tiny = (spread & 0x007F007F) << 7 | (spread & 0x00800080) << 8;
    constexpr std::uint32_t two_to_8 = 0x5C005C00;
    std::uint32_t pair;
    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(pair) : "r"(tiny), "r"(two_to_8));
    if ((bytes & 0x7F) == 0x7F) pair |= 0x7E00;
    if ((bytes & 0x7F00) == 0x7F00) pair |= 0x7E000000;
    return pair;
#endif
  }

  static constexpr unsigned all_lanes = 0xFFFFFFFF;

  __device__ static std::uint32_t address(void const* shared) noexcept {
    return static_cast<std::uint32_t>(__cvta_generic_to_shared(shared));
  }
};

static_assert(thread_block<device_block>);

}  // namespace cuda::detail

STRATA_NAMESPACE_END
