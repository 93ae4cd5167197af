// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Somebody else's trainer, in the manner of llm.c: flat arrays, plain loops, its own backward and
// its own layer loop. Byte embeddings, layers of attention with a residual, tied output. strata
// owns none of the memory: look at `forward_layers` and `backward_layers` for the four places where
// it is called.
#pragma once

#include <strata/strata.hpp>

#include <cmath>
#include <cstdint>
#include <random>
#include <string_view>
#include <vector>

struct decoder_shape {
  int layers = 4, dim = 16, q_heads = 2, kv_heads = 1, head_dim = 8;
  int sequences = 4, length = 32;  // of a training pass

  int rows() const { return sequences * length; }
  strata::kv_classes classes() const {
    return strata::kv_classes::uniform(
        layers, {.kv = {.kv_heads = kv_heads, .k_dim = head_dim, .v_dim = head_dim}});
  }
};

/// out[r][o] = sum_i in[r][i] w[o][i]
template <class T>
void matmul_forward(T* out, T const* in, T const* w, int rows, int in_dim, int out_dim) {
  for (int r = 0; r < rows; ++r)
    for (int o = 0; o < out_dim; ++o) {
      T sum = 0;
      for (int i = 0; i < in_dim; ++i) sum += in[r * in_dim + i] * w[o * in_dim + i];
      out[r * out_dim + o] = sum;
    }
}

/// Adds to d_in and d_w.
template <class T>
void matmul_backward(T* d_in, T* d_w, T const* d_out, T const* in, T const* w, int rows, int in_dim,
                     int out_dim) {
  for (int r = 0; r < rows; ++r)
    for (int o = 0; o < out_dim; ++o)
      for (int i = 0; i < in_dim; ++i) {
        d_in[r * in_dim + i] += d_out[r * out_dim + o] * w[o * in_dim + i];
        d_w[o * in_dim + i] += d_out[r * out_dim + o] * in[r * in_dim + i];
      }
}

/// T is double or float; Router is strata::router<Sampler, Kernel>.
template <class T, class Router>
class tiny_decoder {
 public:
  tiny_decoder(decoder_shape const& s, Router const& r, unsigned seed) : shape(s), router(r) {
    std::mt19937 generator(seed);
    std::normal_distribution<double> normal(0, 0.3);
    auto const weights = [&](int rows, int cols) {
      std::vector<T> w(static_cast<std::size_t>(rows * cols));
      for (auto& x : w) x = static_cast<T>(normal(generator));
      return w;
    };
    int const q_dim = s.q_heads * s.head_dim, kv_dim = s.kv_heads * s.head_dim;
    embedding = weights(256, s.dim);
    for (int l = 0; l < s.layers; ++l)
      layer.push_back({weights(q_dim, s.dim), weights(kv_dim, s.dim), weights(kv_dim, s.dim),
                       weights(s.dim, q_dim), s});
    d_embedding.resize(embedding.size());
    for (auto& a : layer) tensors.push_back({a.k.data(), a.v.data(), a.dk.data(), a.dv.data()});
    last_x.resize(static_cast<std::size_t>(s.rows() * s.dim));
    d_x.resize(last_x.size());
    workspace.resize(1 << 16);
  }

  /// Mean cross-entropy of predicting text[i + 1] from text[.. i], and its gradients.
  double pass(strata::route_plan const& plan, std::string_view text) {
    forward_layers(plan, text);
    auto const loss = loss_and_gradient(text);
    backward_layers(plan, text);
    return loss;
  }
  /// The loss alone.
  double loss(strata::route_plan const& plan, std::string_view text) {
    forward_layers(plan, text);
    return loss_and_gradient(text);
  }

  /// The loss alone, as a strata::stack serves the text: K and V lie in its storage.
  template <class Stack>
  double served_loss(Stack& server, strata::route_plan const& plan, std::string_view text) {
    int const rows = shape.rows(), dim = shape.dim;
    int const q_dim = shape.q_heads * shape.head_dim, kv_dim = shape.kv_heads * shape.head_dim;
    std::vector<strata::batch_entry> batch;
    for (int s = 0; s < shape.sequences; ++s)
      batch.push_back({server.open(plan).value(), shape.length, strata::logits::all});
    auto step = server.begin(batch);
    check(step.state());
    embed(text);
    for (int l = 0; l < shape.layers; ++l) {
      auto& a = layer[static_cast<std::size_t>(l)];
      matmul_forward(a.q.data(), a.x.data(), a.wq.data(), rows, dim, q_dim);
      for (auto const& run : step.k_writers({l})) {  // none in a follower
        matmul_forward(a.k.data(), a.x.data(), a.wk.data(), rows, dim, kv_dim);
        run.store_all(a.k.data());
      }
      for (auto const& run : step.v_writers({l})) {
        matmul_forward(a.v.data(), a.x.data(), a.wv.data(), rows, dim, kv_dim);
        run.store_all(a.v.data());
      }
      check(step.attend(here, {l}, queries(l), workspace));
      leave(l);
    }
    check(step.commit());
    return loss_and_gradient(text);
  }

