// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <strata/thread_pool.hpp>

#include "commands.hpp"

namespace lm {

/// `bench --train`: the training step against its own matrix products made by the BLAS alone.
void bench_training(bench_options const& options, strata::thread_pool& pool);

}  // namespace lm
