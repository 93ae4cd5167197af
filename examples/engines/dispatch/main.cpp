// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// One program for several processors: it serves with the best kernel that this one can run, and
// checks every kernel that it can run against the reference.
#include "../compare.hpp"
#include "kernel.hpp"

namespace {

/// Best first. What a unit was compiled for must be what is asked here: see CMakeLists.txt.
std::vector<dispatch::attention> usable_kernels() {
  std::vector<dispatch::attention> kernels;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("fma"))
    kernels.push_back(dispatch::avx512);
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    kernels.push_back(dispatch::avx2);
#endif
  kernels.push_back(dispatch::portable);
  return kernels;
}

/// A prompt of 20 tokens and one token more through a cache: [21, q_heads, head_dim], or nothing
/// where a call is refused.
template <class Kernel>
std::vector<float> serve(Kernel const& kernel) {
  strata::layer_kind kind;
  kind.kv = {.kv_heads = engines::kv_heads, .k_dim = engines::head_dim, .v_dim = engines::head_dim};
  auto const model = strata::kv_classes::uniform(1, kind);
  strata::stack stack(
      strata::paged_storage<dispatch::codec>(
          model, {.max_sequences = 1, .max_tokens = 64, .k_blocks = 4, .v_blocks = 4}),
      kernel);
  auto const id = *stack.open(*make_plan(strata::identity_map(1), model));
  auto const k = engines::random_tensor(20 * engines::kv_heads * engines::head_dim, 1);
  auto const q = engines::random_tensor(21 * engines::q_heads * engines::head_dim, 2);
  std::vector<float> out(q.size());
  std::size_t done = 0;
  for (std::int32_t const tokens : {20, 1}) {
    auto step = stack.begin({id, tokens});
    for (auto const& run : step.k_writers({0})) run.store_all(k.data());
    for (auto const& run : step.v_writers({0})) run.store_all(k.data());
    strata::layer_queries<float> const queries{
        .q = q.data() + done, .out = out.data() + done, .q_heads = engines::q_heads};
    std::vector<std::byte> workspace(
        static_cast<std::size_t>(*step.workspace_bytes({0}, queries, 1)));
    strata::serial_executor here;
    if (!step.attend(here, {0}, queries, workspace).ok() || !step.commit().ok()) return {};
    done += static_cast<std::size_t>(tokens * engines::q_heads * engines::head_dim);
  }
  return out;
}

}  // namespace

int main() {
  auto const expected = serve(strata::reference_attention{});
  auto const kernels = usable_kernels();
  std::printf("this processor's kernel: %s\n", kernels.front().isa);
  for (auto const& kernel : kernels) {
    auto const out = serve(kernel);
    if (out.empty()) return 1;
    float largest = 0;
    for (std::size_t i = 0; i < out.size(); ++i)
      largest = std::fmax(largest, std::fabs(out[i] - expected[i]));
    std::printf("%s against the reference: largest difference %g\n", kernel.isa, largest);
    if (!(largest < 2e-6f)) return 1;
  }
  return 0;
}
