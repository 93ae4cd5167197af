// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A small network that trains through `strata::router`, as somebody's own trainer would: plain
// loops, plain vectors, a backward of its own, nothing kept from attention but Q, O and LSE.
//
//     h_l     = x_l + Wo_l attention(Wq_l x_l, K of k.source, V of v.source)
//     x_{l+1} = h_l + tanh(h_l) / 2
//     loss    = sum of wish * x_L
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <strata/router.hpp>

#include "share_executor.hpp"
#include "toy_model.hpp"

namespace support {

/// Y = X W^T. w: [outputs, inputs]; x: [rows, inputs]; the result: [rows, outputs].
template <class T>
std::vector<T> multiply(std::vector<T> const& w, std::vector<T> const& x, std::size_t inputs) {
  auto const rows = x.size() / inputs, outputs = w.size() / inputs;
  std::vector<T> y(rows * outputs);
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t o = 0; o < outputs; ++o)
      for (std::size_t i = 0; i < inputs; ++i)
        y[r * outputs + o] += w[o * inputs + i] * x[r * inputs + i];
  return y;
}

/// Adds what dY means for X and for W. dy: [rows, outputs]; dx: [rows, inputs]; dw as w.
template <class T>
void multiply_backward(std::vector<T> const& w, std::vector<T> const& x, std::size_t inputs,
                       std::vector<T> const& dy, std::vector<T>& dx, std::vector<T>& dw) {
  auto const rows = x.size() / inputs, outputs = w.size() / inputs;
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t o = 0; o < outputs; ++o)
      for (std::size_t i = 0; i < inputs; ++i) {
        dx[r * inputs + i] += dy[r * outputs + o] * w[o * inputs + i];
        dw[o * inputs + i] += dy[r * outputs + o] * x[r * inputs + i];
      }
}

/// The weights of one layer, or their gradients.
template <class T>
struct layer_weights {
  std::vector<T> q, k, v, o;  // [heads * dim, width], and o: [width, heads * dim]
};

template <class T>
struct network {
  toy_shape shape;
  strata::pass_shape pass;
  std::vector<layer_weights<T>> layers;
  std::vector<T> x0, wish;  // [rows, width]
  std::vector<float> sinks;

  explicit network(toy_shape s, strata::pass_shape p = {2, 6}, std::uint64_t seed = 100)
      : shape(std::move(s)), pass(p) {
    auto const values = [&](std::int64_t n, double scale) {
      return random_values<T>(n, ++seed, scale);
    };
    std::int64_t const width = shape.width, heads = shape.q_heads;
    for (auto const& kind : shape.layers) {
      auto const& kv = kind.kv;
      layers.push_back(
          {values(heads * kv.k_dim * width, .5), values(kv.kv_heads * kv.k_dim * width, .5),
           values(kv.kv_heads * kv.v_dim * width, .5), values(heads * kv.v_dim * width, .3)});
    }
    x0 = values(pass.num_seqs * pass.length * width, 1);
    wish = values(pass.num_seqs * pass.length * width, 1);
    if (shape.sinks) sinks = random_values<float>(heads, ++seed);
  }

  std::size_t width() const { return static_cast<std::size_t>(shape.width); }
  std::int64_t rows() const { return std::int64_t{pass.num_seqs} * pass.length; }
  strata::kv_class const& kv(std::size_t l) const { return shape.layers[l].kv; }
  std::vector<layer_weights<T>> no_gradients() const {
    std::vector<layer_weights<T>> zero = layers;
    for (auto& l : zero)
      for (auto* w : {&l.q, &l.k, &l.v, &l.o}) w->assign(w->size(), T{0});
    return zero;
  }
  strata::score_rule rule() const {
    strata::score_rule rule;
    rule.softcap = shape.softcap;
    if (shape.sinks) rule.sink_logits = sinks.data();
    return rule;
  }
  T loss(std::vector<T> const& x) const {
    T sum = 0;
    for (std::size_t i = 0; i < x.size(); ++i) sum += wish[i] * x[i];
    return sum;
  }
};

/// h = x + Wo out, and x' = h + tanh(h) / 2.
template <class T>
std::vector<T> residual(std::vector<T> const& x, std::vector<T> const& added) {
  auto h = x;
  for (std::size_t i = 0; i < added.size(); ++i) h[i] += added[i];
  return h;
}
template <class T>
std::vector<T> bend(std::vector<T> h) {
  for (auto& x : h) x += std::tanh(x) / 2;
  return h;
}
template <class T>
std::vector<T> bend_backward(std::vector<T> const& h, std::vector<T> d) {
  for (std::size_t i = 0; i < h.size(); ++i) {
    auto const t = std::tanh(h[i]);
    d[i] *= 1 + (1 - t * t) / 2;
  }
  return d;
}

/// One training pass of a network with a given plan.
template <class T, class Router, class Exec = share_executor>
class routed_pass {
 public:
  using number = T;
  using A = strata::accum_t<T>;

