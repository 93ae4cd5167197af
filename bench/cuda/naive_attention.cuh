// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What a benchmark's results are compared with once.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include <strata/attention/query.hpp>
#include <strata/cache/element.hpp>
#include <strata/cache/view.hpp>

#include "device.cuh"

namespace bench {

/// A query row's head whose result is looked at.
struct row_sample {
  std::int32_t seq, row, head;
};

/// One block per sample; its threads share the keys, and what they find is added up in order of
/// arrival. Rows end where keys end. out: [samples, v_dim].
template <int Dim, class T, class View>
__global__ void naive_attention(strata::query_rows<T> q, View view, row_sample const* samples,
                                float* out) {
  auto const [seq, row, head] = samples[blockIdx.x];
  auto const kv_head = head / (q.q_heads / view.kv_heads);
  auto const keys = view.length(seq, kv_head) - (q.row_end(seq) - row) + 1;
  float query[Dim], x[Dim], sum[Dim] = {};
  for (int d = 0; d < Dim; ++d)
    query[d] =
        strata::detail::widen(q.q[(std::int64_t{row} * q.q_heads + head) * Dim + d]) / sqrtf(Dim);
  float most = -INFINITY, total = 0;
  for (auto key = static_cast<std::int32_t>(threadIdx.x); key < keys; key += blockDim.x) {
    view.load_k(seq, kv_head, key, x);
    float score = 0;
    for (int d = 0; d < Dim; ++d) score += query[d] * x[d];
    auto const larger = fmaxf(most, score);
    auto const kept = expf(most - larger), weight = expf(score - larger);
    view.load_v(seq, kv_head, key, x);
    for (int d = 0; d < Dim; ++d) sum[d] = sum[d] * kept + weight * x[d];
    total = total * kept + weight;
    most = larger;
  }
  __shared__ float all[Dim + 1], maxima[256];
  maxima[threadIdx.x] = most;
  for (auto i = threadIdx.x; i <= Dim; i += blockDim.x) all[i] = 0;
  __syncthreads();
  float of_block = -INFINITY;
  for (unsigned i = 0; i < blockDim.x; ++i) of_block = fmaxf(of_block, maxima[i]);
  auto const part = expf(most - of_block);
  for (int d = 0; d < Dim; ++d) atomicAdd(all + d, sum[d] * part);
  atomicAdd(all + Dim, total * part);
  __syncthreads();
  for (auto d = threadIdx.x; d < Dim; d += blockDim.x)
    out[blockIdx.x * Dim + d] = all[d] / all[Dim];
}

/// How far some rows of `q.out` are from what they should be, by the length of the row: the
/// largest, and infinite where one is no number.
template <int Dim, class T, class View>
double distance_to_naive(strata::query_rows<T> const& q, View const& view) {
  std::vector<row_sample> samples;
  auto const last_row = q.rows_per_seq - 1;
  for (std::int32_t i = 0; i < 16; ++i) {
    auto const seq = static_cast<std::int32_t>(std::int64_t{q.num_seqs - 1} * i / 15);
    auto const row = static_cast<std::int32_t>(std::int64_t{last_row} * (15 - i) / 15);
    samples.push_back({seq, seq * q.rows_per_seq + row, i * 5 % q.q_heads});
  }
  device_array<row_sample> const on_device(samples);
  device_array<float> const expected_there(16 * Dim);
  naive_attention<Dim><<<16, 256>>>(q, view, on_device.data(), expected_there.data());
  require(cudaGetLastError());
  auto const expected = expected_there.to_host();
  double largest = 0;
  for (std::size_t i = 0; i < samples.size(); ++i) {
    std::vector<T> got(Dim);
    auto const at = (std::int64_t{samples[i].row} * q.q_heads + samples[i].head) * Dim;
    require(cudaMemcpy(got.data(), q.out + at, Dim * sizeof(T), cudaMemcpyDeviceToHost));
    double apart = 0, length = 0;
    for (std::size_t d = 0; d < Dim; ++d) {
      double const x = expected[i * Dim + d];
      apart += std::pow(strata::detail::widen(got[d]) - x, 2), length += x * x;
    }
    auto const distance = std::sqrt(apart / length);
    if (!(distance <= largest)) largest = std::isnan(distance) ? INFINITY : distance;
  }
  return largest;
}

}  // namespace bench
