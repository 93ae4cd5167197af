// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Training: draws a plan per pass and points stateless attention calls at the source's tensors. The
// trainer owns the layer loop, the tensors and the order of things; nothing is remembered here, so
// that a recomputed segment needs its inputs and nothing else.
//
// The contract of the gradient sums (law 7). Backward goes down the layers; at layer l it adds to
// the gradients of l's source, and the first to arrive (`last_reader`, the highest reader)
// overwrites instead. When layer l's own turn comes, all readers of its K and V have been there,
// because a reader is never below its source. A layer whose K is not `stored` was read by nobody:
// skip its projection in both passes; its gradient is exactly zero.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <type_traits>

#include <strata/attention/kernel.hpp>
#include <strata/attention/query.hpp>
#include <strata/cache/view.hpp>
#include <strata/config.hpp>
#include <strata/detail/math.hpp>
#include <strata/executor.hpp>
#include <strata/geometry.hpp>
#include <strata/plan.hpp>
#include <strata/random.hpp>
#include <strata/routing/sampler.hpp>

STRATA_NAMESPACE_BEGIN

/// K and V of one layer in one training pass, in the trainer's memory, and their gradients. Only
/// those of stored tensors are touched; a recomputed segment passes sources from outside it the
/// same way.
template <query_element T>
struct layer_tensors {
  T const* k = nullptr;      ///< [num_seqs, length, kv_heads, k_dim]
  T const* v = nullptr;      ///< [num_seqs, length, kv_heads, v_dim]
  accum_t<T>* dk = nullptr;  ///< shaped as k; null: not wanted, as of a frozen projection
  accum_t<T>* dv = nullptr;  ///< shaped as v, or null; the readers' d_q does not depend on either
};

/// A training pass: sequences of one length, from position 0.
struct pass_shape {
  std::int32_t num_seqs = 0;
  std::int32_t length = 0;
};

/// What the attention of a layer is given in a pass, forward and backward.
template <query_element T>
struct routed_call {
  query_rows<T> q;
  kv_view<plain_codec<T>> view;
  kv_grad<accum_t<T>> grad;
  /// Gradients that backward has to set to zero besides: a sum whose first reader sends nothing
  /// still starts. Empty where there is none.
  std::span<accum_t<T>> zero_dk, zero_dv;
};

template <routing_sampler Sampler, class Kernel>
class router {
 public:
  router(Sampler const& sampler, kv_classes const& classes, Kernel const& kernel = {}) noexcept
      : sampler_(sampler), classes_(classes), kernel_(kernel) {}

  Sampler& sampler() noexcept { return sampler_; }
  kv_classes const& classes() const noexcept { return classes_; }

  /// With true, a layer that reads another layer's K/V sends no gradient there: only self-reading
  /// layers train their K and V. Off in the paper, and by default.
  void stop_source_gradient(bool stop) noexcept { stop_source_gradient_ = stop; }

  /// What shares one route; by default a micro-batch, so that keys may name their rank and sequence
  /// and all ranks still draw alike (law 2). With a route per rank, or per sequence where a pass is
  /// one sequence, the gradients that are averaged come from different routes.
  void draw_per(draw_scope scope) noexcept { scope_ = scope; }

  /// The plan of one pass. Pure: the same key within the scope gives the same plan on every rank
  /// and recomputation.
  result<route_plan> draw(draw_key const& key) const noexcept {
    return make_plan(sampler_, classes_, scoped(key, scope_));
  }

  /// The call that `forward` and `backward` make, for trainers that enqueue it themselves: on a
  /// device, where pointers are the device's and nothing here follows them.
  template <class T>
  result<routed_call<T>> call(route_plan const& plan, layer_id l, layer_queries<T> const& queries,
                              std::type_identity_t<std::span<layer_tensors<T> const>> tensors,
                              pass_shape shape) const noexcept {
    if (auto const s = check_call(plan, l, tensors.size()); !s.ok()) return s;
    auto const& [k, v] = plan[l];
    auto const& kv = classes_[l].kv;
    auto const& k_source = tensors[index(k.source)];
    auto const& v_source = tensors[index(v.source)];
    routed_call<T> c;
    c.q = rows(l, queries, shape);
    c.view = view(plan[l], l, tensors, shape);
    c.grad = kv_grad<accum_t<T>>::dense(stopped(k, l) ? nullptr : k_source.dk,
                                        stopped(v, l) ? nullptr : v_source.dv, shape.length,
                                        kv.kv_heads, kv.k_dim, kv.v_dim);
    c.grad.add_k = !k.last_reader;
    c.grad.add_v = !v.last_reader;
    c.zero_dk = stopped_sum(k, l, k_source.dk, std::int64_t{kv.kv_heads} * kv.k_dim, shape);
    c.zero_dv = stopped_sum(v, l, v_source.dv, std::int64_t{kv.kv_heads} * kv.v_dim, shape);
    return c;
  }

