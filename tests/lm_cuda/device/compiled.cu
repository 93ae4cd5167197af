// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// All of strata-lm that is written for a device, compiled for one; attention is left out.
#include "cuda/device_model.hpp"
#include "cuda/training_machine.cuh"

namespace {

struct no_attention {
  std::int64_t workspace_bytes(lm::cuda::pass_queries const&, lm::cuda::pass_view const&) const {
    return 0;
  }
  strata::status forward(cudaStream_t, lm::cuda::pass_queries const&, lm::cuda::pass_view const&,
                         std::span<std::byte>) const {
    return {};
  }
  strata::status backward(cudaStream_t, lm::cuda::pass_queries const&, lm::cuda::pass_view const&,
                          strata::bfloat16 const*, strata::bfloat16*, strata::kv_grad<float> const&,
                          std::span<std::byte>) const {
    return {};
  }
};

using machine = lm::cuda::cuda_training_machine<no_attention>;
static_assert(lm::cuda::training_machine<machine>);

}  // namespace

template class lm::cuda::device_trainee<machine>;
template class lm::cuda::device_weights<machine>;

/// What serving uses besides.
void serving_bodies(machine& m, lm::cuda::device_graph& graph) {
  graph.record(m.stream(), [&] {
    m.launch(lm::cuda::gather_rows<float>{});
    m.launch(lm::cuda::add_scaled{});
    m.launch(lm::cuda::token_losses<float>{});
    m.launch(lm::cuda::likeliest_tokens<float>{});
    m.launch(lm::cuda::likeliest_tokens<strata::bfloat16>{});
    m.launch(lm::cuda::rms_norm_backward<strata::bfloat16>{});
  });
  graph.launch(m.stream().get());
  lm::cuda::device_event begin, end;
  begin.record(m.stream().get());
  end.wait();
  static_cast<void>(end.seconds_since(begin));
  static_cast<void>(lm::cuda::pinned_buffer<float>(1).values());
}
