// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// How fast is attention in training? Forward and backward of one layer over whole sequences in
// float, causal, for the shapes of small models; `heads` are query heads per KV head. A trainer's
// products run at BLAS speed, so attention should not fall far behind the FMA peak.
#include <cstdint>
#include <string>
#include <vector>

#include <strata/attention/cpu/blocked.hpp>

#include "machine.hpp"

namespace {

/// One layer of 8 sequences and 8 query heads.
class layer {
 public:
  layer(strata::thread_pool& pool, std::int32_t length, std::int32_t dim, std::int32_t heads)
      : pool_(pool),
        q_(random_floats(q_heads * dim, length, 1)),
        k_(random_floats(q_heads / heads * dim, length, 2)),
        v_(random_floats(q_heads / heads * dim, length, 3)),
        d_out_(random_floats(q_heads * dim, length, 4)),
        out_(q_.size()),
        lse_(q_.size() / static_cast<std::size_t>(dim)),
        d_q_(q_.size()),
        dk_(k_.size()),
        dv_(v_.size()),
        view_(strata::contiguous_view(k_.data(), v_.data(), sequences, length, q_heads / heads, dim,
                                      dim)),
        workspace_(workspace_bytes(length, dim)) {
    grad_ =
        strata::kv_grad<float>::dense(dk_.data(), dv_.data(), length, q_heads / heads, dim, dim);
    forward();
  }

  void forward() { bench::require(attend(pool_, kernel_, rows_, view_, workspace_.get())); }
  void backward() {
    bench::require(attend_backward(pool_, kernel_, rows_, view_,
                                   static_cast<float const*>(d_out_.data()), d_q_.data(), grad_,
                                   workspace_.get()));
  }
  /// Of forward: 4 per query head, element and pair of query and key. Backward has 5 products for
  /// the 2 of forward.
  double flops() const {
    double const length = rows_.rows_per_seq;
    return 4.0 * sequences * q_heads * view_.k_dim * length * (length + 1) / 2;
  }

 private:
  static constexpr std::int32_t sequences = 8, q_heads = 8;

  static std::vector<float> random_floats(std::int64_t width, std::int32_t length,
                                          std::uint32_t seed) {
    return bench::random_floats(width * length * sequences, seed);
  }

  std::int64_t workspace_bytes(std::int32_t length, std::int32_t) {
    rows_.q = q_.data();
    rows_.out = out_.data();
    rows_.lse = lse_.data();
    rows_.num_seqs = sequences;
    rows_.rows_per_seq = length;
    rows_.q_heads = q_heads;
    auto const forward = kernel_.workspace_bytes(rows_, view_, pool_.num_shares());
    auto const backward = kernel_.backward_workspace_bytes(rows_, view_, pool_.num_shares());
    return forward > backward ? forward : backward;
  }

  strata::thread_pool& pool_;
  strata::cpu::blocked_attention kernel_;
  std::vector<float> q_, k_, v_, d_out_, out_, lse_, d_q_, dk_, dv_;
  strata::kv_view<strata::f32_codec> view_;
  strata::query_rows<float> rows_;
  strata::kv_grad<float> grad_;
  bench::aligned_memory workspace_;
};

void add(bench::session& session, bool backward, std::int32_t length, std::int32_t dim,
         std::int32_t heads) {
  auto const name = std::string("training/pass:") + (backward ? "backward" : "forward") +
                    "/length:" + std::to_string(length) + "/head_dim:" + std::to_string(dim) +
                    "/heads:" + std::to_string(heads);
  benchmark::RegisterBenchmark(name.c_str(),
                               [=, &session](benchmark::State& state) {
                                 layer l(session.pool(), length, dim, heads);
                                 for (auto _ : state) backward ? l.backward() : l.forward();
                                 session.count_flops(state, l.flops() * (backward ? 2.5 : 1.0));
                               })
      ->UseRealTime()
      ->Unit(benchmark::kMillisecond);
}

}  // namespace

int main(int argc, char** argv) {
  bench::session session(argc, argv);
  for (bool const backward : {false, true})
    for (std::int32_t const length : {128, 256, 512})
      for (std::int32_t const dim : {32, 64, 128})
        for (std::int32_t const heads : {1, 4}) add(session, backward, length, dim, heads);
  return session.run();
}
