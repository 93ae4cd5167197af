// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The rate of cuBLASLt's largest products. The library is looked for when the program runs: a
// toolkit without it builds the same program, which then measures the rest.
#pragma once

#include <cuda_runtime.h>
#include <dlfcn.h>
#if __has_include(<cublasLt.h>)
#include <cublasLt.h>
#endif

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "device.cuh"

namespace bench {

#if __has_include(<cublasLt.h>)

/// D = A^T B of three square matrices of bfloat16, sums in float: the form that runs fastest.
class square_product {
 public:
  square_product(cudaStream_t stream, std::int64_t size)
      : stream_(stream),
        library_(open()),
        a_(random_memory(size * size * 2, 1)),
        b_(random_memory(size * size * 2, 2)),
        d_(size * size * 2 / 16),
        workspace_(workspace_bytes / 16) {
    if (library_ == nullptr) return;
    ready_ = prepare(static_cast<std::uint64_t>(size));
    if (!ready_) std::fprintf(stderr, "no GEMM rate: cuBLASLt refuses\n");
  }
  square_product(square_product const&) = delete;
  square_product& operator=(square_product const&) = delete;

  bool ready() const { return ready_; }
  void start() const {
    static auto const matmul = symbol<decltype(&cublasLtMatmul)>("cublasLtMatmul");
    float const one = 1, zero = 0;
    auto const s = matmul(handle_, product_, &one, a_.data(), layout_, b_.data(), layout_, &zero,
                          d_.data(), layout_, d_.data(), layout_, &found_.algo, workspace_.data(),
                          workspace_bytes, stream_);
    if (s != CUBLAS_STATUS_SUCCESS) std::fprintf(stderr, "cublasLtMatmul: %d\n", int{s});
  }

 private:
  static constexpr std::size_t workspace_bytes = std::size_t{32} << 20;

  /// STRATA_BENCH_CUBLASLT names one that no loader would find.
  static void* open() {
    for (char const* name : {static_cast<char const*>(std::getenv("STRATA_BENCH_CUBLASLT")),
                             "libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"})
      if (name != nullptr && *name != '\0')
        if (auto* const library = dlopen(name, RTLD_NOW | RTLD_LOCAL)) return library;
    std::fprintf(stderr, "no GEMM rate: %s\n", dlerror());
    return nullptr;
  }
  template <class Function>
  Function symbol(char const* name) const {
    return reinterpret_cast<Function>(dlsym(library_, name));
  }

  bool prepare(std::uint64_t size) {
    auto const create = symbol<decltype(&cublasLtCreate)>("cublasLtCreate");
    auto const describe = symbol<decltype(&cublasLtMatmulDescCreate)>("cublasLtMatmulDescCreate");
    auto const set =
        symbol<decltype(&cublasLtMatmulDescSetAttribute)>("cublasLtMatmulDescSetAttribute");
    auto const lay = symbol<decltype(&cublasLtMatrixLayoutCreate)>("cublasLtMatrixLayoutCreate");
    auto const prefer =
        symbol<decltype(&cublasLtMatmulPreferenceCreate)>("cublasLtMatmulPreferenceCreate");
    auto const bound = symbol<decltype(&cublasLtMatmulPreferenceSetAttribute)>(
        "cublasLtMatmulPreferenceSetAttribute");
    auto const choose =
        symbol<decltype(&cublasLtMatmulAlgoGetHeuristic)>("cublasLtMatmulAlgoGetHeuristic");
    if (!create || !describe || !set || !lay || !prefer || !bound || !choose) return false;
    cublasOperation_t const transposed = CUBLAS_OP_T;
    cublasLtMatmulPreference_t preference = nullptr;
    int count = 0;
    auto const good = [](cublasStatus_t s) { return s == CUBLAS_STATUS_SUCCESS; };
    return good(create(&handle_)) && good(describe(&product_, CUBLAS_COMPUTE_32F, CUDA_R_32F)) &&
           good(set(product_, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed)) &&
           good(lay(&layout_, CUDA_R_16BF, size, size, static_cast<std::int64_t>(size))) &&
           good(prefer(&preference)) &&
           good(bound(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace_bytes,
                      sizeof workspace_bytes)) &&
           good(choose(handle_, product_, layout_, layout_, layout_, layout_, preference, 1,
                       &found_, &count)) &&
           count > 0;
  }

  cudaStream_t stream_;
  void* library_;
  device_array<uint4> a_, b_, d_, workspace_;
  cublasLtHandle_t handle_ = nullptr;
  cublasLtMatmulDesc_t product_ = nullptr;
  cublasLtMatrixLayout_t layout_ = nullptr;
  cublasLtMatmulHeuristicResult_t found_ = {};
  bool ready_ = false;
};

/// Floating-point operations per second; 0 where there is no library.
inline double gemm_rate(cudaStream_t stream, std::int64_t size = 8192) {
  square_product const product(stream, size);
  if (!product.ready()) return 0;
  auto const n = static_cast<double>(size);
  return 2 * n * n * n / best_seconds(stream, [&] { product.start(); });
}

#else
inline double gemm_rate(cudaStream_t, std::int64_t = 8192) {
  std::fprintf(stderr, "no GEMM rate: compiled without cublasLt.h\n");
  return 0;
}
#endif

}  // namespace bench
