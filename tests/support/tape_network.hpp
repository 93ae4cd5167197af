// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The network of routed_network.hpp once more, as automatic differentiation would do it: every
// layer's K, V and attention weights are computed and kept, whether read or not, and the gradients
// of K and V are summed where they are read. No code of the library.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "dense_attention.hpp"
#include "routed_network.hpp"

namespace support {

struct tape_result {
  std::vector<layer_weights<double>> grads;
  std::vector<double> dx, x;                // of x0, and the output
  std::vector<std::vector<double>> dk, dv;  // exactly zero where nobody reads
};

class tape_network {
 public:
  /// k_source, v_source: [num_layers]. With `stop`, gradients reach K and V of the layer itself
  /// only.
  tape_network(network<double> const& net, std::vector<std::int32_t> k_source,
               std::vector<std::int32_t> v_source, bool stop = false)
      : net_(net), k_source_(std::move(k_source)), v_source_(std::move(v_source)), stop_(stop) {}

  tape_result run() {
    tape_result r;
    r.grads = net_.no_gradients();
    r.x = forward();
    for (std::size_t l = 0; l < tape_.size(); ++l) {
      r.dk.emplace_back(tape_[l].k.size());
      r.dv.emplace_back(tape_[l].v.size());
    }
    r.dx = net_.wish;
    for (std::size_t l = tape_.size(); l-- > 0;) backward_layer(l, r);
    return r;
  }

 private:
  struct entry {
    std::vector<double> x, q, k, v, out, h, lse;
    std::vector<std::vector<double>> weights;  // per sequence: [length, q_heads, length]
  };

  std::vector<double> forward() {
    auto x = net_.x0;
    for (std::size_t l = 0; l < net_.layers.size(); ++l) {
      auto const& w = net_.layers[l];
      auto& e = tape_.emplace_back();
      e.x = e.h = x;
      if (net_.shape.layers[l].has_kv) {
        e.q = multiply(w.q, x, net_.width());
        e.k = multiply(w.k, x, net_.width());
        e.v = multiply(w.v, x, net_.width());
        attend(l, e);
        e.h = residual(x, multiply(w.o, e.out, e.out.size() / rows()));
      }
      x = bend(e.h);
    }
    return x;
  }

  dense_attention rule(std::size_t l) const {
    auto const& kind = net_.shape.layers[l];
    dense_attention dense{net_.shape.q_heads, kind.kv.kv_heads, kind.kv.k_dim, kind.kv.v_dim};
    dense.softcap = net_.shape.softcap;
    dense.window = kind.window == strata::unbounded_window ? 0 : kind.window;
    dense.sinks.assign(net_.sinks.begin(), net_.sinks.end());
    return dense;
  }

  /// Sequence s of a tensor over all rows.
  std::vector<double> slice(std::vector<double> const& x, std::int32_t s) const {
    auto const size = static_cast<std::ptrdiff_t>(x.size()) / net_.pass.num_seqs;
    return {x.begin() + s * size, x.begin() + (s + 1) * size};
  }

  void attend(std::size_t l, entry& e) {
    std::vector<std::int32_t> positions;
    for (std::int32_t t = 0; t < net_.pass.length; ++t) positions.push_back(t);
    for (std::int32_t s = 0; s < net_.pass.num_seqs; ++s) {
      auto const r = rule(l).forward(slice(e.q, s), positions, slice(source(k_source_, l).k, s),
                                     slice(source(v_source_, l).v, s), positions);
      e.out.insert(e.out.end(), r.out.begin(), r.out.end());
      e.weights.push_back(r.weights);
    }
  }

  entry const& source(std::vector<std::int32_t> const& sources, std::size_t l) const {
    return tape_[static_cast<std::size_t>(sources[l])];
  }

  void backward_layer(std::size_t l, tape_result& r) {
    auto const& e = tape_[l];
    auto const& w = net_.layers[l];
    auto& grad = r.grads[l];
    r.dx = bend_backward(e.h, std::move(r.dx));
    if (!net_.shape.layers[l].has_kv) return;
    std::vector<double> d_out(e.out.size()), dq(e.q.size());
    multiply_backward(w.o, e.out, e.out.size() / rows(), r.dx, d_out, grad.o);
    attend_backward(l, d_out, dq, r);
    multiply_backward(w.q, e.x, net_.width(), dq, r.dx, grad.q);
    multiply_backward(w.k, e.x, net_.width(), r.dk[l], r.dx, grad.k);
    multiply_backward(w.v, e.x, net_.width(), r.dv[l], r.dx, grad.v);
  }

  /// P is known: dV = P^T dO, dP = dO V^T, dS = P (dP - sum of P dP), and from dS to q . k.
  void attend_backward(std::size_t l, std::vector<double> const& d_out, std::vector<double>& dq,
                       tape_result& r) {
    auto const& e = tape_[l];
    auto const& k = source(k_source_, l).k;
    auto const& v = source(v_source_, l).v;
    auto const k_from = static_cast<std::size_t>(k_source_[l]);
    auto const v_from = static_cast<std::size_t>(v_source_[l]);
    bool const into_k = !stop_ || k_from == l, into_v = !stop_ || v_from == l;
    auto const& kv = net_.kv(l);
    auto const heads = size(net_.shape.q_heads), length = size(net_.pass.length);
    auto const kv_heads = size(kv.kv_heads), k_dim = size(kv.k_dim), v_dim = size(kv.v_dim);
    for (std::size_t row = 0; row < rows(); ++row)
      for (std::size_t h = 0; h < heads; ++h) {
        auto const seq = row / length, at = row * heads + h;
        auto const* const weights = &e.weights[seq][(row % length * heads + h) * length];
        auto const key = [&](std::size_t t) {
          return (seq * length + t) * kv_heads + h / (heads / kv_heads);
        };
        std::vector<double> d_weight(length);
        double total = 0;
        for (std::size_t t = 0; t < length; ++t) {
          for (std::size_t i = 0; i < v_dim; ++i) {
            d_weight[t] += d_out[at * v_dim + i] * v[key(t) * v_dim + i];
            if (into_v) r.dv[v_from][key(t) * v_dim + i] += weights[t] * d_out[at * v_dim + i];
          }
          total += weights[t] * d_weight[t];
        }
        for (std::size_t t = 0; t < length; ++t) {
          auto const* const k_row = &k[key(t) * k_dim];
          auto const slope =
              weights[t] * (d_weight[t] - total) * slope_of(&e.q[at * k_dim], k_row, k_dim);
          for (std::size_t i = 0; i < k_dim; ++i) {
            dq[at * k_dim + i] += slope * k_row[i];
            if (into_k) r.dk[k_from][key(t) * k_dim + i] += slope * e.q[at * k_dim + i];
          }
        }
      }
  }

  /// d score / d (q . k).
  double slope_of(double const* q, double const* k, std::size_t k_dim) const {
    auto const scale = 1 / std::sqrt(static_cast<double>(k_dim));
    double dot = 0;
    for (std::size_t i = 0; i < k_dim; ++i) dot += q[i] * k[i];
    if (net_.shape.softcap == 0) return scale;
    auto const t = std::tanh(scale * dot / net_.shape.softcap);
    return scale * (1 - t * t);
  }

  static std::size_t size(std::int32_t n) { return static_cast<std::size_t>(n); }
  std::size_t rows() const { return static_cast<std::size_t>(net_.rows()); }

  network<double> const& net_;
  std::vector<std::int32_t> k_source_, v_source_;
  bool stop_;
  std::vector<entry> tape_;
};

}  // namespace support
