// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A run of training on a device, its bodies run on the host: its losses are the host's, and it goes
// on from a file.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <strata/thread_pool.hpp>

#include "cuda/device_trainer.hpp"
#include "host_machine.hpp"
#include "lm/tiny_files.hpp"
#include "trainer.hpp"

namespace {

using device_trainer = lm::cuda::device_trainer<bodies::host_machine>;

lm::training_options options() {
  lm::training_options o;
  o.model.layers = 3;
  o.model.dim = 16;
  o.model.q_heads = 2;
  o.model.kv_heads = 1;
  o.model.head_dim = 8;
  o.model.mlp = 24;
  o.model.context = 8;
  o.model.qk_norm = true;
  o.routing = "rcla:0.5";
  o.batch = 5;
  o.draws_per_step = 2;
  o.steps = 12;
  o.optimizer.lr = .02;
  o.optimizer.clip = 1;
  return o;
}

}  // namespace
