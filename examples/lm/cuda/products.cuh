// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Matrix products on a device, from cuBLASLt: numbers in bf16, sums in float. Weights are [out, in],
// rows are tokens, everything is row-major:
//
//     y  [rows, out] = x  [rows, in]  W^T (+ c)   forward; c: what y is added to, the residual
//     dx [rows, in]  = dy [rows, out] W   (+ dx)  gradient of the input
//     dW [out, in]  += dy^T x                     gradient of the weight, float
//
// cuBLASLt counts columns first: what it is given is the transpose of each line. Algorithms are
// chosen for each shape, among those that add in one order, and kept for the shapes asked for last.
// But for a shape's first, a call neither allocates on the device nor waits: it may be recorded into
// a graph, where it chooses again if its shape was dropped, which is work of the host alone.
#pragma once

#include <cstdint>
#include <string>
#include <tuple>
#include <type_traits>

#include <cublasLt.h>

#include "cuda/device_memory.cuh"
#include "cuda/recent_map.hpp"

namespace lm::cuda {

inline void check(cublasStatus_t outcome, char const* doing) {
  if (outcome != CUBLAS_STATUS_SUCCESS)
    throw machine_failure(
        std::string("cuBLASLt, ") + doing + ": " + cublasLtGetStatusString(outcome), outcome,
        exit_code::failed);
}

namespace detail {

struct destroy_blas {
  void operator()(cublasLtHandle_t h) const noexcept { static_cast<void>(cublasLtDestroy(h)); }
};
struct destroy_operation {
  void operator()(cublasLtMatmulDesc_t d) const noexcept {
    static_cast<void>(cublasLtMatmulDescDestroy(d));
  }
};
struct destroy_layout {
  void operator()(cublasLtMatrixLayout_t l) const noexcept {
    static_cast<void>(cublasLtMatrixLayoutDestroy(l));
  }
};
struct destroy_preference {
  void operator()(cublasLtMatmulPreference_t p) const noexcept {
    static_cast<void>(cublasLtMatmulPreferenceDestroy(p));
  }
};

/// d [n, m] = a b, in cuBLASLt's order: m, n, k and leading dimensions count its columns.
struct product_shape {
  bool transpose_a = false, transpose_b = false;
  std::int64_t m = 0, n = 0, k = 0;
  std::int64_t lda = 0, ldb = 0, ldd = 0;
  bool float_out = false;
  bool adds = false;
  std::uint32_t alignment = 16;  ///< bytes, of all four

  auto key() const {
    return std::tuple(transpose_a, transpose_b, m, n, k, lda, ldb, ldd, float_out, adds, alignment);
  }
  friend bool operator<(product_shape const& a, product_shape const& b) {
    return a.key() < b.key();
  }
};

/// The largest power of two, up to 16, that divides all addresses.
inline std::uint32_t common_alignment(void const* a, void const* b, void const* c, void const* d) {
  auto const bits = reinterpret_cast<std::uintptr_t>(a) | reinterpret_cast<std::uintptr_t>(b) |
                    reinterpret_cast<std::uintptr_t>(c) | reinterpret_cast<std::uintptr_t>(d) | 16;
  return static_cast<std::uint32_t>(bits & ~(bits - 1));
}

/// What cuBLASLt is told for a shape.
class product_plan {
 public:
  product_plan(cublasLtHandle_t blas, product_shape const& s, std::size_t workspace_bytes)
      : operation_(make_operation(s)),
        a_(make_layout(CUDA_R_16BF, s.transpose_a ? s.k : s.m, s.transpose_a ? s.m : s.k, s.lda)),
        b_(make_layout(CUDA_R_16BF, s.transpose_b ? s.n : s.k, s.transpose_b ? s.k : s.n, s.ldb)),
        d_(make_layout(s.float_out ? CUDA_R_32F : CUDA_R_16BF, s.m, s.n, s.ldd)) {
    choose(blas, s, workspace_bytes);
  }

  void run(cublasLtHandle_t blas, void const* a, void const* b, float beta, void const* c, void* d,
           device_buffer<std::byte> const& workspace, cudaStream_t stream) const {
    float const alpha = 1;
    check(cublasLtMatmul(blas, operation_.get(), &alpha, a, a_.get(), b, b_.get(), &beta, c,
                         d_.get(), d, d_.get(), &algorithm_, workspace.data(),
                         static_cast<std::size_t>(workspace.size()), stream),
          "a product");
  }

 private:
  using operation = owned<cublasLtMatmulDesc_t, destroy_operation>;
  using layout = owned<cublasLtMatrixLayout_t, destroy_layout>;

