// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The same calls by ggml_flash_attn_ext on ggml's CPU backend, over the same K/V. In [head, token,
// dim], the order that it reads fastest: it walks through the keys once per query head.
#pragma once

#include <ggml-cpu.h>
#include <ggml.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <vector>

#include "../attention_call.hpp"

namespace bench {

/// What ggml calls a codec; GGML_TYPE_COUNT where it has no such type.
template <class Codec>
inline constexpr ggml_type ggml_type_of = GGML_TYPE_COUNT;
template <>
inline constexpr ggml_type ggml_type_of<strata::f32_codec> = GGML_TYPE_F32;
template <>
inline constexpr ggml_type ggml_type_of<strata::f16_codec> = GGML_TYPE_F16;
template <>
inline constexpr ggml_type ggml_type_of<strata::bf16_codec> = GGML_TYPE_BF16;
template <>
inline constexpr ggml_type ggml_type_of<strata::q8_0_codec> = GGML_TYPE_Q8_0;

/// One of ggml's pools per number of threads: without one, each call would start its threads.
inline ggml_threadpool* ggml_threads(std::int32_t count) {
  static std::map<std::int32_t, ggml_threadpool*> pools;
  auto& pool = pools[count];
  if (pool == nullptr) {
    auto params = ggml_threadpool_params_default(count);
    pool = ggml_threadpool_new(&params);
  }
  return pool;
}

template <class Codec>
class ggml_attention {
 public:
  ggml_attention(std::int32_t threads, attention_shape const& shape)
      : shape_(in_its_order(shape)), sets_(shape_), q_(random_queries(shape_)), out_(q_.size()) {
    ggml_cpu_init();
    auto const tensors = static_cast<std::size_t>(4 + 3 * sets_.count());
    auto const graphs = static_cast<std::size_t>(sets_.count());
    ggml_init_params const params{
        tensors * ggml_tensor_overhead() + graphs * ggml_graph_overhead_custom(graph_size, false),
        nullptr, true};
    context_ = ggml_init(params);
    fill_mask();
    auto* const q = queries();
    auto* const mask = mask_.empty() ? nullptr : mask_tensor();
    for (std::int64_t set = 0; set < sets_.count(); ++set)
      graphs_.push_back(make_graph(q, mask, sets_.at(set)));
    plan_ = ggml_graph_plan(graphs_[0], threads, ggml_threads(threads));
    work_.resize(plan_.work_size + 64);
    plan_.work_data = work_.data();
  }
  ggml_attention(ggml_attention const&) = delete;
  ggml_attention& operator=(ggml_attention const&) = delete;
  ~ggml_attention() { ggml_free(context_); }

  std::vector<float> const& out() const { return out_; }

  void run() {
    auto* const graph = graphs_[static_cast<std::size_t>(next_)];
    if (ggml_graph_compute(graph, &plan_) != GGML_STATUS_SUCCESS) {
      std::fprintf(stderr, "ggml_graph_compute failed\n");
      std::exit(1);
    }
    next_ = (next_ + 1) % sets_.count();
  }

  /// The largest distance of a row of the output to ours on the first set of K/V, relative to the
  /// row's length.
  template <class Kernel>
  double distance(strata::thread_pool& pool) {
    forward_call<Kernel, Codec> ours(pool, shape_);
    ours.run();
    next_ = 0;
    run();
    double most = 0;
    auto const dim = static_cast<std::size_t>(shape_.dim);
    for (std::size_t row = 0; row < out_.size(); row += dim) {
      double apart = 0, length = 0;
      for (auto i = row; i < row + dim; ++i) {
        apart += std::pow(out_[i] - ours.out()[i], 2);
        length += std::pow(ours.out()[i], 2);
      }
      most = std::max(most, std::sqrt(apart / length));  // NaN: the caller's comparison fails
      if (std::isnan(apart)) return apart;
    }
    return most;
  }

 private:
  static constexpr std::size_t graph_size = 8;

  static attention_shape in_its_order(attention_shape shape) {
    shape.heads_first = true;
    return shape;
  }

  /// Who sees whom: nothing for a single row, which sees all keys.
  void fill_mask() {
    if (shape_.rows == 1) return;
    auto const unseen = ggml_fp32_to_fp16(-INFINITY), seen = ggml_fp32_to_fp16(0);
    mask_.reserve(static_cast<std::size_t>(shape_.rows) * static_cast<std::size_t>(shape_.context));
    for (std::int32_t row = 0; row < shape_.rows; ++row)
      for (std::int32_t key = 0; key < shape_.context; ++key)
        mask_.push_back(key <= shape_.context - shape_.rows + row ? seen : unseen);
  }

  ggml_tensor* mask_tensor() {
    auto* const mask = ggml_new_tensor_2d(context_, GGML_TYPE_F16, shape_.context, shape_.rows);
    mask->data = mask_.data();
    return mask;
  }

  ggml_tensor* queries() {
    auto* const q = ggml_new_tensor_4d(context_, GGML_TYPE_F32, shape_.dim, shape_.q_heads,
                                       shape_.rows, shape_.batch);
    q->data = q_.data();
    return ggml_permute(context_, q, 0, 2, 1, 3);
  }

  ggml_tensor* tensor_of(strata::tensor_blocks const& blocks) {
    auto* const tensor = ggml_new_tensor_4d(context_, ggml_type_of<Codec>, shape_.dim,
                                            shape_.context, shape_.kv_heads, shape_.batch);
    tensor->data = const_cast<std::byte*>(blocks.data);
    return tensor;
  }

  ggml_cgraph* make_graph(ggml_tensor* q, ggml_tensor* mask, strata::kv_view<Codec> const& view) {
    auto const scale = 1 / std::sqrt(static_cast<float>(shape_.dim));
    auto* const k = tensor_of(view.k);
    auto* const v = tensor_of(view.v);
    auto* const out = ggml_flash_attn_ext(context_, q, k, v, mask, scale, 0, 0);
    out->data = out_.data();
    auto* const graph = ggml_new_graph_custom(context_, graph_size, false);
    ggml_build_forward_expand(graph, out);
    return graph;
  }

  attention_shape shape_;
  kv_sets<Codec> sets_;
  std::vector<float> q_, out_;
  std::vector<ggml_fp16_t> mask_;
  std::vector<std::uint8_t> work_;
  ggml_context* context_ = nullptr;
  std::vector<ggml_cgraph*> graphs_;
  ggml_cplan plan_{};
  std::int64_t next_ = 0;
};

}  // namespace bench
