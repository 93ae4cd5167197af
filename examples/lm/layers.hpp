// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What a decoder computes between its matrix products, forward and backward: RMSNorm, RoPE, SwiGLU,
// embedding, cross-entropy. Each function works on the rows it is given, in the calling thread;
// `for_slabs` spreads rows over threads. Sums over rows are left to the caller as one partial sum
// per slab, so that their order is fixed.
//
// Written for the vectoriser of g++ and clang at -O3: sums run in 16 lanes, because without
// -ffast-math neither may reorder one, and exp is a polynomial in float, because neither vectorises
// std::exp (0.5 against 5 ns an element; the MLP of the demo model takes 6 million a pass).
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <vector>

#include <strata/cache/element.hpp>
#include <strata/cache/rope.hpp>
#include <strata/config.hpp>

#include "config.hpp"

namespace lm {

namespace detail {

/// exp for |x| up to 87, relative error 2e-7; beyond that it stays at e^-87 and e^87; of NaN, NaN.
inline float exponential(float x) noexcept {
  // The clamp is one of integers: g++ does not vectorise a comparison of floats, which might trap.
  auto const given = std::bit_cast<std::uint32_t>(x);
  auto const magnitude = given & 0x7FFFFFFFU;
  auto const bound = magnitude > 0x7F800000U ? magnitude : 0x42AE0000U;  // NaN, or 87
  x = std::bit_cast<float>((given & 0x80000000U) | (magnitude < bound ? magnitude : bound));
  constexpr float shift = 12582912.0F;  // 1.5 * 2^23: adding it rounds to the nearest integer
  float const rounded = x * 1.44269504F + shift;
  float const n = rounded - shift;
  // ln 2 in two parts, the first with zeros at the end, so that n times it is exact
  float const r = (x - n * 0.693359375F) + n * 2.12194440e-4F;
  float y = 1.9875691500e-4F;  // Cephes expf
  y = y * r + 1.3981999507e-3F;
  y = y * r + 8.3334519073e-3F;
  y = y * r + 4.1665795894e-2F;
  y = y * r + 1.6666665459e-1F;
  y = y * r + 5.0000001201e-1F;
  y = y * (r * r) + (r + 1.0F);
  auto const bits = std::bit_cast<std::uint32_t>(rounded);  // n in the low bits
  return y * std::bit_cast<float>((bits + 127U) << 23);
}
inline double exponential(double x) noexcept { return std::exp(x); }

/// sqrt for x >= 0, relative error 2e-7, by Newton's method for 1 / sqrt: g++ does not vectorise
/// std::sqrt, which may set errno.
inline float square_root(float x) noexcept {
  auto y = std::bit_cast<float>(0x5F375A86U - (std::bit_cast<std::uint32_t>(x) >> 1));
  for (int i = 0; i < 3; ++i) y *= 1.5F - 0.5F * x * y * y;
  return x * y;
}
inline double square_root(double x) noexcept { return std::sqrt(x); }

template <class T>
T sigmoid(T x) noexcept {
  return 1 / (1 + exponential(-x));
}

inline constexpr std::int64_t lanes = 16;

template <class T>
T sum_of(T const (&lane)[lanes]) noexcept {
  T part[4];
  for (int i = 0; i < 4; ++i) part[i] = (lane[i] + lane[i + 4]) + (lane[i + 8] + lane[i + 12]);
  return (part[0] + part[2]) + (part[1] + part[3]);
}

/// Sum of term(i) for i < count, in lanes.
template <class T, class Term>
T sum(std::int64_t count, Term const& term) noexcept {
  T lane[lanes] = {};
  auto const whole = count / lanes * lanes;
  for (std::int64_t i = 0; i < whole; i += lanes)
    for (std::int64_t j = 0; j < lanes; ++j) lane[j] += term(i + j);
  for (auto i = whole; i < count; ++i) lane[i - whole] += term(i);
  return sum_of(lane);
}

template <class T>
T largest(T const* x, std::int64_t count) noexcept {
  T lane[lanes];
  for (auto& l : lane) l = x[0];
  auto const whole = count / lanes * lanes;
  for (std::int64_t i = 0; i < whole; i += lanes)
    for (std::int64_t j = 0; j < lanes; ++j) lane[j] = x[i + j] > lane[j] ? x[i + j] : lane[j];
  for (auto i = whole; i < count; ++i) lane[0] = x[i] > lane[0] ? x[i] : lane[0];
  for (auto const l : lane) lane[0] = l > lane[0] ? l : lane[0];
  return lane[0];
}

}  // namespace detail

template <class T>
void copy(T const* from, T* to, std::int64_t count) noexcept {
  T const* STRATA_RESTRICT const a = from;
  T* STRATA_RESTRICT const b = to;
  for (std::int64_t i = 0; i < count; ++i) b[i] = a[i];
}

template <class T>
void fill_zero(T* x, std::int64_t count) noexcept {
  for (std::int64_t i = 0; i < count; ++i) x[i] = 0;
}

/// y = x / rms(x) * gain, row by row. x, y: [rows, dim]; inverse_rms: [rows], or null.
template <class T>
void rms_norm(T const* x, T const* gain, T* y, T* inverse_rms, std::int64_t rows, std::int64_t dim,
              double epsilon) noexcept {
  for (std::int64_t r = 0; r < rows; ++r) {
    T const* STRATA_RESTRICT const in = x + r * dim;
    T* STRATA_RESTRICT const out = y + r * dim;
    T const squares = detail::sum<T>(dim, [in](std::int64_t i) { return in[i] * in[i]; });
    T const inverse = 1 / std::sqrt(squares / static_cast<T>(dim) + static_cast<T>(epsilon));
    for (std::int64_t i = 0; i < dim; ++i) out[i] = in[i] * inverse * gain[i];
    if (inverse_rms != nullptr) inverse_rms[r] = inverse;
  }
}

/// Backward of rms_norm, from its input: dx = residual + gradient, where `residual` is what reaches
/// x beside the norm (null: nothing). Adds to d_gain [dim] this call's sum over its rows, and
/// writes the norm's output once more to y (null: not wanted), which the weight gradients need. dy,
/// x, residual, dx, y: [rows, dim], of which none overlap.
template <class T>
void rms_norm_backward(T const* dy, T const* x, T const* inverse_rms, T const* gain,
                       T const* residual, T* dx, T* y, T* d_gain, std::int64_t rows,
                       std::int64_t dim) noexcept {
  for (std::int64_t r = 0; r < rows; ++r) {
    T const* STRATA_RESTRICT const in = x + r * dim;
    T const* STRATA_RESTRICT const d_out = dy + r * dim;
    T* STRATA_RESTRICT const d_in = dx + r * dim;
    T* STRATA_RESTRICT const d_g = d_gain;
    T const inverse = inverse_rms[r];
    T const dot = detail::sum<T>(dim, [=](std::int64_t i) { return d_out[i] * gain[i] * in[i]; });
    T const slope = dot * inverse * inverse / static_cast<T>(dim);
    for (std::int64_t i = 0; i < dim; ++i) {
      d_in[i] = inverse * (d_out[i] * gain[i] - in[i] * slope);
      d_g[i] += d_out[i] * in[i] * inverse;
    }
    if (residual != nullptr) {
      T const* STRATA_RESTRICT const beside = residual + r * dim;
      for (std::int64_t i = 0; i < dim; ++i) d_in[i] += beside[i];
    }
    if (y != nullptr) {
      T* STRATA_RESTRICT const out = y + r * dim;
      for (std::int64_t i = 0; i < dim; ++i) out[i] = in[i] * inverse * gain[i];
    }
  }
}

/// Cosines and sines of RoPE for positions 0 .. positions - 1.
template <class T>
class rope_table {
 public:
  rope_table() = default;
  rope_table(std::int64_t positions, model_config const& config)
      : half_(config.head_dim / 2),
        cos_(static_cast<std::size_t>(positions * half_)),
        sin_(static_cast<std::size_t>(positions * half_)) {
    std::vector<double> frequency;
    for (std::int32_t i = 0; i < half_; ++i) frequency.push_back(config.rope_frequency(i));
    for (std::int64_t at = 0; at < positions; ++at)
      for (std::int64_t i = 0; i < half_; ++i) {
        auto const angle = static_cast<double>(at) * frequency[static_cast<std::size_t>(i)];
        cos_[static_cast<std::size_t>(at * half_ + i)] = static_cast<T>(std::cos(angle));
        sin_[static_cast<std::size_t>(at * half_ + i)] = static_cast<T>(std::sin(angle));
      }
  }

