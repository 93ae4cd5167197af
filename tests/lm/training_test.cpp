// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What must not change a bit of a trained model: skipping K and V that nobody reads, recomputing a
// segment, stopping and resuming. (The number of threads: training_thread_test.cpp.)
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <strata/thread_pool.hpp>

#include "allocations.hpp"
#include "tiny_run.hpp"

namespace {

using tiny::bits;
using tiny::tiny_run;

/// Weights after three steps in which every pass leaves some K and V unread.
std::vector<std::uint32_t> after_three_steps(lm::training_options const& o, bool compute_unread) {
  tiny_run run(o);
  run.trainer().model().compute_unread(compute_unread);
  int unread = 0;
  for (int i = 0; i < 3; ++i) {
    run.trainer().step();
    for (auto const& plan : run.trainer().plans()) unread += tiny::unread(plan);
  }
  CHECK(unread > 3);
  return bits(run.trainer().model().weights());
}

/// Overwrites what a forward pass left of a layer, except its input.
void forget(lm::layer_activations<float> const& a, lm::model_config const& c, std::int64_t rows) {
  auto const nan = std::numeric_limits<float>::quiet_NaN();
  auto const spoil = [&](float* data, std::int64_t count) {
    for (std::int64_t i = 0; data != nullptr && i < count; ++i) data[i] = nan;
  };
  for (auto* const t : {a.q, a.raw_q, a.attended}) spoil(t, rows * c.q_dim());
  for (auto* const t : {a.k, a.raw_k, a.v}) spoil(t, rows * c.kv_dim());
  for (auto* const t : {a.gate, a.up}) spoil(t, rows * c.mlp);
  for (auto* const t : {a.attention_scale, a.mlp_scale}) spoil(t, rows);
  for (auto* const t : {a.q_scale, a.lse}) spoil(t, rows * c.q_heads);
  spoil(a.k_scale, rows * c.kv_heads);
  spoil(a.middle, rows * c.dim);
}

}  // namespace

TEST_CASE("a step allocates nothing") {
  auto o = tiny::run_options(true);
  o.draws_per_step = 2;
  tiny_run run(o, 2);
  run.trainer().step();
  auto const before = allocations();
  for (int i = 0; i < 3; ++i) run.trainer().step();
  CHECK(allocations() == before);
  auto const counted = std::make_unique<int>(1);
  CHECK(allocations() == before + *counted);
}

TEST_CASE("skipping unread K and V gives the weights of a run that computed them") {
  for (auto const* routing :
       {"rcla:0.4", "rcla:0", "cla:3", "rdcla:3:0.2", "sets:0.4", "mix:every:2/tail:3"})
    for (bool options : {false, true}) {
      CAPTURE(routing);
      auto o = tiny::run_options(options);
      o.routing = routing;
      CHECK(after_three_steps(o, false) == after_three_steps(o, true));
    }
}

TEST_CASE("a pass skips what it says: unread K and V are not touched") {
  auto o = tiny::run_options(false);
  o.routing = "rcla:0";  // layers 1 and up never read themselves: the last is read by nobody
  tiny_run run(o);
  run.trainer().step();
  auto const& top = run.trainer().model().memory().layer.back();
  CHECK(top.k[0] == 0);
  CHECK(top.v[0] == 0);
  run.trainer().model().compute_unread(true);
  run.trainer().step();
  CHECK(top.k[0] != 0);
  CHECK(top.v[0] != 0);
}

