// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <string>

#include <strata/thread_pool.hpp>

#include "commands.hpp"

namespace lm {

/// What computes: the library's kernel, its instruction set, and the BLAS.
std::string kernels_text();

/// `bench --train`: the training step against its own matrix products made by the BLAS alone.
void bench_training(bench_options const& options, strata::thread_pool& pool);

}  // namespace lm
