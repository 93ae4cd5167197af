// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A machine that serves (cuda/serving_machine.hpp) and is no device: append and fills run thread by
// thread, attention is the reference in double over what the cache holds, or the device's own
// kernels thread by thread. Nothing is done before somebody waits for it: who looks too early, or
// overwrites what a copy is to start from, is found out. A recording keeps launches with the
// arguments they had; a replay runs them, whatever lies behind their pointers by then.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <stdexcept>
#include <vector>

#include <strata/attention/kernel.hpp>
#include <strata/attention/reference.hpp>
#include <strata/cuda/detail/attention_on.hpp>
#include <strata/cuda/detail/step_mirror_on.hpp>

#include "cuda/machine_failure.hpp"
#include "cuda/serving_machine.hpp"
#include "host_machine.hpp"
#include "support/host_memory_device.hpp"
#include "support/simt_attention.hpp"

namespace bodies {

/// Work in order: done when it is waited for, or kept by a recording.
class work_list {
 public:
  using work = std::function<void()>;

  template <class Work>
  void add(Work const& w) {
    (recorded_ != nullptr ? *recorded_ : enqueued_).push_back(w);
  }
  void finish() {
    for (auto const& w : enqueued_) w();
    enqueued_.clear();
  }
  void drop() { enqueued_.clear(); }
  bool recording() const { return recorded_ != nullptr; }
  template <class Body>
  void record(std::vector<work>& into, Body const& body) {
    into.clear();
    recorded_ = &into;
    body();
    recorded_ = nullptr;
  }

 private:
  std::vector<work> enqueued_;
  std::vector<work>* recorded_ = nullptr;
};

/// Starts kernels of the library as the machine does its own.
struct listed_launcher {
  work_list* list = nullptr;
  simt::order order = simt::order::shuffled;

  template <class Body, class Args>
  strata::status start(std::int64_t blocks, std::int32_t shared_bytes,
                       Args const& args) const noexcept {
    list->add([=, on = support::simt_launcher{order}] {
      auto const s = on.start<Body>(blocks, shared_bytes, args);
      if (!s.ok()) throw std::logic_error("a launch failed");
    });
    return {};
  }
};

class host_serving_machine : public host_machine {
 public:
  using mirror =
      strata::cuda::detail::step_mirror_on<support::host_memory_device<support::simt_launcher>>;
  using graph = std::vector<work_list::work>;

  bool library_attention = false;    ///< the device's kernels, else the reference
  std::int32_t attends_to_fail = 0;  ///< the attention call that fails, counted down
  std::int32_t waits_to_fail = 0;    ///< the same of waits, which throw

  template <class T>
  buffer<T> pinned(std::int64_t count) {
    return buffer<T>(count);
  }
  template <class Body>
  void launch(Body const& body) {
    list_.add([=, this] { host_machine::launch(body); });
  }
  template <class T>
  void upload(std::span<T const> from, T* to) {
    require_not_recording();
    list_.add([=, this] { host_machine::upload(from, to); });
  }
  template <class T>
  void fill_zero(T* to, std::int64_t count) {
    require_not_recording();
    list_.add([=, this] { host_machine::fill_zero(to, count); });
  }
  template <class T>
  void download(T const* from, std::span<T> to) {
    list_.add([=, this] { host_machine::download(from, to); });
  }
  void wait() {
    require_not_recording();
    if (waits_to_fail > 0 && --waits_to_fail == 0) {
      list_.drop();
      throw lm::cuda::machine_failure("a wait", 719, lm::exit_code::failed);
    }
    list_.finish();
  }
  template <class Out>
  void linear(bfloat16 const* x, bfloat16 const* w, Out* y, std::int64_t rows, std::int64_t in,
              std::int64_t out, Out const* c = nullptr) {
    ++products;
    list_.add([=, this] { host_machine::linear(x, w, y, rows, in, out, c); });
  }

  template <class Storage>
  strata::result<mirror> make_mirror(Storage const& storage, std::int64_t bytes) noexcept {
    return mirror::make({}, storage, bytes);
  }
  template <class KCodec, class VCodec>
  strata::status append(lm::cuda::append_side const& k, lm::cuda::append_side const& v,
                        strata::rotary<float> const& rope) noexcept {
    return strata::cuda::detail::append_on<KCodec, VCodec>(listed_launcher{&list_, order}, k, v,
                                                           rope);
  }

  template <class View>
  std::int64_t attention_bytes(lm::cuda::served_queries const& q, View const& view,
                               strata::cuda::launch_bounds const& bounds) const noexcept {
    return within(bounds).workspace_bytes(q, view, 1);
  }
  template <class View>
  strata::status attend(lm::cuda::served_queries const& q, View const& view,
                        strata::cuda::launch_bounds const& bounds,
                        std::span<std::byte> workspace) noexcept {
    if (attends_to_fail > 0 && --attends_to_fail == 0)
      return {strata::errc::device_failure, strata::no_layer, 700, 0};
    strata::serial_executor here;
    if (library_attention) return strata::attend(here, within(bounds), q, view, workspace);
    list_.add([=] { attend_exactly(q, view); });
    return {};
  }

  template <class Body>
  void record(graph& g, Body const& body) {
    list_.record(g, body);
  }
  void replay(graph& g) {
    for (auto const& work : g) list_.add(work);
  }

  std::int64_t products = 0;  ///< asked for so far

 private:
  using kernel = strata::cuda::detail::attention_on<listed_launcher, 64>;

  kernel within(strata::cuda::launch_bounds const& bounds) const noexcept {
    kernel k;
    k.launcher = {&list_, order};
    k.multiprocessors = 2;
    k.bounds = bounds;
    return k;
  }

  template <class View>
  static void attend_exactly(lm::cuda::served_queries const& q, View const& view) {
    auto const heads = static_cast<std::size_t>(q.num_rows()) * static_cast<std::size_t>(q.q_heads);
    auto const k_dim = static_cast<std::size_t>(view.k_dim),
               v_dim = static_cast<std::size_t>(view.v_dim);
    auto const wide = doubles(std::vector<bfloat16>(q.q, q.q + heads * k_dim));
    std::vector<double> out(heads * v_dim);
    strata::query_rows<double> rows;
    rows.q = wide.data();
    rows.out = out.data();
    rows.offsets = q.offsets;
    rows.positions = q.positions;
    rows.num_seqs = q.num_seqs;
    rows.q_heads = q.q_heads;
    rows.rule = q.rule;
    strata::reference_attention const reference;
    strata::serial_executor here;
    std::vector<std::byte> workspace(
        static_cast<std::size_t>(reference.workspace_bytes(rows, view, 1)));
    auto const done = strata::attend(here, reference, rows, view, workspace);
    if (!done.ok()) throw std::logic_error(strata::describe(done).c_str());
    for (std::size_t i = 0; i < out.size(); ++i)
      q.out[i] = strata::to_bfloat16(static_cast<float>(out[i]));
  }

  void require_not_recording() const {
    if (list_.recording()) throw std::logic_error("not in a recording");
  }

  work_list mutable list_;
};

}  // namespace bodies
