// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Backward, as soon as the device's kernel has one.
#include "attention_call.cuh"

namespace {

using bench::device_array;
using codec = strata::bf16_codec;
using view = strata::kv_view<codec>;

/// What one backward call reads and writes, K and V apart. Training never finds it in a cache: all
/// of it is there several times.
struct backward_set {
  device_array<strata::bfloat16> q, out, d_out, d_q;
  device_array<float> lse, dk, dv;
  strata::query_rows<strata::bfloat16> rows;
  strata::kv_grad<float> grad;

  explicit backward_set(bench::attention_case const& c)
      : q(bench::random_queries(c.q_elements(), 1)),
        out(c.q_elements()),
        d_out(bench::random_queries(c.q_elements(), 2)),
        d_q(c.q_elements()),
        lse(c.q_elements() / c.shape.dim),
        dk(c.kv_elements()),
        dv(c.kv_elements()),
        rows(bench::rows_of(c)) {
    rows.q = q.data();
    rows.out = out.data();
    rows.lse = lse.data();
    grad = strata::kv_grad<float>::dense(dk.data(), dv.data(), c.shape.context, c.shape.kv_heads,
                                         c.shape.dim, c.shape.dim);
    grad.add_k = c.add_k;
    grad.add_v = c.add_v;
    bench::require(cudaMemset(dk.data(), 0, static_cast<std::size_t>(dk.size()) * sizeof(float)));
    bench::require(cudaMemset(dv.data(), 0, static_cast<std::size_t>(dv.size()) * sizeof(float)));
    bench::require(cudaDeviceSynchronize());
  }

  static std::int64_t bytes(bench::attention_case const& c) {
    return 4 * c.q_elements() * 2 + c.q_elements() / c.shape.dim * 4 + 2 * c.kv_elements() * 6;
  }
};

template <class Kernel>
class backward_call : public bench::device_call {
 public:
  backward_call(bench::attention_case const& c, cudaStream_t stream, bench::kv_sets<codec> kv)
      : case_(c), kernel_(bench::kernel_of(c, stream)), kv_(std::move(kv)) {
    for (std::int64_t i = 0; i < kv_.count(); ++i) sets_.emplace_back(c);
    auto const& rows = sets_[0].rows;
    workspace_ =
        device_array<std::byte>(std::max(kernel_.workspace_bytes(rows, kv_.at(0), 1),
                                         kernel_.backward_workspace_bytes(rows, kv_.at(0), 1)));
    strata::serial_executor here;
    for (std::int64_t i = 0; i < kv_.count(); ++i)
      bench::require(attend(here, kernel_, at(i).rows, kv_.at(i), bench::bytes_of(workspace_)));
  }

  std::int64_t sets() const override { return kv_.count(); }
  void enqueue(std::int64_t i) override {
    strata::serial_executor here;
    auto const& set = at(i);
    strata::bfloat16 const* const d_out = set.d_out.data();
    bench::require(attend_backward(here, kernel_, set.rows, kv_.at(i), d_out, set.d_q.data(),
                                   set.grad, bench::bytes_of(workspace_)));
  }
  /// Of forward: what gradients are made from. They themselves are for tests.
  double distance() const override {
    return bench::distance_to_naive(case_, sets_[0].rows, kv_.at(0));
  }

 private:
  backward_set const& at(std::int64_t i) const { return sets_[static_cast<std::size_t>(i)]; }

  bench::attention_case case_;
  Kernel kernel_;
  bench::kv_sets<codec> kv_;
  std::vector<backward_set> sets_;
  device_array<std::byte> workspace_;
};

template <class Kernel>
std::unique_ptr<bench::device_call> backward_of(bench::attention_case const& c, cudaStream_t stream,
                                                std::int64_t l2_bytes) {
  if constexpr (strata::differentiable_kernel<Kernel, strata::bfloat16, view>) {
    auto const count = bench::sets_in_turn(backward_set::bytes(c), l2_bytes);
    if (count * backward_set::bytes(c) > bench::free_memory()) return nullptr;
    bench::kv_sets<codec> kv(c, count);
    if (!kv.ready()) return nullptr;
    return std::make_unique<backward_call<Kernel>>(c, stream, std::move(kv));
  } else {
    return nullptr;
  }
}

}  // namespace

std::unique_ptr<bench::device_call> bench::make_backward(attention_case const& c,
                                                         cudaStream_t stream,
                                                         std::int64_t l2_bytes) {
  return backward_of<device_kernel>(c, stream, l2_bytes);
}
