// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A decoder of a few random linear layers: attention with its four projections, a pointwise bend
// and, for layers without K/V, a recurrent state. Large enough to go wrong wherever a real one can,
// small enough to be computed twice. Every function works on one row (one token), so that batches
// cannot change its bits.
#pragma once

#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <strata/attention/query.hpp>
#include <strata/geometry.hpp>

#include "exact_numbers.hpp"

namespace support {

/// A kind of layer that fits a toy.
inline strata::layer_kind toy_kind(std::int32_t kv_heads = 2, std::int32_t k_dim = 6,
                                   std::int32_t v_dim = 4,
                                   std::int32_t window = strata::unbounded_window) {
  strata::layer_kind kind;
  kind.kv.kv_heads = kv_heads;
  kind.kv.k_dim = k_dim;
  kind.kv.v_dim = v_dim;
  kind.window = window;
  return kind;
}

inline strata::layer_kind toy_linear() {
  strata::layer_kind kind;
  kind.has_kv = false;
  return kind;
}

/// Two classes, and a layer without K/V.
inline strata::kv_classes mixed_toy_classes() {
  auto const wide = toy_kind(2, 6, 4), narrow = toy_kind(1, 4, 8);
  strata::layer_kind const layers[] = {wide, narrow, toy_linear(), wide, narrow, wide};
  return *strata::kv_classes::make(layers);
}

struct toy_shape {
  std::string name = "uniform, 6 layers";
  std::vector<strata::layer_kind> layers = std::vector(6, toy_kind());
  std::int32_t q_heads = 4;
  std::int32_t width = 8;
  double softcap = 0;
  bool sinks = false;

  strata::kv_classes classes() const { return *strata::kv_classes::make(layers); }
  std::int32_t num_layers() const { return static_cast<std::int32_t>(layers.size()); }
};

template <std::floating_point T>
class toy_model {
 public:
  explicit toy_model(toy_shape shape, std::uint64_t seed = 1) : shape_(std::move(shape)) {
    auto const weights = [&](std::int32_t rows, std::int32_t columns) {
      return random_values<T>(rows * columns, ++seed, 1 / std::sqrt(columns));
    };
    for (auto const& kind : shape_.layers) {
      auto const& kv = kind.kv;
      auto const n = shape_.width, heads = shape_.q_heads;
      layers_.push_back({weights(heads * kv.k_dim, n), weights(kv.kv_heads * kv.k_dim, n),
                         weights(kv.kv_heads * kv.v_dim, n), weights(n, heads * kv.v_dim),
                         weights(n, n)});
    }
    if (shape_.sinks) sinks_ = random_values<float>(shape_.q_heads, ++seed);
  }

  toy_shape const& shape() const { return shape_; }
  strata::layer_kind const& kind(strata::layer_id l) const { return shape_.layers[at(l)]; }

  /// Without a window: the layer's own kind brings it.
  strata::score_rule rule() const {
    strata::score_rule rule;
    rule.softcap = shape_.softcap;
    if (shape_.sinks) rule.sink_logits = sinks_.data();
    return rule;
  }

  /// x: [width].
  void embed(std::int32_t token, T* x) const {
    auto const values = random_values<T>(shape_.width, static_cast<std::uint64_t>(token) + 1000);
    for (std::size_t i = 0; i < values.size(); ++i) x[i] = values[i];
  }
  /// q: [q_heads, k_dim].
  void q(strata::layer_id l, std::int32_t position, T const* x, T* q) const {
    apply(layers_[at(l)].q, x, shape_.width, q);
    turn(position, shape_.q_heads, kind(l).kv.k_dim, q);
  }
  /// k: [kv_heads, k_dim].
  void k(strata::layer_id l, std::int32_t position, T const* x, T* k) const {
    apply(layers_[at(l)].k, x, shape_.width, k);
    turn(position, kind(l).kv.kv_heads, kind(l).kv.k_dim, k);
  }
  /// v: [kv_heads, v_dim].
  void v(strata::layer_id l, T const* x, T* v) const {
    apply(layers_[at(l)].v, x, shape_.width, v);
  }
  /// The rest of an attention layer. out: [q_heads, v_dim], what attention gave.
  void finish(strata::layer_id l, T const* out, T* x) const {
    std::vector<T> y(static_cast<std::size_t>(shape_.width));
    apply(layers_[at(l)].o, out, shape_.q_heads * kind(l).kv.v_dim, y.data());
    for (std::size_t i = 0; i < y.size(); ++i) x[i] += y[i];
    apply(layers_[at(l)].mix, x, shape_.width, y.data());
    for (std::size_t i = 0; i < y.size(); ++i) x[i] += std::tanh(y[i]) / 2;
  }
  /// A layer without K/V. state: [width], of the sequence so far.
  void recur(strata::layer_id l, T* state, T* x) const {
    std::vector<T> y(static_cast<std::size_t>(shape_.width));
    apply(layers_[at(l)].mix, x, shape_.width, y.data());
    for (std::size_t i = 0; i < y.size(); ++i) {
      state[i] = state[i] / 2 + y[i];
      x[i] += state[i];
    }
  }

 private:
  struct layer_weights {
    std::vector<T> q, k, v, o, mix;  // [outputs, inputs]
  };

  static std::size_t at(strata::layer_id l) { return static_cast<std::size_t>(l.index); }

  /// y = W x. Kept out of line: one body, one order of sums.
  [[gnu::noinline]] static void apply(std::vector<T> const& w, T const* x, std::int32_t inputs,
                                      T* y) {
    auto const n = static_cast<std::size_t>(inputs);
    for (std::size_t i = 0; i < w.size() / n; ++i) {
      T sum = 0;
      for (std::size_t j = 0; j < n; ++j) sum += w[i * n + j] * x[j];
      y[i] = sum;
    }
  }
  /// Stands for RoPE: makes a token's position show in its K and Q.
  static void turn(std::int32_t position, std::int32_t heads, std::int32_t dim, T* x) {
    for (std::int32_t h = 0; h < heads; ++h)
      for (std::int32_t i = 0; i < dim; ++i)
        x[h * dim + i] += static_cast<T>(std::sin(position * (0.7 + 0.2 * i)) / 2);
  }

  toy_shape shape_;
  std::vector<layer_weights> layers_;
  std::vector<float> sinks_;
};

}  // namespace support