// The contract of recomputation: a segment's inputs are its x and the K and V of sources outside.
TEST_CASE("a recomputed segment that reads sources below it gives the same gradients") {
  auto const o = tiny::run_options(true);
  auto const& c = o.model;
  tiny_run run(o);
  auto& model = run.trainer().model();
  tiny::set_lively_weights(model.weights());
  std::int32_t const sources[] = {0, 1, 0, 1, 2};  // layers 2 and 3 read from outside [2, 4)
  auto const plan = strata::make_plan(strata::recorded_route(sources), c.classes(), {}).value();
  tiny::tokens const tokens(c, 6, c.context);
  auto const gradients = [&](bool recompute) {
    for (auto& g : model.gradients().values()) g = 0;
    model.forward(plan, tokens.batch());
    if (recompute) {
      for (std::size_t l : {2U, 3U}) forget(model.memory().layer[l], c, tokens.batch().rows());
      for (std::int64_t i = 0; i < tokens.batch().rows() * c.dim; ++i)
        model.memory().layer[3].x[i] = std::numeric_limits<float>::quiet_NaN();
      model.recompute(plan, 2, 4);
    }
    model.backward(plan);
    return bits(model.gradients());
  };
  CHECK(gradients(true) == gradients(false));
}

TEST_CASE("six steps are three steps, a file, and three more") {
  for (bool options : {false, true}) {
    auto o = tiny::run_options(options);
    o.draws_per_step = 3;
    o.schedule = "0.2:0.9";
    o.dropout = options ? .2 : 0;
    tiny_run through(o), first(o);
    std::vector<double> losses;
    for (int i = 0; i < 6; ++i) losses.push_back(through.trainer().step().loss);
    for (int i = 0; i < 3; ++i) first.trainer().step();
    tiny::scratch_file const file("resume.strata");
    first.trainer().save(file.path());
    strata::thread_pool pool(1);
    auto const resumed = lm::trainer::resume(lm::load_checkpoint(file.path()), first.text(), pool);
    CHECK(resumed->options() == o);
    CHECK(resumed->steps_done() == 3);
    for (std::size_t i = 3; i < 6; ++i) CHECK(resumed->step().loss == losses[i]);
    CHECK(bits(resumed->model().weights()) == bits(through.trainer().model().weights()));
    CHECK(bits(resumed->optimizer().first_moment()) ==
          bits(through.trainer().optimizer().first_moment()));
    CHECK(bits(resumed->optimizer().second_moment()) ==
          bits(through.trainer().optimizer().second_moment()));
  }
}

TEST_CASE("a branch goes on as the run it left would have") {
  auto const o = tiny::run_options(false);
  tiny_run stem(o), branch(o);
  for (int i = 0; i < 3; ++i) stem.trainer().step();
  branch.trainer().branch_from(stem.trainer());
  CHECK(branch.trainer().steps_done() == 3);
  for (int i = 0; i < 3; ++i) CHECK(branch.trainer().step().loss == stem.trainer().step().loss);
  CHECK(bits(branch.trainer().model().weights()) == bits(stem.trainer().model().weights()));
}

TEST_CASE("a run is not resumed with another text, nor without its optimizer") {
  auto const o = tiny::run_options(false);
  tiny_run run(o);
  tiny::scratch_file const file("other.strata");
  run.trainer().save(file.path());
  strata::thread_pool pool(1);
  auto text = tiny::letters(5000);
  text[4000] ^= 1;
  lm::corpus const other({text}, o.hold_out);
  CHECK_THROWS_WITH_AS(lm::trainer::resume(lm::load_checkpoint(file.path()), other, pool),
                       doctest::Contains("another checksum"), lm::failure);
  CHECK_THROWS_WITH_AS(
      lm::trainer::resume(lm::load_checkpoint(file.path(), false), run.text(), pool),
      doctest::Contains("without its optimizer"), lm::failure);
}

TEST_CASE("weights can be the start of another run, of the same shape only") {
  auto o = tiny::run_options(false);
  tiny_run first(o);
  first.trainer().step();
  o.seed = 99;
  tiny_run second(o);
  CHECK(bits(second.trainer().model().weights()) != bits(first.trainer().model().weights()));
  second.trainer().start_from(first.trainer().model().weights());
  CHECK(bits(second.trainer().model().weights()) == bits(first.trainer().model().weights()));
  CHECK(second.trainer().steps_done() == 0);
  tiny_run other(tiny::run_options(true));
  CHECK_THROWS_WITH_AS(other.trainer().start_from(first.trainer().model().weights()),
                       doctest::Contains("another shape"), lm::failure);
}

