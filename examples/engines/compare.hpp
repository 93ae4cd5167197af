// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What the engine examples share: one batch of K/V as plain tensors, decode queries for it, and a
// check that a view of an engine's memory gives the same attention as a view of the tensors.
#pragma once

#include <strata/strata.hpp>

#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

namespace engines {

inline constexpr int num_seqs = 2;
inline constexpr int q_heads = 4;
inline constexpr int kv_heads = 2;
inline constexpr int head_dim = 32;
inline constexpr int max_length = 13;
inline constexpr int length[num_seqs] = {13, 6};

inline std::vector<float> random_tensor(std::size_t count, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<float> tensor(count);
  for (auto& x : tensor) x = normal(generator);
  return tensor;
}

/// K or V of one layer as a framework would hold it: [num_seqs, max_length, kv_heads, head_dim].
struct plain_tensor {
  std::vector<float> data;
  explicit plain_tensor(unsigned seed)
      : data(random_tensor(num_seqs * max_length * kv_heads * head_dim, seed)) {}
  float const* head(int seq, int token, int h) const {
    return data.data() + ((seq * max_length + token) * kv_heads + h) * head_dim;
  }
};

/// Attention of one query per sequence over a view: [num_seqs, q_heads, head_dim].
template <class View>
std::vector<float> decode(View const& view) {
  static auto const q = random_tensor(num_seqs * q_heads * head_dim, 99);
  std::vector<float> out(q.size());
  strata::query_rows<float> rows;
  rows.q = q.data();
  rows.out = out.data();
  rows.num_seqs = num_seqs;
  rows.q_heads = q_heads;
  std::vector<std::byte> workspace(4096);
  strata::serial_executor here;
  auto const s = strata::attend(here, strata::reference_attention{}, rows, view, workspace);
  if (!s.ok()) std::printf("refused: %s\n", strata::describe(s).c_str());
  return s.ok() ? out : std::vector<float>(q.size(), NAN);
}

/// The same from the plain tensors. Sequences may read different layers (mixed depth).
inline std::vector<float> expected(plain_tensor const& k, plain_tensor const& v) {
  auto view = strata::contiguous_view(k.data.data(), v.data.data(), num_seqs, max_length, kv_heads,
                                      head_dim, head_dim);
  view.rows.lengths = length;
  return decode(view);
}

/// Prints and returns whether the largest difference is no rounding at all: both read equal numbers
/// in equal order.
inline bool equal(char const* what, std::vector<float> const& a, std::vector<float> const& b) {
  float largest = 0;
  bool comparable = a.size() == b.size();
  for (std::size_t i = 0; comparable && i < a.size(); ++i) {
    largest = std::fmax(largest, std::fabs(a[i] - b[i]));
    comparable = !std::isnan(a[i]) && !std::isnan(b[i]);
  }
  std::printf("%s: largest difference %g%s\n", what, largest, comparable ? "" : ", not comparable");
  return comparable && largest == 0;
}

}  // namespace engines
