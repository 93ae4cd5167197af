// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// One type that names an experiment: how it trains, how it serves, where the cache lies and what
// reads it.
#pragma once

#include <concepts>
#include <cstdint>

#include <strata/attention/kernel.hpp>
#include <strata/cache/footprint.hpp>
#include <strata/cache/storage.hpp>
#include <strata/config.hpp>
#include <strata/map/layer_map.hpp>
#include <strata/plan.hpp>
#include <strata/router.hpp>
#include <strata/routing/sampler.hpp>
#include <strata/stack.hpp>

STRATA_NAMESPACE_BEGIN

namespace detail {

/// `bytes_per_token`, for a class with a member of that name.
template <class KCodec, class VCodec>
constexpr std::int64_t plan_bytes(route_plan const& plan, kv_classes const& classes) noexcept {
  return bytes_per_token<KCodec, VCodec>(plan, classes);
}

}  // namespace detail

/// A list of four policies that fit each other. Holds nothing; budgets can be stated at compile
/// time:
///
///     using experiment =
///         strata::model_policy<strata::random_previous<>, strata::grouped_map<36, 4>,
///                              strata::contiguous_storage<strata::bf16_codec>,
///                              strata::reference_attention>;
///     static_assert(experiment::bytes_per_token(qwen3_8b) == 36 * 1024);
template <class Sampler, class Map, class Storage, class Kernel>
struct model_policy {
  static_assert(routing_sampler<Sampler>,
                "strata: the first policy must be a routing_sampler: trivially copyable, and "
                "layer_id operator()(candidates, draw_key) const noexcept");
  static_assert(
      layer_map<Map>,
      "strata: the second policy must be a layer_map: trivially copyable, with num_layers() "
      "and source(layer_id), both const noexcept");
  static_assert(cache_storage<Storage>, "strata: the third policy must be a cache_storage");
  static_assert(
      attention_kernel<Kernel, float,
                       kv_view<typename Storage::k_codec, typename Storage::v_codec>>,
      "strata: the fourth policy must be an attention_kernel that reads the codecs of the "
      "storage");
  static_assert(differentiable_kernel<Kernel, float, kv_view<f32_codec>>,
                "strata: the fourth policy must compute gradients, or the experiment cannot train");

  using sampler_type = Sampler;
  using map_type = Map;
  using storage_type = Storage;
  using kernel_type = Kernel;
  using router_type = router<Sampler, Kernel>;
  using stack_type = stack<Storage, Kernel>;

  /// The serving plan of a map whose numbers are in its type, or of the given one.
  static constexpr result<route_plan> plan(kv_classes const& classes,
                                           Map const& map = {}) noexcept {
    return make_plan(map, classes);
  }

  /// Cache bytes per token while serving; -1 where the map does not fit the model.
  static constexpr std::int64_t bytes_per_token(kv_classes const& classes,
                                                Map const& map = {}) noexcept {
    auto const serving = plan(classes, map);
    if (!serving.ok()) return -1;
    return detail::plan_bytes<typename Storage::k_codec, typename Storage::v_codec>(*serving,
                                                                                    classes);
  }
};

STRATA_NAMESPACE_END
