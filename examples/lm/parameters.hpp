// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// All parameters of a model in one flat buffer, as named tensors in a fixed order. Gradients and
// optimizer moments are buffers of the same table.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <strata/random.hpp>

#include "aligned_buffer.hpp"
#include "config.hpp"

namespace lm {

/// What a tensor is for: decides how it is drawn, and that norm gains do not decay.
enum class tensor_role : std::int32_t {
  matrix,
  residual,  ///< a matrix that writes into the residual stream: drawn smaller
  norm
};

/// One tensor of the flat buffer. Matrices are [rows, cols] = [out, in]; norm gains are [1, n].
struct tensor_entry {
  std::string name;         ///< "embedding", "layers.3.wq", ..., "final_norm", "head"
  std::int64_t offset = 0;  ///< in elements
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  tensor_role role = tensor_role::matrix;

  std::int64_t size() const noexcept { return rows * cols; }
  friend bool operator==(tensor_entry const&, tensor_entry const&) = default;
};

/// The tensors of a model in the order of the buffer. Each starts on a multiple of 16 elements (a
/// cache line of floats); what lies between is zero and stays so.
struct tensor_table {
  std::vector<tensor_entry> entries;
  std::int64_t size = 0;  ///< elements of the whole buffer

  static constexpr std::int64_t alignment = 16;  ///< elements

  void add(std::string name, std::int64_t rows, std::int64_t cols,
           tensor_role role = tensor_role::matrix) {
    entries.push_back({std::move(name), size, rows, cols, role});
    size += (rows * cols + alignment - 1) / alignment * alignment;
  }
};

inline tensor_table make_tensor_table(model_config const& c) {
  tensor_table table;
  table.add("embedding", c.vocab, c.dim);
  for (std::int32_t l = 0; l < c.layers; ++l) {
    auto const name = [&](char const* tensor) {
      return "layers." + std::to_string(l) + "." + tensor;
    };
    table.add(name("attention_norm"), 1, c.dim, tensor_role::norm);
    table.add(name("wq"), c.q_dim(), c.dim);
    table.add(name("wk"), c.kv_dim(), c.dim);
    table.add(name("wv"), c.kv_dim(), c.dim);
    if (c.qk_norm) table.add(name("q_norm"), 1, c.head_dim, tensor_role::norm);
    if (c.qk_norm) table.add(name("k_norm"), 1, c.head_dim, tensor_role::norm);
    table.add(name("wo"), c.dim, c.q_dim(), tensor_role::residual);
    table.add(name("mlp_norm"), 1, c.dim, tensor_role::norm);
    table.add(name("w_gate"), c.mlp, c.dim);
    table.add(name("w_up"), c.mlp, c.dim);
    table.add(name("w_down"), c.dim, c.mlp, tensor_role::residual);
  }
  table.add("final_norm", 1, c.dim, tensor_role::norm);
  if (!c.tied) table.add("head", c.vocab, c.dim);
  return table;
}

/// Whether w_up follows w_gate without a gap: the two are then one matrix, [2 mlp, dim].
inline bool mlp_is_one_product(model_config const& c) noexcept {
  return std::int64_t{c.mlp} * c.dim % tensor_table::alignment == 0;
}
/// Whether wv follows wk, and wk follows wq.
inline bool kv_is_one_product(model_config const& c) noexcept {
  return std::int64_t{c.kv_dim()} * c.dim % tensor_table::alignment == 0;
}
inline bool qkv_is_one_product(model_config const& c) noexcept {
  return kv_is_one_product(c) && std::int64_t{c.q_dim()} * c.dim % tensor_table::alignment == 0;
}

/// One layer's tensors. T is const where they are only read. Servers, whose matrices may have other
/// numbers, have a Matrix of their own.
template <class T, class Matrix = T*>
struct layer_weights {
  T* attention_norm = nullptr;  ///< [dim]
  Matrix wq = {};               ///< [q_dim, dim]
  Matrix wk = {};               ///< [kv_dim, dim]
  Matrix wv = {};               ///< [kv_dim, dim]
  T* q_norm = nullptr;          ///< [head_dim], or null without qk_norm
  T* k_norm = nullptr;          ///< [head_dim], or null without qk_norm
  Matrix wo = {};               ///< [dim, q_dim]
  T* mlp_norm = nullptr;        ///< [dim]
  Matrix w_gate = {};           ///< [mlp, dim]
  Matrix w_up = {};             ///< [mlp, dim]
  Matrix w_down = {};           ///< [dim, mlp]
};

/// The tensors of a model, wherever their buffer lies.
template <class T, class Matrix = T*>
struct model_weights {
  Matrix embedding = {};                        ///< [vocab, dim]
  std::vector<layer_weights<T, Matrix>> layer;  ///< [layers]
  T* final_norm = nullptr;                      ///< [dim]
  Matrix head = {};                             ///< [vocab, dim]; the embedding where tied
};

/// matrix_at(index of an entry) and gain_at(index) say where those lie.
template <class T, class Matrix, class MatrixAt, class GainAt>
model_weights<T, Matrix> point_at(model_config const& c, MatrixAt const& matrix_at,
                                  GainAt const& gain_at) {
  model_weights<T, Matrix> w;
  std::size_t entry = 0;
  auto const matrix = [&] { return matrix_at(entry++); };
  auto const gain = [&] { return gain_at(entry++); };
  w.embedding = matrix();
  for (std::int32_t l = 0; l < c.layers; ++l) {
    layer_weights<T, Matrix> layer;
    layer.attention_norm = gain();
    layer.wq = matrix();
    layer.wk = matrix();
    layer.wv = matrix();
    if (c.qk_norm) layer.q_norm = gain();
    if (c.qk_norm) layer.k_norm = gain();
    layer.wo = matrix();
    layer.mlp_norm = gain();
    layer.w_gate = matrix();
    layer.w_up = matrix();
    layer.w_down = matrix();
    w.layer.push_back(layer);
  }
  w.final_norm = gain();
  w.head = c.tied ? w.embedding : matrix();
  return w;
}

template <class T>
model_weights<T> point_into(T* buffer, tensor_table const& table, model_config const& c) {
  auto const at = [&](std::size_t i) { return buffer + table.entries[i].offset; };
  return point_at<T, T*>(c, at, at);
}

/// A model's parameters, or something else of the same shape, such as their gradients. Zeros at
/// first. Moves, but does not copy.
template <class T>
class parameters {
 public:
  explicit parameters(model_config const& config)
      : config_(config),
        table_(make_tensor_table(config)),
        buffer_(table_.size),
        weights_(point_into<T>(buffer_.data(), table_, config)),
        const_weights_(point_into<T const>(buffer_.data(), table_, config)) {}

