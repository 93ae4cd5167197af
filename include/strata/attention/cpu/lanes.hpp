// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What the CPU kernels compute with: vectors as wide as the instruction set's, what is done
// with some of them together, and exp. Vectors are the compilers' own (g++ and clang); the one
// intrinsic is the multiply-add, which compilers cannot be told to make otherwise.
#pragma once

#if defined(__FMA__) || defined(__AVX512F__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include <strata/config.hpp>
#include <strata/detail/math.hpp>

STRATA_NAMESPACE_BEGIN

namespace cpu {
inline namespace STRATA_CPU_ISA {

#define STRATA_NAME_OF(macro) STRATA_NAME(macro)
#define STRATA_NAME(name) #name
/// The instruction set that the kernels of this translation unit are compiled for: STRATA_CPU_ISA.
/// Worth a line in an engine's log: "portable" on x86-64 is SSE2, which is what comes of a build
/// without -march, and several times slower than what most machines can do.
constexpr char const* isa_name() noexcept { return STRATA_NAME_OF(STRATA_CPU_ISA); }
#undef STRATA_NAME
#undef STRATA_NAME_OF

namespace detail {

using strata::detail::ceil_divide;
using strata::detail::larger;
using strata::detail::smaller;

#if defined(__AVX512F__)
inline constexpr std::int32_t vector_bytes = 64;
#elif defined(__AVX__)
inline constexpr std::int32_t vector_bytes = 32;
#else
inline constexpr std::int32_t vector_bytes = 16;
#endif

/// AVX512FP16, which nothing here computes with, tells Intel's processors from Sapphire Rapids on,
/// so far, from others with 512-bit vectors. What they want done otherwise, by how much, and why is
/// said in sight.hpp, stream_asks.hpp, stream_spread.hpp, stream.hpp, stream_queries.hpp and, of dot
/// products, element_readers.hpp.
#if defined(__AVX512F__) && defined(__AVX512FP16__)
inline constexpr bool has_half_vectors = true;
#else
inline constexpr bool has_half_vectors = false;
#endif

/// Vectors of float or double. In memory they need no more alignment than one element.
template <class T>
struct lanes {
  using integer = std::conditional_t<sizeof(T) == 8, std::int64_t, std::int32_t>;
  static constexpr std::int32_t count = vector_bytes / static_cast<std::int32_t>(sizeof(T));
  typedef T vec __attribute__((vector_size(vector_bytes)));
  typedef integer mask __attribute__((vector_size(vector_bytes)));

  static vec load(T const* from) noexcept { return *reinterpret_cast<in_memory const*>(from); }
  static mask load(integer const* from) noexcept {
    return *reinterpret_cast<mask_in_memory const*>(from);
  }
  static void store(T* to, vec x) noexcept { *reinterpret_cast<in_memory*>(to) = x; }
  static vec all(T x) noexcept { return x - vec{}; }  // which is x for -0, too: no instruction more

  /// a b + c, rounded once where vectors can. Compilers fuse as they see fit, and g++ tuning for Zen 3
  /// fuses the many sums of a product but not the single one of a loop: where two sums must have the
  /// same bits, both say it.
  [[gnu::always_inline]] static vec multiply_add(vec a, vec b, vec c) noexcept {
    constexpr bool wide = sizeof(T) == 8;
#if defined(__AVX512F__)
    if constexpr (wide)
      return _mm512_fmadd_pd(a, b, c);
    else
      return _mm512_fmadd_ps(a, b, c);
#elif defined(__FMA__)
    if constexpr (wide)
      return _mm256_fmadd_pd(a, b, c);
    else
      return _mm256_fmadd_ps(a, b, c);
#elif defined(__aarch64__)
    if constexpr (wide)
      return (vec)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
    else
      return (vec)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
    static_cast<void>(wide);
    return a * b + c;
#endif
  }

 private:
  typedef T in_memory __attribute__((vector_size(vector_bytes), aligned(alignof(T)), may_alias));
  typedef integer mask_in_memory
      __attribute__((vector_size(vector_bytes), aligned(alignof(integer)), may_alias));
};

/// n rounded up to whole vectors.
template <class T>
constexpr std::int32_t padded(std::int32_t n) noexcept {
  return ceil_divide(n, lanes<T>::count) * lanes<T>::count;
}

/// Distance between the rows, of n elements each, of a matrix in the workspace: whole cache lines.
template <class T>
constexpr std::int32_t stride_of(std::int32_t n) noexcept {
  constexpr auto line = 64 / static_cast<std::int32_t>(sizeof(T));
  return ceil_divide(n, line) * line;
}

/// Asks for a line to come into level 1 or 2. Inlined by force: g++ takes a function that only
/// prefetches for one without effect, and drops calls of it.
template <int Level>
[[gnu::always_inline]] inline void ask_for(std::byte const* line) noexcept {
  __builtin_prefetch(line, 0, 4 - Level);
}

/// x, rounded and in a register. Compilers would rather read memory again for each use than keep a
/// register, and one port reads 64 bytes in a cycle, which is what an FMA then takes; and they fuse
/// a product into the sum that it is used in, where it may have to be what it is elsewhere.
template <class Vec>
[[gnu::always_inline]] inline Vec in_register(Vec x) noexcept {
#if defined(__AVX512F__)
  asm("" : "+v"(x));
#elif defined(__SSE2__)
  asm("" : "+x"(x));
#elif defined(__aarch64__)
  asm("" : "+w"(x));
#else
  asm("" : "+m"(x));
#endif
  return x;
}

template <class Vec, std::size_t... Lane>
[[gnu::always_inline]] inline void transpose(Vec* x, std::index_sequence<Lane...>) noexcept {
  constexpr auto n = sizeof...(Lane);
  auto const swap = [&](auto step) __attribute__((always_inline)) {
    constexpr std::size_t s = step();  // lanes and vectors change places in blocks of s
    for (std::size_t i = 0; i < n; ++i) {
      if ((i & s) != 0) continue;
      Vec const a = x[i], b = x[i + s];
      x[i] = __builtin_shufflevector(a, b, ((Lane & s) == 0 ? Lane : n + Lane - s)...);
      x[i + s] = __builtin_shufflevector(a, b, ((Lane & s) == 0 ? Lane + s : n + Lane)...);
    }
  };
  swap(std::integral_constant<std::size_t, 1>());
  if constexpr (n > 2) swap(std::integral_constant<std::size_t, 2>());
  if constexpr (n > 4) swap(std::integral_constant<std::size_t, 4>());
  if constexpr (n > 8) swap(std::integral_constant<std::size_t, 8>());
}

/// to[element][to_row] = rows[row][first + element], transposed, for as many rows and elements as a
/// vector has lanes; null rows are zeros.
template <class T>
void transpose_square(T const* const* rows, std::int32_t first, T* to,
                      std::int64_t to_row) noexcept {
  using v = lanes<T>;
  constexpr auto n = static_cast<std::size_t>(v::count);
  typename v::vec x[n];
#pragma GCC unroll 16
  for (std::size_t i = 0; i < n; ++i)
    x[i] = rows[i] == nullptr ? v::all(0) : v::load(rows[i] + first);
  transpose(x, std::make_index_sequence<n>());
#pragma GCC unroll 16
  for (std::size_t i = 0; i < n; ++i) v::store(to + static_cast<std::int64_t>(i) * to_row, x[i]);
}

/// exp(x) for x up to 88. Relative error below 1e-7 (measured, every float of [-87.3, 0]); exactly
/// 1 at 0; exactly 0 below -87.3, where results would be denormal; NaN stays NaN.
inline lanes<float>::vec exponential(lanes<float>::vec x) noexcept {
  using vec = lanes<float>::vec;
  vec const shifted = x * 1.44269504f + 0x1.8p23f;  // n = round(x / ln 2) is in the low bits
  vec const n = shifted - 0x1.8p23f;
  vec const r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // x - n ln 2, ln 2 in two parts
  vec series = r * 1.381453825e-3f + 8.368745446e-3f;         // least greatest relative error: 3e-9
  series = series * r + 4.166838899e-2f;
  series = series * r + 1.666652113e-1f;
  series = series * r + 4.999999404e-1f;
  series = series * r + 1.0f;
  series = series * r + 1.0f;
  auto const power = std::bit_cast<vec>((std::bit_cast<lanes<float>::mask>(shifted) + 127) << 23);
  vec const value = series * power;
  return x < -87.3f ? vec{} : value;
}
inline lanes<double>::vec exponential(lanes<double>::vec x) noexcept {
  for (std::int32_t i = 0; i < lanes<double>::count; ++i) x[i] = std::exp(x[i]);
  return x;
}
/// The same of one number, to the bit.
template <class T>
T exponential_of(T x) noexcept {
  return exponential(lanes<T>::all(x))[0];
}

/// Whether n elements, a multiple of a vector, are neither infinite nor NaN.
template <class T>
bool all_finite(T const* data, std::int64_t n) noexcept {
  using v = lanes<T>;
  typename v::vec zeros[4] =
      {};  // of what is finite; four chains, as an addition takes four cycles
  std::int64_t i = 0;
  for (; i + 4 * v::count <= n; i += 4 * v::count)
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) zeros[j] += v::load(data + i + j * v::count) * 0;
  for (; i < n; i += v::count) zeros[0] += v::load(data + i) * 0;
  auto const sum = zeros[0] + zeros[1] + (zeros[2] + zeros[3]);
  bool good = true;
  for (std::int32_t j = 0; j < v::count; ++j) good = good && sum[j] == 0;
  return good;
}

}  // namespace detail
}  // namespace STRATA_CPU_ISA
}  // namespace cpu

STRATA_NAMESPACE_END