  /// A step of gradient descent, its gradient clipped to norm 1.
  void descend(T rate) {
    T squares = 0;
    each_weight([&](T&, T d) { squares += d * d; });
    T const norm = std::sqrt(squares);
    each_weight([&](T& w, T d) { w -= rate * d / (norm > 1 ? norm : 1); });
  }

  template <class F>
  void each_weight(F const& f) {
    auto const all = [&](std::vector<T>& w, std::vector<T> const& d) {
      for (std::size_t i = 0; i < w.size(); ++i) f(w[i], d[i]);
    };
    all(embedding, d_embedding);
    for (auto& a : layer) all(a.wq, a.dwq), all(a.wk, a.dwk), all(a.wv, a.dwv), all(a.wo, a.dwo);
  }

  struct layer_memory {
    std::vector<T> wq, wk, wv, wo;  // [q_dim, dim], [kv_dim, dim], [kv_dim, dim], [dim, q_dim]
    std::vector<T> dwq, dwk, dwv, dwo;
    std::vector<T> x;                 // [rows, dim], the layer's input
    std::vector<T> q, out, lse, d_q;  // [rows, q_heads, head_dim]; lse [rows, q_heads]
    std::vector<T> k, v, dk, dv;      // [rows, kv_heads, head_dim]

    layer_memory(std::vector<T> q_weights, std::vector<T> k_weights, std::vector<T> v_weights,
                 std::vector<T> o_weights, decoder_shape const& s)
        : wq(std::move(q_weights)),
          wk(std::move(k_weights)),
          wv(std::move(v_weights)),
          wo(std::move(o_weights)),
          dwq(wq.size()),
          dwk(wk.size()),
          dwv(wv.size()),
          dwo(wo.size()),
          x(static_cast<std::size_t>(s.rows() * s.dim)),
          q(static_cast<std::size_t>(s.rows() * s.q_heads * s.head_dim)),
          out(q.size()),
          lse(static_cast<std::size_t>(s.rows() * s.q_heads)),
          d_q(q.size()),
          k(static_cast<std::size_t>(s.rows() * s.kv_heads * s.head_dim)),
          v(k.size()),
          dk(k.size()),
          dv(k.size()) {}
  };

  decoder_shape shape;
  Router router;
  std::vector<T> embedding, d_embedding;  // [256, dim]
  std::vector<layer_memory> layer;

 private:
  strata::layer_queries<T> queries(int l) {
    auto& a = layer[static_cast<std::size_t>(l)];
    return {.q = a.q.data(), .out = a.out.data(), .lse = a.lse.data(), .q_heads = shape.q_heads};
  }

  void forward_layers(strata::route_plan const& plan, std::string_view text) {
    int const rows = shape.rows(), dim = shape.dim;
    int const q_dim = shape.q_heads * shape.head_dim, kv_dim = shape.kv_heads * shape.head_dim;
    embed(text);
    for (int l = 0; l < shape.layers; ++l) {
      auto& a = layer[static_cast<std::size_t>(l)];
      matmul_forward(a.q.data(), a.x.data(), a.wq.data(), rows, dim, q_dim);
      // 1: K and V that nobody reads in this pass are not computed.
      if (plan.layers[l].k.stored)
        matmul_forward(a.k.data(), a.x.data(), a.wk.data(), rows, dim, kv_dim);
      if (plan.layers[l].v.stored)
        matmul_forward(a.v.data(), a.x.data(), a.wv.data(), rows, dim, kv_dim);
      // 2: attention over whatever source the plan says.
      check(router.forward(here, plan, {l}, queries(l), tensors, pass_shape(), workspace));
      leave(l);
    }
  }

  void embed(std::string_view text) {
    for (int r = 0; r < shape.rows(); ++r)
      for (int i = 0; i < shape.dim; ++i)
        layer[0].x[static_cast<std::size_t>(r * shape.dim + i)] = embedding[at(text, r, i)];
  }

  /// From a layer's attention to the next layer's input.
  void leave(int l) {
    auto& a = layer[static_cast<std::size_t>(l)];
    auto& next = l + 1 < shape.layers ? layer[static_cast<std::size_t>(l) + 1].x : last_x;
    matmul_forward(next.data(), a.out.data(), a.wo.data(), shape.rows(),
                   shape.q_heads * shape.head_dim, shape.dim);
    for (std::size_t i = 0; i < next.size(); ++i) next[i] += a.x[i];
  }