  /// What a layer leaves behind for its backward.
  struct layer_record {
    std::vector<T> x, q, out, h;
    std::vector<A> lse;
  };
  std::vector<std::vector<T>> k, v;    // [rows, kv_heads, dim]; NaN where nobody reads them
  std::vector<std::vector<A>> dk, dv;  // NaN until backward writes them
  std::vector<layer_record> record;

  routed_pass(network<T> const& net, Router const& router, strata::route_plan const& plan,
              Exec& exec)
      : record(net.layers.size()), net_(net), router_(router), plan_(plan), exec_(exec) {
    for (std::size_t l = 0; l < net.layers.size(); ++l) {
      auto const& kv = net.kv(l);
      auto const sized = [&](std::int32_t dim) {
        return static_cast<std::size_t>(net.rows() * kv.kv_heads * dim);
      };
      k.emplace_back(sized(kv.k_dim), T(NAN));
      v.emplace_back(sized(kv.v_dim), T(NAN));
      dk.emplace_back(sized(kv.k_dim), A(NAN));
      dv.emplace_back(sized(kv.v_dim), A(NAN));
    }
  }

  /// The output x_L.
  std::vector<T> forward() {
    auto x = net_.x0;
    for (std::size_t l = 0; l < net_.layers.size(); ++l) x = forward_layer(l, x);
    return x;
  }

  std::vector<T> forward_layer(std::size_t l, std::vector<T> const& x) {
    auto& r = record[l];
    auto const& w = net_.layers[l];
    r.x = x;
    if (!net_.shape.layers[l].has_kv) return bend(r.h = x);
    auto const& step = plan_[id(l)];
    if (step.k.stored) k[l] = multiply(w.k, x, net_.width());
    if (step.v.stored) v[l] = multiply(w.v, x, net_.width());
    r.q = multiply(w.q, x, net_.width());
    auto const heads = static_cast<std::size_t>(net_.rows() * net_.shape.q_heads);
    r.out.assign(heads * static_cast<std::size_t>(net_.kv(l).v_dim), T(NAN));
    r.lse.assign(heads, A(NAN));
    auto const bytes = *router_.workspace_bytes(id(l), queries(l), net_.pass, exec_.num_shares());
    state = router_.forward(exec_, plan_, id(l), queries(l), tensors(), net_.pass,
                            workspace_.get(bytes));
    return bend(r.h = residual(x, multiply(w.o, r.out, r.out.size() / rows())));
  }

  /// Gradients of all weights, and of x0 in `dx`.
  std::vector<layer_weights<T>> backward() {
    auto grads = net_.no_gradients();
    dx = net_.wish;
    for (std::size_t l = net_.layers.size(); l-- > 0;) backward_layer(l, grads[l]);
    return grads;
  }

  void backward_layer(std::size_t l, layer_weights<T>& grad) {
    auto const& r = record[l];
    auto const& w = net_.layers[l];
    dx = bend_backward(r.h, std::move(dx));
    if (!net_.shape.layers[l].has_kv) return;
    std::vector<T> d_out(r.out.size()), dq(r.q.size(), T(NAN));
    multiply_backward(w.o, r.out, r.out.size() / rows(), dx, d_out, grad.o);
    auto const bytes = *router_.workspace_bytes(id(l), queries(l), net_.pass, exec_.num_shares());
    state = router_.backward(exec_, plan_, id(l), queries(l), tensors(), net_.pass, d_out.data(),
                             dq.data(), workspace_.get(bytes));
    multiply_backward(w.q, r.x, net_.width(), dq, dx, grad.q);
    // All readers have been here. What nobody read has no gradient, and nobody looks at it.
    auto const narrow = [](std::vector<A> const& d) { return std::vector<T>(d.begin(), d.end()); };
    auto const& step = plan_[id(l)];
    if (step.k.stored) multiply_backward(w.k, r.x, net_.width(), narrow(dk[l]), dx, grad.k);
    if (step.v.stored) multiply_backward(w.v, r.x, net_.width(), narrow(dv[l]), dx, grad.v);
  }

  strata::layer_queries<T> queries(std::size_t l) {
    auto& r = record[l];
    strata::layer_queries<T> q;
    q.q = r.q.data();
    q.out = r.out.data();
    q.lse = r.lse.data();
    q.q_heads = net_.shape.q_heads;
    q.rule = net_.rule();
    return q;
  }

  std::vector<strata::layer_tensors<T>> const& tensors() {
    tensors_.clear();
    for (std::size_t l = 0; l < k.size(); ++l)
      tensors_.push_back({k[l].data(), v[l].data(), dk[l].data(), dv[l].data()});
    return tensors_;
  }

  std::vector<T> dx;
  strata::status state;  // of the attention call made last

 private:
  static strata::layer_id id(std::size_t l) { return {static_cast<std::int32_t>(l)}; }
  std::size_t rows() const { return static_cast<std::size_t>(net_.rows()); }

  network<T> const& net_;
  Router const& router_;
  strata::route_plan const& plan_;
  Exec& exec_;
  std::vector<strata::layer_tensors<T>> tensors_;
  workspace_memory workspace_;
};

}  // namespace support
