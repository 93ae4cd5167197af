// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Steps of a stack on a device as an engine runs them, wherever the launches run: appended and
// attended layer by layer, and the same on the host. Nobody waits in between but who says so.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <utility>
#include <vector>

#include <strata/attention/reference.hpp>
#include <strata/cache/paged_storage.hpp>
#include <strata/cuda/detail/append_call.hpp>
#include <strata/map/grouped_map.hpp>
#include <strata/stack.hpp>

#include "cache_tensor.hpp"
#include "device_serving.hpp"
#include "half_call.hpp"
#include "print.hpp"

namespace support::serving {

using strata::bf16_codec;
using strata::bfloat16;

constexpr auto width = std::int64_t{kv_heads} * dim, q_width = std::int64_t{q_heads} * dim;

/// What the rows of a step bring and get, of one layer, in memory that host and device see.
struct layer_rows {
  std::vector<bfloat16> k, v, q, out;

  explicit layer_rows(std::int32_t rows)
      : k(as_size(rows * width)), v(k.size()), q(as_size(rows * q_width)), out(q.size()) {}
};

/// The launches of a step: appended, then attended, layer by layer.
template <class Step, class Mirror, class Kernel>
void run_layers(Step& step, Mirror const& mirror, Kernel const& kernel,
                std::vector<layer_rows>& rows, std::span<std::byte> workspace) {
  strata::serial_executor here;
  for (layer_id l{0}; layers > l.index; ++l.index) {
    auto& x = rows[as_size(l.index)];
    // Later batches may store where these do not.
    auto const k = mirror.k_side(step, l, std::as_const(x.k).data(), true);
    auto const v = mirror.v_side(step, l, std::as_const(x.v).data(), true);
    REQUIRE(
        strata::cuda::detail::append_on<bf16_codec, bf16_codec>(kernel.launcher, k, v, {}).ok());
    strata::layer_queries<bfloat16> const queries{
        .q = x.q.data(), .out = x.out.data(), .q_heads = q_heads};
    auto const asked = mirror.queries(step, l, queries).value();
    auto const view = mirror.view(step, l).value();
    auto const done = strata::attend(here, kernel, asked, view, workspace);
    CAPTURE(done);
    REQUIRE(done.ok());
  }
}

/// The numbers of a step's rows.
template <class Step>
void fill(Step const& step, std::vector<std::int32_t> const& tokens,
          std::vector<layer_rows>& rows) {
  for (layer_id l{0}; layers > l.index; ++l.index) {
    auto& x = rows[as_size(l.index)];
    auto const put = [&](std::vector<bfloat16>& to, std::int32_t heads, std::uint64_t what) {
      auto const from = rows_of<bfloat16>(step, tokens, heads, what, l);
      std::copy(from.begin(), from.end(), to.begin());
    };
    put(x.k, kv_heads, 1);
    put(x.v, kv_heads, 2);
    put(x.q, q_heads, 3);
  }
}

/// The same step on the host; the greatest difference from what the device made.
template <class Host>
double compare(Host& host, std::vector<strata::batch_entry> const& batch,
               std::vector<layer_rows> const& rows) {
  auto step = host.begin(batch);
  REQUIRE(step.state().ok());
  strata::serial_executor here;
  std::vector<std::byte> workspace(1 << 16);
  double worst = 0;
  for (layer_id l{0}; layers > l.index; ++l.index) {
    auto const& x = rows[as_size(l.index)];
    for (auto const& run : step.k_writers(l)) run.store_all(x.k.data() + run.first_row() * width);
    for (auto const& run : step.v_writers(l)) run.store_all(x.v.data() + run.first_row() * width);
    auto const q = as_doubles(x.q);
    std::vector<double> exact(q.size());
    strata::layer_queries<double> const asked{
        .q = q.data(), .out = exact.data(), .q_heads = q_heads};
    REQUIRE(step.attend(here, l, asked, workspace).ok());
    worst = std::max(worst, tensor_distance(widened(x.out), exact).error);
  }
  REQUIRE(step.commit().ok());
  return worst;
}

/// A server on a device and one on the host, whose sequences fork.
template <class Device, class Mirror, class Kernel>
class forking_servers {
 public:
  static constexpr std::int32_t block_size = 16, most_rows = 21, prompt = 20;
  static constexpr strata::paged_options room{4, most_tokens, block_size, 120, 120};
  static constexpr std::int64_t mirror_bytes =
      Mirror::bytes_for(layers, 3, most_rows, block_size, 3 * most_tokens);

  /// All of one stream.
  forking_servers(Device& device, Mirror& mirror, Kernel const& kernel)
      : device_(device), mirror_(mirror), kernel_(kernel), workspace_(1 << 22) {
    kernel_.bounds = {.rows = most_rows, .rows_per_seq = prompt};
  }

  /// Blocks that are shared and partly filled, copies, tables that changed, in step after step.
  void run() {
    auto const parent = open(2), other = open(1);
    send({{parent, prompt}, {other, 1}});
    auto const child = fork(parent);
    send({{child, 1}, {parent, 1}});
    send({{parent, 2}, {child, 1}, {other, 15}});
    auto const grandchild = fork(child);
    send({{grandchild, 1}, {other, 1}});
    send({{child, 3}, {grandchild, 12}, {parent, 1}});
  }
  /// Once the device is done: the greatest difference from what the host makes of it.
  double compare_all() {
    double worst = 0;
    for (auto const& step : sent_) {
      for (auto const& [parent, child] : step.forks) REQUIRE(host_.fork(parent).value() == child);
      worst = std::max(worst, compare(host_, step.batch, step.rows));
    }
    return worst;
  }

 private:
  /// What a step read and wrote, kept until the device is done with it.
  struct sent_step {
    std::vector<std::pair<strata::sequence_id, strata::sequence_id>> forks;  // just before
    std::vector<strata::batch_entry> batch;
    std::vector<layer_rows> rows;  // [layers]
  };

  strata::sequence_id open(std::int32_t every) {
    auto const plan = *strata::make_plan(strata::grouped_map(layers, every), model);
    auto const id = device_.open(plan).value();
    REQUIRE(host_.open(plan).value() == id);
    return id;
  }
  strata::sequence_id fork(strata::sequence_id parent) {
    auto const id = device_.fork(parent).value();
    forks_.push_back({parent, id});
    return id;
  }
  /// Sends a step and enqueues its launches.
  void send(std::vector<strata::batch_entry> const& batch) {
    auto step = device_.begin(batch);
    REQUIRE(step.state().ok());
    std::vector<layer_rows> rows(layers, layer_rows(step.num_rows()));
    sent_.push_back({std::exchange(forks_, {}), batch, std::move(rows)});
    std::vector<std::int32_t> tokens;
    for (auto const& entry : batch) tokens.push_back(entry.new_tokens);
    fill(step, tokens, sent_.back().rows);
    REQUIRE(mirror_.send(step).ok());
    run_layers(step, mirror_, kernel_, sent_.back().rows, workspace_);
    REQUIRE(step.commit().ok());
  }

  Device& device_;
  Mirror& mirror_;
  Kernel kernel_;
  strata::stack<strata::paged_storage<bf16_codec>, strata::reference_attention> host_{
      strata::paged_storage<bf16_codec>(model, room), {}};
  std::vector<std::byte> workspace_;
  std::vector<std::pair<strata::sequence_id, strata::sequence_id>> forks_;
  std::deque<sent_step> sent_;
};

}  // namespace support::serving