TEST_CASE("a loss or a gradient that is not finite is refused before anything changes") {
  auto const o = tiny::run_options(false);
  for (bool in_loss : {true, false}) {
    tiny_run run(o);
    auto& t = run.trainer();
    t.step();
    auto const& table = t.model().weights().table().entries;
    // Infinity in a gain of the final norm shows in the loss. An MLP that first shrinks and then
    // grows by 1e22 does not, but the gradient of what shrinks is 1e22 times as large.
    for (auto const& entry : table) {
      if (in_loss && entry.name == "final_norm")
        t.model().weights().tensor(entry)[0] = std::numeric_limits<float>::infinity();
      if (!in_loss && (entry.name.ends_with("w_down") || entry.name.ends_with("w_up")))
        for (auto& w : t.model().weights().tensor(entry))
          w *= entry.name.ends_with("w_down") ? 1e22F : 1e-22F;
    }
    auto const before = bits(t.model().weights());
    auto const first = bits(t.optimizer().first_moment());
    CHECK_THROWS_WITH_AS(t.step(),
                         doctest::Contains(in_loss ? "loss of step 1 is not finite"
                                                   : "gradient of step 1 is not finite"),
                         lm::failure);
    CHECK(bits(t.model().weights()) == before);
    CHECK(bits(t.optimizer().first_moment()) == first);
    CHECK(t.steps_done() == 1);
  }
}

TEST_CASE("splitting a step into draws changes the routes and nothing else") {
  auto o = tiny::run_options(false);
  o.routing = "self";
  tiny_run whole(o);
  o.draws_per_step = 3;
  tiny_run parts(o);
  auto const a = whole.trainer().step(), b = parts.trainer().step();
  CHECK(a.loss == doctest::Approx(b.loss).epsilon(1e-6));
  CHECK(a.gradient_norm == doctest::Approx(b.gradient_norm).epsilon(1e-5));
  o.routing = "rcla:0.4";
  tiny_run routed(o);
  routed.trainer().step();
  auto const& plans = routed.trainer().plans();
  CHECK(plans.size() == 3);
  CHECK(!(plans[0] == plans[1] && plans[1] == plans[2]));
}

TEST_CASE("the seed moves routes and text and weights and the routing does not move the text") {
  auto o = tiny::run_options(false);
  tiny_run a(o);
  o.routing = "self";
  tiny_run b(o);
  CHECK(bits(a.trainer().model().weights()) == bits(b.trainer().model().weights()));
  a.trainer().step();
  b.trainer().step();
  CHECK(bits(a.trainer().model().weights()) != bits(b.trainer().model().weights()));
  // The embedding's gradient is zero exactly where no byte of the batch is.
  std::vector<std::uint8_t> noise;
  for (std::uint32_t i = 0; i < 5000; ++i)
    noise.push_back(static_cast<std::uint8_t>(strata::draw_words({8}, i).word[0] >> 24));
  auto const used = [&](std::string const& routing, std::uint64_t seed) {
    auto untied = tiny::run_options(true);
    untied.routing = routing;
    untied.seed = seed;
    tiny_run run(untied, 1, noise);
    run.trainer().step();
    std::string bytes;
    auto const& gradients = run.trainer().model().gradients();
    for (int byte = 0; byte < 256; ++byte)
      bytes += gradients.weights().embedding[byte * untied.model.dim] != 0 ? '1' : '0';
    return bytes;
  };
  CHECK(used("self", 1) == used("rcla:0.4", 1));
  CHECK(used("self", 1) != used("self", 2));
}

TEST_CASE("a little training lowers the loss") {
  auto o = tiny::run_options(false);
  o.steps = 60;
  o.optimizer.lr = 0.01;
  tiny_run run(o);
  auto const first = run.trainer().step().loss;
  double last = first;
  while (!run.trainer().finished()) last = run.trainer().step().loss;
  CHECK(first == doctest::Approx(std::log(256.0)).epsilon(0.05));
  CHECK(last < first - 1.5);  // 26 letters in a fixed order, log(26) = 3.26
}

