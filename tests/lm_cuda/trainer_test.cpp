// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A run of training on a device, its bodies run on the host: its losses are the host's, and it goes
// on from a file.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <strata/thread_pool.hpp>

#include "cuda/device_trainer.hpp"
#include "host_machine.hpp"
#include "lm/tiny_files.hpp"
#include "lm/tiny_run.hpp"
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

TEST_CASE("a run on a device loses what a run on the host loses") {
  lm::corpus const text({tiny::letters(900)}, 0);
  strata::thread_pool pool(1);
  bodies::host_machine machine;
  device_trainer device(options(), text, machine);
  lm::trainer host(options(), text, pool);
  double device_sum = 0, host_sum = 0;
  while (!host.finished()) {
    auto const a = device.step(), b = host.step();
    if (a.step == 0) CHECK(a.gradient_norm == doctest::Approx(b.gradient_norm).epsilon(.03));
    CHECK(a.lr == b.lr);
    CHECK(device.plans() == host.plans());
    device_sum += a.loss;
    host_sum += b.loss;
  }
  CHECK(device.finished());
  CHECK(device_sum == doctest::Approx(host_sum).epsilon(.01));
  CHECK(host_sum / 12 < 5.3);  // it learns: log 256 is 5.5
}

TEST_CASE(
    "a run on a device with halves that teach, adapters or dropout loses what the host's does") {
  lm::corpus const text({tiny::letters(900)}, 0);
  strata::thread_pool pool(1);
  bodies::host_machine machine;
  auto taught = options();
  taught.batch = 6;
  taught.full_half = true;
  taught.distill = .5;
  auto adapted = options();
  adapted.lora = 4;
  auto dropping = options();
  dropping.dropout = .75;
  for (auto const& o : {taught, adapted, dropping}) {
    device_trainer device(o, text, machine);
    lm::trainer host(o, text, pool);
    double device_sum = 0, host_sum = 0;
    while (!host.finished()) {
      auto const a = device.step(), b = host.step();
      if (a.step == 0) CHECK(a.gradient_norm == doctest::Approx(b.gradient_norm).epsilon(.03));
      device_sum += a.loss;
      host_sum += b.loss;
    }
    CHECK(device_sum == doctest::Approx(host_sum).epsilon(.01));
    if (o.dropout > 0) {  // which shows in the sums
      auto without = o;
      without.dropout = 0;
      double sum = 0;
      for (lm::trainer run(without, text, pool); !run.finished();) sum += run.step().loss;
      CHECK(std::abs(sum - host_sum) > .02 * host_sum);
    }
    auto const& plan = host.plans().front();
    std::vector<std::int32_t> const inputs(8, 'a'), targets = {-1, -1, 'b', 'c', -1, 'd', 'e', 'f'};
    lm::token_batch const batch{inputs.data(), targets.data(), 1, 8};
    CHECK(device.loss(plan, batch) == doctest::Approx(host.loss(plan, batch)).epsilon(.02));
  }
}

TEST_CASE("a run on a device goes on from its file to the bit, and the host reads the file") {
  lm::corpus const text({tiny::letters(900)}, 0);
  tiny::scratch_file const file("device_run");
  bodies::host_machine machine;
  for (int const rank : {0, 3}) {
    auto o = options();
    o.lora = rank;
    device_trainer through(o, text, machine), first(o, text, machine);
    std::vector<double> losses;
    for (int i = 0; i < 4; ++i) losses.push_back(through.step().loss);
    for (int i = 0; i < 2; ++i) first.step();
    first.save(file.path());
    auto const saved = lm::load_checkpoint(file.path());
    auto const resumed = device_trainer::resume(saved, text, machine);
    CHECK(resumed->steps_done() == 2);
    for (int i = 2; i < 4; ++i) CHECK(resumed->step().loss == losses[static_cast<std::size_t>(i)]);
    strata::thread_pool pool(1);
    auto const on_host = lm::trainer::resume(saved, text, pool);
    CHECK(on_host->step().loss == doctest::Approx(losses[2]).epsilon(.01));
    if (rank == 0) continue;
    auto const mine = first.trained_adapters();
    CHECK(mine.rank == rank);
    CHECK(std::ranges::equal(mine.values, saved.adapters->values));
  }
}

TEST_CASE("a run on a device whose gradient is not finite stops with the weights before it") {
  lm::corpus const text({tiny::letters(900)}, 0);
  tiny::scratch_file const file("device_failure");
  bodies::host_machine machine;
  device_trainer run(options(), text, machine);
  lm::parameters<float> weights(options().model);
  lm::initialise(weights, 1);
  weights.values()[3 * 16] = std::numeric_limits<float>::infinity();
  weights.values()[97 * 16] = std::numeric_limits<float>::infinity();  // of the letter a
  run.start_from(weights);
  CHECK_THROWS_AS(run.step(), lm::failure);
  CHECK(run.steps_done() == 0);
  run.save(file.path());
  auto const saved = lm::load_checkpoint(file.path());
  CHECK(tiny::bits(saved.weights) == tiny::bits(weights));
}
