// Part of strata, under the Apache License v2.0 with LLVM Exceptions. See LICENSE.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Every macro of the library but the version. Each one can be defined by the user before the first
// include; all are documented here and there are never more than ten.
#pragma once

#if defined(__cplusplus) && __cplusplus < 202002L
#error \
    "strata: C++20 is needed: -std=c++20, of nvcc, too (CMake before 3.26 drops CUDA_STANDARD 20)"
#endif

/// Opens and closes the namespace of the library. A vendor who must keep two copies of strata apart
/// in one process defines both, for instance as `namespace engine { namespace strata { inline
/// namespace v0 {` and `}}}`. The inline namespace changes when the layout of a public type does.
#ifndef STRATA_NAMESPACE_BEGIN
#define STRATA_NAMESPACE_BEGIN \
  namespace strata {           \
  inline namespace v0 {
#define STRATA_NAMESPACE_END \
  }                          \
  }
#endif

/// Marks what runs on the host and on a CUDA device from the same source.
#ifndef STRATA_HOST_DEVICE
#if defined(__CUDACC__)
#define STRATA_HOST_DEVICE __host__ __device__
#else
#define STRATA_HOST_DEVICE
#endif
#endif

/// Marks the bodies of kernels: for a device where nvcc compiles them, and plain functions of the
/// host elsewhere, so that they can run, block by block, where there is no device.
#ifndef STRATA_DEVICE
#if defined(__CUDACC__)
#define STRATA_DEVICE __device__
#else
#define STRATA_DEVICE
#endif
#endif

/// Checks an invariant. Bad input from outside never reaches it: that is refused with a `status`.
/// What does is a caller's mistake with something that has no status to give: `*result` of a
/// failure, `length` and `plan` of a sequence that is closed, a run kept beyond its step.
#ifndef STRATA_ASSERT
#include <cassert>
#define STRATA_ASSERT(condition) assert(condition)
#endif

/// 1 where exceptions are on. Where they are off the throwing constructors of owning types are
/// absent and `make(...)`, which returns a `result`, is the way in.
#ifndef STRATA_HAS_EXCEPTIONS
#if defined(__cpp_exceptions) || defined(__EXCEPTIONS)
#define STRATA_HAS_EXCEPTIONS 1
#else
#define STRATA_HAS_EXCEPTIONS 0
#endif
#endif

/// Name of the inline namespace around CPU kernels: the instruction set that this translation unit
/// is compiled for. Without it two files with different -march flags would define one function with
/// two bodies, and the linker would keep either. So it does with everything that is not in this
/// namespace: of files that one program compiles for different instruction sets, at least -O2, all
/// but one may call a kernel (workspace_bytes, partial, combine, backward) and use nothing else of
/// the library that has a body. examples/engines/dispatch does.
#ifndef STRATA_CPU_ISA
#if defined(__AVX512F__) && defined(__AVX512FP16__)
#define STRATA_CPU_ISA avx512_fp16
#elif defined(__AVX512F__) && defined(__AVX512BF16__)
#define STRATA_CPU_ISA avx512_bf16
#elif defined(__AVX512F__)
#define STRATA_CPU_ISA avx512
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define STRATA_CPU_ISA avx2_f16c
#elif defined(__AVX2__) && defined(__FMA__)
#define STRATA_CPU_ISA avx2
#elif defined(__AVX__)
#define STRATA_CPU_ISA avx
#elif defined(__ARM_NEON)
#define STRATA_CPU_ISA neon
#else
#define STRATA_CPU_ISA portable
#endif
#endif

/// No other pointer reaches what this one points at: lets inner loops vectorise.
#ifndef STRATA_RESTRICT
#define STRATA_RESTRICT __restrict__
#endif