TEST_CASE(
    "with a full half only the other half is routed and with the text again it learns from it") {
  auto o = tiny::run_options(false);
  o.routing = "rcla:0";
  o.full_half = true;
  tiny_run halves(o);
  auto const routed = halves.trainer().step();
  CHECK(halves.trainer().plans().size() == 1);
  CHECK(tiny::unread(halves.trainer().plans().front()) > 0);
  o.routing = "self";
  tiny_run plain_halves(o);
  o.full_half = false;
  tiny_run plain(o);
  auto const whole = plain.trainer().step(), parts = plain_halves.trainer().step();
  CHECK(whole.loss == doctest::Approx(parts.loss).epsilon(1e-6));
  CHECK(std::abs(routed.loss - whole.loss) > 1e-6);
  // Where both halves predict the same, what they teach each other is half of each one's gradient.
  o.full_half = true;
  o.distill = 1;
  tiny_run taught(o);
  o.distill = 1e-9;
  tiny_run twice(o);
  auto const a = taught.trainer().step(), b = twice.trainer().step();
  CHECK(a.loss == doctest::Approx(b.loss).epsilon(1e-6));
  CHECK(a.gradient_norm == doctest::Approx(b.gradient_norm / 2).epsilon(1e-4));
}

TEST_CASE("adapters alone are trained: matrices move by products of their rank and nothing else") {
  auto o = tiny::run_options(true);
  o.lora = 2;
  o.routing = "self";  // else nobody may read a layer's K and V
  o.steps = 40;
  o.optimizer.lr = .02;
  o.optimizer.clip = 1;
  tiny_run run(o);
  auto& t = run.trainer();
  lm::parameters<float> before(o.model);
  std::ranges::copy(t.model().weights().values(), before.values().begin());
  auto const first = t.step().loss;
  for (auto const& entry : before.table().entries) {
    INFO(entry.name);
    auto const was = before.tensor(entry), is = t.model().weights().tensor(entry);
    bool const adapted = entry.name.starts_with("layers.") && entry.role != lm::tensor_role::norm;
    CHECK(std::ranges::equal(was, is) == !adapted);
    if (!adapted) continue;
    std::vector<double> moved;
    for (std::size_t i = 0; i < was.size(); ++i) moved.push_back(double{is[i]} - double{was[i]});
    CHECK(tiny::rank_of(moved, entry.rows, entry.cols) <= 2);
  }
  double last = first;
  while (!t.finished()) last = t.step().loss;
  CHECK(last < first - .05);  // the embedding and the head are frozen noise
  tiny::scratch_file const file("adapted.strata");
  t.save(file.path());
  auto const saved = lm::load_checkpoint(file.path());
  CHECK(bits(saved.weights) == bits(t.model().weights()));
  CHECK(!saved.optimizer.has_value());
  REQUIRE(saved.adapters.has_value());
  CHECK(bits(saved.adapters->base) == bits(before));
}

TEST_CASE("a run of adapters goes on from its file to the bit") {
  auto o = tiny::run_options(true);
  o.lora = 2;
  tiny_run through(o), first(o), other(o);
  tiny::scratch_file const file("adapters.strata");
  std::vector<double> losses;
  for (int i = 0; i < 6; ++i) losses.push_back(through.trainer().step().loss);
  for (int i = 0; i < 3; ++i) first.trainer().step();
  first.trainer().save(file.path());
  auto saved = lm::load_checkpoint(file.path());
  strata::thread_pool pool(1);
  auto const resumed = lm::trainer::resume(saved, first.text(), pool);
  other.trainer().branch_from(first.trainer());
  for (std::size_t i = 3; i < 6; ++i) {
    CHECK(resumed->step().loss == losses[i]);
    CHECK(other.trainer().step().loss == losses[i]);
  }
  CHECK(bits(resumed->model().weights()) == bits(through.trainer().model().weights()));
  CHECK(bits(other.trainer().model().weights()) == bits(through.trainer().model().weights()));

  saved.training["arguments"]["lora"] = 3;
  CHECK_THROWS_WITH_AS(lm::trainer::resume(saved, first.text(), pool),
                       "the run has --lora 3, its file adapters of rank 2", lm::failure);
  first.trainer().save(file.path(), false);
  CHECK_THROWS_WITH_AS(lm::trainer::resume(lm::load_checkpoint(file.path()), first.text(), pool),
                       doctest::Contains("without its optimizer"), lm::failure);
}

