// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The toy model once more: all tokens at once, dense matrices, no cache, no rows that are left out.
// Uses only the weights and the codecs of what it checks.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "dense_attention.hpp"
#include "encode_row.hpp"
#include "toy_model.hpp"

namespace support {

/// What each layer reads, written by hand or by a map under test.
struct toy_sources {
  std::vector<std::int32_t> k, v;  // [num_layers]
};

/// From token `from` on, other sources: a cache that shrinks.
struct toy_change {
  std::size_t from = 0;
  toy_sources sources;
};

/// The final rows of one sequence, [tokens, width]. K and V go through the codecs, as in a cache.
template <class KCodec, class VCodec, class T>
std::vector<double> toy_oracle(toy_model<T> const& model, toy_sources const& sources,
                               std::vector<std::int32_t> const& tokens,
                               std::vector<std::int32_t> const& positions,
                               toy_change const* change = nullptr) {
  auto const& shape = model.shape();
  auto const width = static_cast<std::size_t>(shape.width), n = tokens.size();
  std::vector<T> x(n * width);
  for (std::size_t i = 0; i < n; ++i) model.embed(tokens[i], &x[i * width]);
  std::vector<std::vector<double>> ks, vs;  // of every layer, needed or not
  for (strata::layer_id l{0}; l.index < shape.num_layers(); ++l.index) {
    auto const& kind = model.kind(l);
    auto const& kv = kind.kv;
    auto const at = static_cast<std::size_t>(l.index);
    auto& k = ks.emplace_back();
    auto& v = vs.emplace_back();
    if (!kind.has_kv) {
      std::vector<T> state(width);
      for (std::size_t i = 0; i < n; ++i) model.recur(l, state.data(), &x[i * width]);
      continue;
    }
    std::vector<double> q;
    auto const through = [&]<class Codec>(Codec, std::vector<T> const& head, std::int32_t dim,
                                          std::vector<double>& to) {
      std::vector<std::byte> bytes(static_cast<std::size_t>(Codec::row_bytes(dim)));
      std::vector<std::byte> scales(static_cast<std::size_t>(Codec::scale_bytes(dim)));
      std::vector<double> back(static_cast<std::size_t>(dim));
      for (std::size_t from = 0; from < head.size(); from += back.size()) {
        encode_row<Codec>(&head[from], dim, bytes.data(), scales.data());
        Codec::decode(bytes.data(), scales.data(), dim, back.data());
        to.insert(to.end(), back.begin(), back.end());
      }
    };
    for (std::size_t i = 0; i < n; ++i) {
      std::vector<T> k_row(static_cast<std::size_t>(kv.kv_heads * kv.k_dim));
      std::vector<T> v_row(static_cast<std::size_t>(kv.kv_heads * kv.v_dim));
      std::vector<T> q_row(static_cast<std::size_t>(shape.q_heads * kv.k_dim));
      model.k(l, positions[i], &x[i * width], k_row.data());
      model.v(l, &x[i * width], v_row.data());
      model.q(l, positions[i], &x[i * width], q_row.data());
      through(KCodec{}, k_row, kv.k_dim, k);
      through(VCodec{}, v_row, kv.v_dim, v);
      q.insert(q.end(), q_row.begin(), q_row.end());
    }
    dense_attention dense{shape.q_heads, kv.kv_heads, kv.k_dim, kv.v_dim, 0, shape.softcap};
    dense.window = kind.window == strata::unbounded_window ? 0 : kind.window;
    auto const rule = model.rule();
    if (shape.sinks) dense.sinks.assign(rule.sink_logits, rule.sink_logits + shape.q_heads);
    auto const attend = [&](toy_sources const& read) {
      return dense
          .forward(q, positions, ks[static_cast<std::size_t>(read.k[at])],
                   vs[static_cast<std::size_t>(read.v[at])], positions)
          .out;
    };
    auto out = attend(sources);
    auto const out_size = static_cast<std::size_t>(shape.q_heads * kv.v_dim);
    if (change != nullptr) {
      auto const later = attend(change->sources);
      auto const first = static_cast<std::ptrdiff_t>(change->from * out_size);
      std::copy(later.begin() + first, later.end(), out.begin() + first);
    }
    for (std::size_t i = 0; i < n; ++i) {
      std::vector<T> out_row(out_size);
      for (std::size_t j = 0; j < out_size; ++j) out_row[j] = static_cast<T>(out[i * out_size + j]);
      model.finish(l, out_row.data(), &x[i * width]);
    }
  }
  return {x.begin(), x.end()};
}

}  // namespace support