  void backward_layers(strata::route_plan const& plan, std::string_view text) {
    int const rows = shape.rows(), dim = shape.dim;
    int const q_dim = shape.q_heads * shape.head_dim, kv_dim = shape.kv_heads * shape.head_dim;
    std::vector<T> d_out(static_cast<std::size_t>(rows * q_dim));
    for (int l = shape.layers - 1; l >= 0; --l) {
      auto& a = layer[static_cast<std::size_t>(l)];
      for (auto* d : {&a.dwq, &a.dwk, &a.dwv, &a.dwo}) d->assign(d->size(), T{0});
      d_out.assign(d_out.size(), T{0});
      matmul_backward(d_out.data(), a.dwo.data(), d_x.data(), a.out.data(), a.wo.data(), rows,
                      q_dim, dim);
      // 3: gradients into the source's dk and dv; the highest reader starts the sum.
      check(router.backward(here, plan, {l}, queries(l), tensors, pass_shape(), d_out.data(),
                            a.d_q.data(), workspace));
      matmul_backward(d_x.data(), a.dwq.data(), a.d_q.data(), a.x.data(), a.wq.data(), rows, dim,
                      q_dim);
      // 4: by now every reader of this layer's K and V has been here; unread ones stay zeros.
      if (plan.layers[l].k.stored)
        matmul_backward(d_x.data(), a.dwk.data(), a.dk.data(), a.x.data(), a.wk.data(), rows, dim,
                        kv_dim);
      if (plan.layers[l].v.stored)
        matmul_backward(d_x.data(), a.dwv.data(), a.dv.data(), a.x.data(), a.wv.data(), rows, dim,
                        kv_dim);
    }
    for (int r = 0; r < rows; ++r)
      for (int i = 0; i < dim; ++i)
        d_embedding[at(text, r, i)] += d_x[static_cast<std::size_t>(r * dim + i)];
  }

  /// Softmax over 256 bytes; leaves the gradient of the last layer's output in d_x.
  double loss_and_gradient(std::string_view text) {
    int const rows = shape.rows(), dim = shape.dim;
    double loss = 0;
    d_x.assign(d_x.size(), T{0});
    d_embedding.assign(d_embedding.size(), T{0});
    std::vector<T> logit(256), d_logit(256);
    for (int r = 0; r < rows; ++r) {
      T const* const x = last_x.data() + r * dim;
      matmul_forward(logit.data(), x, embedding.data(), 1, dim, 256);
      T top = logit[0], sum = 0;
      for (T const z : logit) top = z > top ? z : top;
      for (T const z : logit) sum += std::exp(z - top);
      auto const wanted = byte_at(text, r, 1);
      loss += static_cast<double>(top + std::log(sum) - logit[wanted]) / rows;
      for (std::size_t c = 0; c < 256; ++c)
        d_logit[c] =
            (std::exp(logit[c] - top) / sum - (c == wanted ? 1 : 0)) / static_cast<T>(rows);
      matmul_backward(d_x.data() + r * dim, d_embedding.data(), d_logit.data(), x, embedding.data(),
                      1, dim, 256);
    }
    return loss;
  }

  strata::pass_shape pass_shape() const { return {shape.sequences, shape.length}; }
  std::size_t byte_at(std::string_view text, int row, int ahead) const {
    auto const i = static_cast<std::size_t>(row / shape.length * (shape.length + 1) +
                                            row % shape.length + ahead);
    return static_cast<unsigned char>(text[i]);
  }
  std::size_t at(std::string_view text, int row, int i) const {
    return byte_at(text, row, 0) * static_cast<std::size_t>(shape.dim) +
           static_cast<std::size_t>(i);
  }
  static void check(strata::status const& s) {
    if (!s.ok()) throw strata::error(s);
  }

  std::vector<strata::layer_tensors<T>> tensors;  // [layers]
  std::vector<T> last_x, d_x;                     // [rows, dim]
  std::vector<std::byte> workspace;
  strata::serial_executor here;
};

/// Psalm 1 (King James Version), long enough for four sequences of 33 bytes at many offsets.
inline constexpr std::string_view psalm =
    "Blessed is the man that walketh not in the counsel of the ungodly, nor standeth in the way "
    "of sinners, nor sitteth in the seat of the scornful. But his delight is in the law of the "
    "LORD; and in his law doth he meditate day and night. And he shall be like a tree planted by "
    "the rivers of water, that bringeth forth his fruit in his season; his leaf also shall not "
    "wither; and whatsoever he doeth shall prosper. The ungodly are not so: but are like the "
    "chaff which the wind driveth away. Therefore the ungodly shall not stand in the judgment, "
    "nor sinners in the congregation of the righteous. For the LORD knoweth the way of the "
    "righteous: but the way of the ungodly shall perish.";