TEST_CASE("adapters move a matrix along the slope of the loss that the whole matrix has") {
  auto o = tiny::run_options(false);
  o.lora = 3;
  o.optimizer.weight_decay = 0;
  o.optimizer.lr = 1e-4;
  o.optimizer.warmup = 0;
  tiny_run run(o);
  auto& t = run.trainer();
  lm::parameters<float> before(o.model);
  std::ranges::copy(t.model().weights().values(), before.values().begin());
  t.step();
  double along = 0;  // B starts at zero and AdamW's first step is against the sign of its gradient
  for (std::size_t i = 0; i < before.values().size(); ++i)
    along += (double{t.model().weights().values()[i]} - double{before.values()[i]}) *
             double{t.model().gradients().values()[i]};
  CHECK(along < 0);
}

TEST_CASE("arguments that cannot be are named with their bound") {
  auto const refused = [](auto const& change, char const* sentence) {
    auto o = tiny::run_options(false);
    change(o);
    strata::thread_pool pool(1);
    lm::corpus const text({tiny::letters(5000)}, 0);
    CHECK_THROWS_WITH_AS(lm::trainer(o, text, pool), doctest::Contains(sentence), lm::failure);
  };
  using options = lm::training_options;
  refused([](options& o) { o.model.kv_heads = 3; }, "--kv-heads is 3; it must divide --q-heads, 4");
  refused([](options& o) { o.model.layers = 257; },
          "--layers is 257; it must lie between 1 and 256");
  refused([](options& o) { o.model.head_dim = 7; }, "--head-dim is 7");
  refused([](options& o) { o.batch = 0; }, "--batch is 0");
  refused([](options& o) { o.draws_per_step = 7; }, "--draws-per-step is 7");
  refused([](options& o) { o.hold_out = 1; }, "--hold-out is 1");
  refused([](options& o) { o.lora = 11; }, "--lora is 11; it must lie between 0 and 10");
  refused([](options& o) { o.distill = .5; }, "--distill needs --full-half");
  refused([](options& o) { o.dropout = .94; }, "--dropout is 0.94");
  refused([](options& o) { o.dropout = -.1; }, "--dropout is -0.1");
  refused([](options& o) { o.dropout = NAN; }, "--dropout is nan");
  refused([](options& o) { o.batch = 5, o.full_half = true; }, "--batch is 5; it must be even");
  refused([](options& o) { o.draws_per_step = 4, o.full_half = true; }, "at most half of --batch");
  refused([](options& o) { o.answers_only = true; }, "--answers-only needs --questions");
  refused([](options& o) { o.optimizer.lr = NAN; }, "--lr is nan");
  refused([](options& o) { o.optimizer.beta2 = 1; }, "--beta2 is 1");
  refused([](options& o) { o.optimizer.warmup = -0.1; }, "--warmup is -0.1");
  refused([](options& o) { o.routing = "rcla:2"; }, "--routing");
  refused([](options& o) { o.routing = "self", o.schedule = "0:1"; }, "rcla:P");
  refused([](options& o) { o.schedule = "0:1:2"; }, "'2' is no number from 0 to 1");
  refused([](options& o) { o.schedule = "0"; }, "--schedule is '0'");
  refused([](options& o) { o.depth_schedule = "0:1:0.5"; }, "--depth-schedule is '0:1:0.5'");
  refused([](options& o) { o.schedule = o.depth_schedule = "0:1"; }, "exclude each other");
  refused([](options& o) { o.model.context = 5000; }, "5001 bytes in one piece");
}
