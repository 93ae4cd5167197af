// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What the CPU kernels compute with: vectors as wide as the instruction set's, a small matrix
// product, and exp. Vectors are the compilers' own (g++ and clang); the one intrinsic is the
// multiply-add, which compilers cannot be told to make otherwise.
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
/// said in stream_asks.hpp, stream_spread.hpp, stream.hpp and, of dot products, element_readers.hpp.
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

/// to[dim][to_row] = from[rows][from_row], transposed, for as many rows and elements as a vector has
/// lanes; null rows are zeros.
template <class T>
void transpose_square(T const* const* rows, T* to, std::int64_t to_row) noexcept {
  using v = lanes<T>;
  constexpr auto n = static_cast<std::size_t>(v::count);
  typename v::vec x[n];
#pragma GCC unroll 16
  for (std::size_t i = 0; i < n; ++i) x[i] = rows[i] == nullptr ? v::all(0) : v::load(rows[i]);
  transpose(x, std::make_index_sequence<n>());
#pragma GCC unroll 16
  for (std::size_t i = 0; i < n; ++i) v::store(to + static_cast<std::int64_t>(i) * to_row, x[i]);
}

/// A matrix that is read element by element: (i, k) is data[i * row + k * step].
template <class T>
struct matrix {
  T const* data;
  std::int64_t row, step;
};

#if defined(__AVX512F__) || defined(__aarch64__)
inline constexpr int multiply_rows = 8;
#else
inline constexpr int multiply_rows = 6;
#endif

/// A block of `multiply` in registers.
template <int Rows, int Vecs, class T>
void multiply_block(matrix<T> a, T const* b, std::int64_t b_row, std::int32_t depth, T* c,
                    std::int64_t c_row, bool add) noexcept {
  using v = lanes<T>;
  constexpr auto rows = static_cast<std::size_t>(Rows), vecs = static_cast<std::size_t>(Vecs);
  typename v::vec sum[rows][vecs];
#pragma GCC unroll 8
  for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 2
    for (int j = 0; j < Vecs; ++j)
      sum[i][j] = add ? v::load(c + i * c_row + j * v::count) : v::all(0);
  for (std::int32_t k = 0; k < depth; ++k) {
    typename v::vec row[vecs];
#pragma GCC unroll 2
    for (int j = 0; j < Vecs; ++j) row[j] = v::load(b + k * b_row + j * v::count);
#pragma GCC unroll 8
    for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 2
      for (int j = 0; j < Vecs; ++j)
        sum[i][j] = v::multiply_add(v::all(a.data[i * a.row + k * a.step]), row[j], sum[i][j]);
  }
#pragma GCC unroll 8
  for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 2
    for (int j = 0; j < Vecs; ++j) v::store(c + i * c_row + j * v::count, sum[i][j]);
}

/// From first on, before last.
struct extent {
  std::int32_t first = 0, last = 0;
};

/// depth: of the first block of multiply_rows rows; that of the next lies `next` further on.
template <int Rows, class T>
void multiply_strip(std::int32_t rows, bool wide, matrix<T> a, T const* b, std::int64_t b_row,
                    extent const* depth, std::int32_t next, T* c, std::int64_t c_row,
                    bool add) noexcept {
  for (; rows >= Rows; rows -= Rows, a.data += Rows * a.row, c += Rows * c_row) {
    matrix<T> const from{a.data + depth->first * a.step, a.row, a.step};
    T const* const row = b + depth->first * b_row;
    if (wide)
      multiply_block<Rows, 2>(from, row, b_row, depth->last - depth->first, c, c_row, add);
    else
      multiply_block<Rows, 1>(from, row, b_row, depth->last - depth->first, c, c_row, add);
    if constexpr (Rows == multiply_rows) depth += next;
  }
  if constexpr (Rows > 1)
    if (rows > 0) multiply_strip<Rows / 2>(rows, wide, a, b, b_row, depth, next, c, c_row, add);
}

/// c[rows][columns] = (add ? c : 0) + a[rows][depth] b[depth][columns]; every sum is one chain over
/// ascending depth, whatever the sizes. b and c are read and written to the end of the columns'
/// last vector. 6 x 2 vectors of sums, 2 of b and 1 of a fit the 16 registers of AVX2, and 12 sums
/// in flight cover 2 FMA ports x 4 cycles. Where there are 32 registers 8 x 2 read less of a: 1.03
/// times as fast in forward, 1.1 in backward (8 x 3 and 12 x 2 are no faster, 6 x 4 is slower).
template <class T>
void multiply(std::int32_t rows, std::int32_t columns, std::int32_t depth, matrix<T> a, T const* b,
              std::int64_t b_row, T* c, std::int64_t c_row, bool add) noexcept {
  extent const whole{0, depth};
  for (std::int32_t j = 0; j < columns; j += 2 * lanes<T>::count)
    multiply_strip<multiply_rows>(rows, columns - j > lanes<T>::count, a, b + j, b_row, &whole, 0,
                                  c + j, c_row, add);
}

/// The same where `a` is zero but in a part of the depth, depths[i] in the multiply_rows rows from
/// row i * multiply_rows on: nothing else of `a` and b is read.
template <class T>
void multiply_parts(std::int32_t rows, std::int32_t columns, extent const* depths, matrix<T> a,
                    T const* b, std::int64_t b_row, T* c, std::int64_t c_row, bool add) noexcept {
  for (std::int32_t j = 0; j < columns; j += 2 * lanes<T>::count)
    multiply_strip<multiply_rows>(rows, columns - j > lanes<T>::count, a, b + j, b_row, depths, 1,
                                  c + j, c_row, add);
}

/// `multiply` where b holds an infinity or a NaN: a zero of `a` keeps out whatever it meets.
template <class T>
void multiply_nonzero(std::int32_t rows, std::int32_t columns, std::int32_t depth, matrix<T> a,
                      T const* b, std::int64_t b_row, T* c, std::int64_t c_row, bool add) noexcept {
  for (std::int32_t i = 0; i < rows; ++i, c += c_row) {
    for (std::int32_t j = 0; j < columns && !add; ++j) c[j] = 0;
    for (std::int32_t k = 0; k < depth; ++k)
      if (T const x = a.data[i * a.row + k * a.step]; x != 0)
        for (std::int32_t j = 0; j < columns; ++j) c[j] += x * b[k * b_row + j];
  }
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