  /// Attention of layer `l`. tensors: [num_layers]; queries: [num_seqs * length, ...].
  template <executor Exec, class T>
  status forward(Exec& exec, route_plan const& plan, layer_id l, layer_queries<T> const& queries,
                 std::type_identity_t<std::span<layer_tensors<T> const>> tensors, pass_shape shape,
                 std::span<std::byte> workspace = {}) const noexcept {
    auto const c = call(plan, l, queries, tensors, shape);
    if (!c.ok()) return c.state();
    auto s = attend(exec, kernel_, c->q, c->view, workspace);
    if (!s.ok()) s.layer = l;
    return s;
  }

  /// Gradients of layer `l`: d_q is overwritten; dk and dv of the source are started or added to.
  /// queries.out and queries.lse are those that forward wrote. d_out: [num_seqs * length, q_heads,
  /// v_dim]; d_q: [num_seqs * length, q_heads, k_dim].
  template <executor Exec, class T>
  status backward(Exec& exec, route_plan const& plan, layer_id l, layer_queries<T> const& queries,
                  std::type_identity_t<std::span<layer_tensors<T> const>> tensors, pass_shape shape,
                  T const* d_out, T* d_q, std::span<std::byte> workspace = {}) const noexcept {
    auto const c = call(plan, l, queries, tensors, shape);
    if (!c.ok()) return c.state();
    auto s = attend_backward(exec, kernel_, c->q, c->view, d_out, d_q, c->grad, workspace);
    if (!s.ok()) {
      s.layer = l;
      return s;
    }
    for (auto& x : c->zero_dk) x = 0;
    for (auto& x : c->zero_dv) x = 0;
    return {};
  }

  /// Bytes of workspace that suffice for forward and backward of layer `l`, split into num_shares.
  template <class T>
  result<std::int64_t> workspace_bytes(layer_id l, layer_queries<T> const& queries,
                                       pass_shape shape, std::int32_t num_shares) const noexcept {
    if (auto const s = check_layer(l); !s.ok()) return s;
    if (num_shares < 1) return status{errc::bad_share, l, 0, num_shares};
    auto const& kv = classes_[l].kv;
    auto const q = rows(l, queries, shape);
    auto const v = contiguous_view<T>(nullptr, nullptr, shape.num_seqs, shape.length, kv.kv_heads,
                                      kv.k_dim, kv.v_dim);
    return detail::larger(kernel_.workspace_bytes(q, v, num_shares),
                          kernel_.backward_workspace_bytes(q, v, num_shares));
  }

 private:
  static std::size_t index(layer_id l) noexcept { return static_cast<std::size_t>(l.index); }

  status check_layer(layer_id l) const noexcept {
    if (!l.valid() || l.index >= classes_.num_layers())
      return {errc::layer_out_of_range, l, l.index, classes_.num_layers()};
    if (!classes_[l].has_kv) return {errc::source_without_kv, l, l.index, 0};
    return {};
  }
  status check_call(route_plan const& plan, layer_id l, std::size_t num_tensors) const noexcept {
    if (auto const s = check_layer(l); !s.ok()) return s;
    if (plan.num_layers != classes_.num_layers())
      return {errc::plan_mismatch, l, plan.num_layers, classes_.num_layers()};
    for (auto const column : {&layer_step::k, &layer_step::v}) {
      auto const source = (plan[l].*column).source;
      if (source > l) return {errc::source_above_reader, l, source.index, l.index};
      if (!source.valid() || !(plan[source].*column).stored)
        return {errc::bad_plan, l, source.index, 0};
      if (index(source) >= num_tensors)
        return {errc::too_few_tensors, l, static_cast<std::int64_t>(num_tensors), source.index + 1};
    }
    return {};
  }

  bool stopped(route const& r, layer_id l) const noexcept {
    return stop_source_gradient_ && r.source != l;
  }

  /// The sum that starts at zero because its first reader sends nothing, or nothing.
  template <class A>
  std::span<A> stopped_sum(route const& r, layer_id l, A* grad, std::int64_t row,
                           pass_shape shape) const noexcept {
    auto const rows = std::int64_t{shape.num_seqs} * shape.length;
    if (!stopped(r, l) || !r.last_reader || grad == nullptr || rows <= 0) return {};
    return {grad, static_cast<std::size_t>(rows * row)};
  }

  template <class T>
  kv_view<plain_codec<T>> view(layer_step const& step, layer_id l,
                               std::span<layer_tensors<T> const> tensors,
                               pass_shape shape) const noexcept {
    auto const& kv = classes_[l].kv;
    return contiguous_view(tensors[index(step.k.source)].k, tensors[index(step.v.source)].v,
                           shape.num_seqs, shape.length, kv.kv_heads, kv.k_dim, kv.v_dim);
  }

  template <class T>
  query_rows<T> rows(layer_id l, layer_queries<T> const& queries, pass_shape shape) const noexcept {
    auto q = detail::whole_rows(queries, classes_[l].window);
    q.num_seqs = shape.num_seqs;
    q.rows_per_seq = shape.length;
    return q;
  }

  Sampler sampler_;
  kv_classes classes_;
  Kernel kernel_;
  draw_scope scope_ = draw_scope::micro_batch;
  bool stop_source_gradient_ = false;
};

STRATA_NAMESPACE_END
