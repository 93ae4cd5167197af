// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Attention calls of the device's kernel, over and over, each on K/V that the second-level cache
// has forgotten. Which codecs there are calls for, and whether there is a backward, is each a unit
// of its own: kernels take long to compile.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <strata/attention/kernel.hpp>
#include <strata/cache/codec.hpp>
#include <strata/cache/int8_codec.hpp>
#include <strata/cuda/attention.cuh>
#include <strata/executor.hpp>

#include "attention_case.hpp"
#include "kv_sets.cuh"
#include "naive_attention.cuh"

namespace bench {

/// A case, ready to be captured.
struct device_call {
  virtual ~device_call() = default;
  virtual std::int64_t sets() const = 0;
  virtual void enqueue(std::int64_t set) = 0;
  /// Of the last call on set 0, once it is done.
  virtual double distance() const = 0;
};

using device_kernel = strata::cuda::attention;
template <class Codec>
inline constexpr bool has_backward =
    strata::differentiable_kernel<device_kernel, strata::bfloat16, strata::kv_view<Codec>>;

/// Null where the device has no memory for it. Queries are of bfloat16.
template <class Codec>
std::unique_ptr<device_call> make_forward(attention_case const&, cudaStream_t,
                                          std::int64_t l2_bytes);
/// Null where the kernel has no backward, too.
std::unique_ptr<device_call> make_backward(attention_case const&, cudaStream_t,
                                           std::int64_t l2_bytes);

inline device_array<strata::bfloat16> random_queries(std::int64_t elements, std::uint32_t seed) {
  device_array<strata::bfloat16> rows(elements);
  fill_random<<<4096, 256>>>(reinterpret_cast<std::uint32_t*>(rows.data()), elements / 2, seed);
  require(cudaGetLastError());
  require(cudaDeviceSynchronize());
  return rows;
}

inline device_kernel kernel_of(attention_case const& c, cudaStream_t stream) {
  auto const made = strata::cuda::make_attention<device_kernel>(stream, {}, c.split_keys);
  require(made.state());
  auto kernel = *made;
  kernel.deterministic = c.deterministic;
  return kernel;
}

inline strata::query_rows<strata::bfloat16> rows_of(attention_case const& c) {
  strata::query_rows<strata::bfloat16> rows;
  rows.num_seqs = c.shape.batch;
  rows.rows_per_seq = c.shape.rows;
  rows.q_heads = c.shape.q_heads;
  return rows;
}

inline std::span<std::byte> bytes_of(device_array<std::byte> const& memory) {
  return {memory.data(), static_cast<std::size_t>(memory.size())};
}

template <class View>
double distance_to_naive(attention_case const& c, strata::query_rows<strata::bfloat16> const& rows,
                         View const& view) {
  return c.shape.dim == 64 ? distance_to_naive<64>(rows, view) : distance_to_naive<128>(rows, view);
}

template <class Codec>
class forward_call : public device_call {
 public:
  forward_call(attention_case const& c, cudaStream_t stream, kv_sets<Codec> kv)
      : case_(c),
        kernel_(kernel_of(c, stream)),
        kv_(std::move(kv)),
        q_(random_queries(c.q_elements(), 1)),
        out_(c.q_elements()),
        rows_(rows_of(c)) {
    rows_.q = q_.data();
    rows_.out = out_.data();
    workspace_ = device_array<std::byte>(kernel_.workspace_bytes(rows_, kv_.at(0), 1));
  }

  std::int64_t sets() const override { return kv_.count(); }
  void enqueue(std::int64_t set) override {
    strata::serial_executor here;
    require(attend(here, kernel_, rows_, kv_.at(set), bytes_of(workspace_)));
  }
  double distance() const override { return distance_to_naive(case_, rows_, kv_.at(0)); }

 private:
  attention_case case_;
  device_kernel kernel_;
  kv_sets<Codec> kv_;
  device_array<strata::bfloat16> q_, out_;
  strata::query_rows<strata::bfloat16> rows_;
  device_array<std::byte> workspace_;
};

/// The body of a unit's make_forward.
template <class Codec>
std::unique_ptr<device_call> forward_of(attention_case const& c, cudaStream_t stream,
                                        std::int64_t l2_bytes) {
  auto const count = sets_in_turn(static_cast<std::int64_t>(c.bytes<Codec>()), l2_bytes);
  kv_sets<Codec> kv(c, count);
  if (!kv.ready()) return nullptr;
  return std::make_unique<forward_call<Codec>>(c, stream, std::move(kv));
}

}  // namespace bench