  static operation make_operation(product_shape const& s) {
    cublasLtMatmulDesc_t made = nullptr;
    check(cublasLtMatmulDescCreate(&made, CUBLAS_COMPUTE_32F, CUDA_R_32F), "a product");
    operation out(made);
    auto const set = [&](cublasLtMatmulDescAttributes_t which, bool transpose) {
      cublasOperation_t const op = transpose ? CUBLAS_OP_T : CUBLAS_OP_N;
      check(cublasLtMatmulDescSetAttribute(out.get(), which, &op, sizeof(op)), "a product");
    };
    set(CUBLASLT_MATMUL_DESC_TRANSA, s.transpose_a);
    set(CUBLASLT_MATMUL_DESC_TRANSB, s.transpose_b);
    return out;
  }
  static layout make_layout(cudaDataType type, std::int64_t rows, std::int64_t cols,
                            std::int64_t leading) {
    cublasLtMatrixLayout_t made = nullptr;
    check(cublasLtMatrixLayoutCreate(&made, type, static_cast<std::uint64_t>(rows),
                                     static_cast<std::uint64_t>(cols), leading),
          "a matrix");
    return layout(made);
  }

  void choose(cublasLtHandle_t blas, product_shape const& s, std::size_t workspace_bytes) {
    cublasLtMatmulPreference_t made = nullptr;
    check(cublasLtMatmulPreferenceCreate(&made), "a preference");
    owned<cublasLtMatmulPreference_t, destroy_preference> const preference(made);
    auto const set = [&](cublasLtMatmulPreferenceAttributes_t which, auto value) {
      check(cublasLtMatmulPreferenceSetAttribute(made, which, &value, sizeof(value)),
            "a preference");
    };
    set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<std::uint64_t>(workspace_bytes));
    // Not in place: there parts of a sum are added as they come.
    set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
        static_cast<std::uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
    for (auto const which :
         {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
          CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
      set(which, s.alignment);
    cublasLtMatmulHeuristicResult_t found = {};
    int count = 0;
    check(cublasLtMatmulAlgoGetHeuristic(blas, operation_.get(), a_.get(), b_.get(), d_.get(),
                                         d_.get(), made, 1, &found, &count),
          "choosing an algorithm");
    if (count == 0)
      throw machine_failure("cuBLASLt has no algorithm for a product of " + text_of(s),
                            CUBLAS_STATUS_NOT_SUPPORTED, exit_code::failed);
    algorithm_ = found.algo;
  }

  static std::string text_of(product_shape const& s) {
    return std::to_string(s.n) + " x " + std::to_string(s.k) + " by " + std::to_string(s.k) +
           " x " + std::to_string(s.m);
  }

  operation operation_;
  layout a_, b_, d_;
  cublasLtMatmulAlgo_t algorithm_ = {};
};

}  // namespace detail

/// The products of one stream. The stream outlives it.
class products {
 public:
  /// What NVIDIA's guide gives a Hopper device, and enough for every other.
  static constexpr std::int64_t usual_workspace = std::int64_t{32} << 20;

  /// Shapes whose plans are kept. A step has some seven, and those of prefill change with its rows.
  static constexpr std::size_t most_plans = 256;

  explicit products(device_stream const& stream, std::int64_t workspace_bytes = usual_workspace)
      : stream_(stream.get()), workspace_(stream, workspace_bytes) {
    cublasLtHandle_t made = nullptr;
    check(cublasLtCreate(&made), "starting");
    blas_ = detail::owned<cublasLtHandle_t, detail::destroy_blas>(made);
  }

  /// y = x W^T, and plus c where that is not null: y itself, or another matrix of its shape.
  template <number Out>
  void linear(bfloat16 const* x, bfloat16 const* w, Out* y, std::int64_t rows, std::int64_t in,
              std::int64_t out, Out const* c = nullptr) {
    run({true, false, out, rows, in, in, in, out}, w, x, c, y);
  }

  /// dx = dy W, or added to dx. In bf16 what is added may be rounded before it is added.
  template <number Out>
  void input_gradient(bfloat16 const* dy, bfloat16 const* w, Out* dx, std::int64_t rows,
                      std::int64_t in, std::int64_t out, bool add = false) {
    run({false, false, in, rows, out, in, out, in}, w, dy, add ? dx : nullptr, dx);
  }

  /// dW += dy^T x, over all rows.
  void weight_gradient(bfloat16 const* dy, bfloat16 const* x, float* dw, std::int64_t rows,
                       std::int64_t in, std::int64_t out) {
    run({false, true, in, out, rows, in, out, in}, x, dy, static_cast<float const*>(dw), dw);
  }

 private:
  template <number Out>
  void run(detail::product_shape shape, bfloat16 const* a, bfloat16 const* b, Out const* c,
           Out* d) {
    if (shape.m == 0 || shape.n == 0) return;
    shape.float_out = std::is_same_v<Out, float>;
    shape.adds = c != nullptr;
    shape.alignment = detail::common_alignment(a, b, c, d);
    auto const& plan = plans_.find(shape, [&] {
      return detail::product_plan(blas_.get(), shape, static_cast<std::size_t>(workspace_.size()));
    });
    plan.run(blas_.get(), a, b, shape.adds ? 1.F : 0.F, shape.adds ? c : d, d, workspace_, stream_);
  }

  cudaStream_t stream_;
  device_buffer<std::byte> workspace_;
  detail::owned<cublasLtHandle_t, detail::destroy_blas> blas_;
  recent_map<detail::product_shape, detail::product_plan> plans_{most_plans};
};

}  // namespace lm::cuda