  model_config const& config() const noexcept { return config_; }
  tensor_table const& table() const noexcept { return table_; }
  std::span<T> values() noexcept { return buffer_.values(); }
  std::span<T const> values() const noexcept { return buffer_.values(); }
  model_weights<T> const& weights() noexcept { return weights_; }
  model_weights<T const> const& weights() const noexcept { return const_weights_; }

  std::span<T> tensor(tensor_entry const& e) noexcept {
    return values().subspan(static_cast<std::size_t>(e.offset), static_cast<std::size_t>(e.size()));
  }
  std::span<T const> tensor(tensor_entry const& e) const noexcept {
    return values().subspan(static_cast<std::size_t>(e.offset), static_cast<std::size_t>(e.size()));
  }

 private:
  model_config config_;
  tensor_table table_;
  aligned_buffer<T> buffer_;
  model_weights<T> weights_;
  model_weights<T const> const_weights_;
};

namespace detail {

/// Four independent normal numbers out of one block of random words (Box and Muller, 1958).
inline void normals(strata::philox_block const& words, double (&out)[4]) noexcept {
  constexpr double unit = 1.0 / 4294967296.0;
  for (int pair = 0; pair < 2; ++pair) {
    auto const radius = std::sqrt(-2 * std::log((words.word[2 * pair] + 0.5) * unit));
    auto const angle = 2 * std::numbers::pi * (words.word[2 * pair + 1] * unit);
    out[2 * pair] = radius * std::cos(angle);
    out[2 * pair + 1] = radius * std::sin(angle);
  }
}

}  // namespace detail

/// Draws the weights: norm gains 1, matrices normal with deviation 0.02, those that write into the
/// residual stream with 0.02 / sqrt(2 layers), so that its variance does not grow with depth. The
/// numbers of tensor i come from draw_words({seed}, i, draw_purpose::weights, index), four a block.
template <class T>
void initialise(parameters<T>& model, std::uint64_t seed) {
  strata::draw_key key;
  key.seed = seed;
  std::uint32_t which = 0;
  for (auto const& entry : model.table().entries) {
    auto const values = model.tensor(entry);
    bool const residual = entry.role == tensor_role::residual;
    auto const deviation = 0.02 / (residual ? std::sqrt(2.0 * model.config().layers) : 1.0);
    for (std::size_t i = 0; i < values.size(); i += 4) {
      double draw[4] = {};
      detail::normals(strata::draw_words(key, which, strata::draw_purpose::weights,
                                         static_cast<std::uint32_t>(i / 4)),
                      draw);
      for (std::size_t j = i; j < i + 4 && j < values.size(); ++j)
        values[j] = static_cast<T>(entry.role == tensor_role::norm ? 1.0 : deviation * draw[j - i]);
    }
    ++which;
  }
}

}  // namespace lm
