// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstddef>
#include <cstdint>

#include <strata/random.hpp>
#include <strata/status.hpp>

#include "config.hpp"
#include "gemm.hpp"
#include "growing_buffer.hpp"
#include "narrow_product.hpp"
#include "parameters.hpp"

namespace lm {

/// What a server computes in: the activations of a step, and scratch of which each thread has a
/// slab. Grows with the largest batch seen.
template <class T>
struct step_memory {
  using buffer = growing_buffer<T>;

  buffer x, h;  ///< [rows, dim], residual stream and normed
  buffer q, o;  ///< [rows, q_heads, head_dim]; o first holds Q before its norm
  buffer k, v;  ///< [threads, slab_rows, kv_heads, head_dim]; v first holds K before its norm
  buffer gate, up, act;                 ///< [threads, slab_rows, mlp]
  buffer widened;                       ///< [threads, product_scratch], where weights are bf16
  buffer logits;                        ///< [logit rows, vocab]; the server grows it
  growing_buffer<std::byte> attention;  ///< the kernel's workspace; likewise

  /// Makes room for the activations of `rows` rows.
  strata::status grow(model_config const& c, std::int64_t rows, std::int32_t threads) noexcept {
    auto const scratch = slab_rows * threads;
    strata::status const outcomes[] = {
        x.grow(rows * c.dim),       h.grow(rows * c.dim),         q.grow(rows * c.q_dim()),
        o.grow(rows * c.q_dim()),   k.grow(scratch * c.kv_dim()), v.grow(scratch * c.kv_dim()),
        gate.grow(scratch * c.mlp), up.grow(scratch * c.mlp),     act.grow(scratch * c.mlp)};
    for (auto const& outcome : outcomes)
      if (!outcome.ok()) return outcome;
    return {};
  }

  /// Makes room for products with weights of bf16.
  strata::status grow_scratch(model_config const& c, std::int32_t threads) noexcept {
    std::int64_t widest = 0;
    for (std::int64_t const in : {c.dim, c.q_dim(), c.mlp}) widest = in > widest ? in : widest;
    return widened.grow(product_scratch(widest) * threads);
  }

  /// What all of them hold.
  std::int64_t bytes() const noexcept {
    std::int64_t elements = 0;
    for (auto const* const one : {&x, &h, &q, &o, &k, &v, &gate, &up, &act, &widened, &logits})
      elements += one->size();
    return elements * static_cast<std::int64_t>(sizeof(T)) + attention.size();
  }

  /// The rows of a scratch buffer that belong to a part's thread.
  static T* of_thread(buffer& scratch, slab part, std::int64_t width) noexcept {
    return scratch.data() + part.thread * slab_rows * width;
  }

  /// Fills k and v with numbers of the size that normed keys and values have.
  void fill_with_noise(std::int64_t count) noexcept {
    for (std::int64_t i = 0; i < count; i += 4) {
      auto const words = strata::draw_words({}, strata::whole_model, strata::draw_purpose::weights,
                                            static_cast<std::uint32_t>(i));
      double draw[4] = {};
      detail::normals(words, draw);
      for (std::int64_t j = i; j < i + 4 && j < count; ++j) {
        k.data()[j] = static_cast<T>(draw[j - i]);
        v.data()[j] = static_cast<T>(draw[3 - (j - i)]);
      }
    }
  }
};

}  // namespace lm