  std::int64_t half() const noexcept { return half_; }
  std::int64_t positions() const noexcept {
    return half_ == 0 ? 0 : static_cast<std::int64_t>(cos_.size()) / half_;
  }
  /// For K on its way into a cache.
  strata::rotary<T> rotary() const noexcept {
    return strata::rotary<T>::of(cos_.data(), sin_.data(), static_cast<std::int32_t>(positions()),
                                 static_cast<std::int32_t>(2 * half_));
  }
  T const* cos(std::int64_t position) const noexcept { return cos_.data() + position * half_; }
  T const* sin(std::int64_t position) const noexcept { return sin_.data() + position * half_; }

 private:
  std::int64_t half_ = 0;
  std::vector<T> cos_, sin_;  // [positions, half]
};

/// Turns the pairs (i, i + head_dim / 2) of every head by the angle of its row's position, in
/// place; backward (`sign` -1) turns back. x: [rows, heads, head_dim]; position(row) is below
/// table.positions().
template <class T, class Position>
void rope(rope_table<T> const& table, T* x, std::int64_t rows, std::int64_t heads,
          Position const& position, T sign = 1) noexcept {
  auto const half = table.half();
  for (std::int64_t r = 0; r < rows; ++r) {
    T const* STRATA_RESTRICT const c = table.cos(position(r));
    T const* STRATA_RESTRICT const s = table.sin(position(r));
    for (std::int64_t h = 0; h < heads; ++h) {
      T* STRATA_RESTRICT const low = x + (r * heads + h) * 2 * half;
      T* STRATA_RESTRICT const high = low + half;
      for (std::int64_t i = 0; i < half; ++i) {
        T const a = low[i], b = high[i], turn = sign * s[i];
        low[i] = a * c[i] - b * turn;
        high[i] = b * c[i] + a * turn;
      }
    }
  }
}

/// act = gate * sigmoid(gate) * up, element by element.
template <class T>
void swiglu(T const* gate, T const* up, T* act, std::int64_t count) noexcept {
  T const* STRATA_RESTRICT const g = gate;
  T const* STRATA_RESTRICT const u = up;
  T* STRATA_RESTRICT const a = act;
  for (std::int64_t i = 0; i < count; ++i) a[i] = g[i] * detail::sigmoid(g[i]) * u[i];
}

/// Backward of swiglu; writes act once more, over d_act. No other two overlap.
template <class T>
void swiglu_backward(T const* gate, T const* up, T* d_act_then_act, T* d_gate, T* d_up,
                     std::int64_t count) noexcept {
  T const* STRATA_RESTRICT const g = gate;
  T const* STRATA_RESTRICT const u = up;
  T* STRATA_RESTRICT const a = d_act_then_act;
  T* STRATA_RESTRICT const dg = d_gate;
  T* STRATA_RESTRICT const du = d_up;
  for (std::int64_t i = 0; i < count; ++i) {
    T const s = detail::sigmoid(g[i]);
    T const silu = g[i] * s;
    T const d = a[i];
    du[i] = d * silu;
    dg[i] = d * u[i] * s * (1 + g[i] * (1 - s));
    a[i] = silu * u[i];
  }
}

/// x[r] = embedding[tokens[r]]. tokens: [rows], each below the number of rows of the embedding;
/// embedding: [vocab, dim], in T or bf16; x: [rows, dim].
template <class T, class Element, class Token>
void embed(Token const* tokens, Element const* embedding, T* x, std::int64_t rows,
           std::int64_t dim) noexcept {
  for (std::int64_t r = 0; r < rows; ++r) {
    Element const* STRATA_RESTRICT const from = embedding + std::int64_t{tokens[r]} * dim;
    T* STRATA_RESTRICT const to = x + r * dim;
    for (std::int64_t i = 0; i < dim; ++i) to[i] = strata::detail::widen(from[i]);
  }
}

/// Backward of embed for columns `begin` .. `end` - 1, rows in ascending order. Threads split
/// columns, since two rows may add to the same place.
template <class T, class Token>
void embed_backward(Token const* tokens, T const* dx, T* d_embedding, std::int64_t rows,
                    std::int64_t dim, std::int64_t begin, std::int64_t end) noexcept {
  for (std::int64_t r = 0; r < rows; ++r) {
    T const* STRATA_RESTRICT const from = dx + r * dim;
    T* STRATA_RESTRICT const to = d_embedding + std::int64_t{tokens[r]} * dim;
    for (auto i = begin; i < end; ++i) to[i] += from[i];
  }
}

/// Cross-entropy of one row, in nats: log(sum(exp(logits))) - logits[token]. logits: [vocab].
template <class T>
double token_loss(T const* logits, std::int64_t vocab, std::int64_t token) noexcept {
  T const top = detail::largest(logits, vocab);
  T const total =
      detail::sum<T>(vocab, [=](std::int64_t i) { return detail::exponential(logits[i] - top); });
  return std::log(static_cast<double>(total)) + static_cast<double>(top) -
         static_cast<double>(logits[token]);
}

/// The same; the logits become their gradient times `scale`: (softmax - one hot) * scale.
template <class T>
double token_loss_and_gradient(T* logits, std::int64_t vocab, std::int64_t token,
                               T scale) noexcept {
  T const top = detail::largest(logits, vocab);
  auto const chosen = static_cast<double>(logits[token]);
  for (std::int64_t i = 0; i < vocab; ++i) logits[i] = detail::exponential(logits[i] - top);
  T const total = detail::sum<T>(vocab, [=](std::int64_t i) { return logits[i]; });
  T const factor = scale / total;
  for (std::int64_t i = 0; i < vocab; ++i) logits[i] *= factor;
  logits[token] -= scale;
  return std::log(static_cast<double>(total)) + static_cast<double>(top) - chosen;
}

}  // namespace lm
