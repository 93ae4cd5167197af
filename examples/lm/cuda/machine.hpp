// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What a model on a device asks of it, and what training asks besides (what serving does is
// serving_machine.hpp's). cuda_machine.cuh is a device; the tests have one whose bodies run on the
// host, so that a whole training step is computed where there is no device.
//
// Everything is enqueued in one order, and waits for nothing but in `wait`.
#pragma once

#include <concepts>
#include <cstdint>
#include <span>

#include <strata/attention/query.hpp>
#include <strata/cache/codec.hpp>
#include <strata/cache/view.hpp>
#include <strata/status.hpp>

#include "cuda/elementwise.hpp"

namespace lm::cuda {

using pass_queries = strata::query_rows<bfloat16>;
using pass_view = strata::kv_view<strata::bf16_codec>;

/// - `allocate<T>(count)`: an owner of device memory, with `data()`, not cleared
/// - `launch(body)`, `upload(from, to)`, `download(from, to)`, `fill_zero(to, count)`
/// - products.cuh's `linear`
///
/// What it cannot do it throws as a `failure`.
template <class M>
concept machine = requires(M& m, bfloat16 const* in, bfloat16* out, float* sum, std::int64_t n,
                           cast<float, bfloat16> const& body) {
  { m.template allocate<float>(n).data() } -> std::same_as<float*>;
  m.launch(body);
  m.upload(std::span<float const>(), sum);
  m.download(static_cast<float const*>(sum), std::span<float>());
  m.fill_zero(sum, n);
  m.wait();
  m.linear(in, in, out, n, n, n, out);
  m.linear(in, in, sum, n, n, n);
};

/// - products.cuh's `input_gradient` and `weight_gradient`
/// - `attend_forward(q, view)` and `attend_backward(q, view, d_out, d_q, grad)` as
///   strata/attention/kernel.hpp has them, on the device's pointers: out and lse are written
///   forward and read backward; the gradients of K and V are float, started or added to. Memory
///   that they need beside is found in `reserve_attention`, for calls up to this one's size.
template <class M>
concept training_machine =
    machine<M> &&
    requires(M& m, pass_queries const& q, pass_view const& view, bfloat16 const* in, bfloat16* out,
             float* sum, std::int64_t n, strata::kv_grad<float> const& grad) {
      m.input_gradient(in, in, sum, n, n, n, true);
      m.weight_gradient(in, in, sum, n, n, n);
      { m.reserve_attention(q, view) } -> std::same_as<strata::status>;
      { m.attend_forward(q, view) } -> std::same_as<strata::status>;
      { m.attend_backward(q, view, in, out, grad) } -> std::same_as<strata::status>;
    };

}  // namespace lm::cuda
