// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "serving_place.hpp"

#include <algorithm>
#include <cstddef>
#include <utility>

#include <strata/attention/cpu/lanes.hpp>

#include "blas_rate.hpp"
#include "fit.hpp"
#include "formats/open_model.hpp"
#include "gemm.hpp"
#include "report.hpp"

#if STRATA_LM_CUDA
#include "cuda/device_place.hpp"
#endif

namespace lm {
namespace {

/// Weights of the right size and deviation, fast: a hash of the index instead of the normal numbers
/// of `initialise`, which take minutes for billions of them.
void fill_quickly(parameters<float>& model, strata::thread_pool& pool) {
  auto const values = model.values();
  constexpr std::size_t part = 1 << 20;
  for_tasks(pool, static_cast<std::int64_t>((values.size() + part - 1) / part),
            [&](std::int64_t task, std::int32_t) {
              auto const begin = static_cast<std::size_t>(task) * part;
              auto const end = std::min(begin + part, values.size());
              for (auto i = begin; i < end; ++i) {
                auto bits = static_cast<std::uint32_t>(i) * 0x9E3779B9U;
                bits = (bits ^ bits >> 15) * 0x85EBCA6BU;
                values[i] = (static_cast<float>(bits >> 8) * 0x1p-24F - 0.5F) * 0.069F;
              }
            });
  for (auto const& entry : model.table().entries)
    if (entry.role == tensor_role::norm) std::ranges::fill(model.tensor(entry), 1.0F);
}

/// A processor's model that is nobody else's.
struct model_owner {
  parameters<float> model;
  strata::thread_pool pool;

  model_owner(parameters<float> weights, std::int32_t threads)
      : model(std::move(weights)), pool(threads) {}
};
class owning_cpu_place final : private model_owner, public cpu_place {
 public:
  owning_cpu_place(parameters<float> weights, std::int32_t threads)
      : model_owner(std::move(weights), threads), cpu_place(model_owner::model, pool) {}
  void fill() { fill_quickly(model_owner::model, pool); }
};

}  // namespace

weight_format weights_on(device_kind device) {
  return device == device_kind::cuda ? weight_format{"bf16", 2} : weight_format{"f32", 4};
}

std::int64_t weight_bytes(model_config const& config, device_kind device) {
  return make_tensor_table(config).size * weights_on(device).bytes;
}

cache_codec choose_codec(std::optional<cache_codec> asked, device_kind device, cache_codec on_cpu) {
  require_built_for(device);
  auto const codec = asked.value_or(device == device_kind::cuda ? cache_codec::bf16 : on_cpu);
#if STRATA_LM_CUDA
  if (device == device_kind::cuda) cuda::require_served(codec);
#endif
  return codec;
}

std::unique_ptr<server<float>> cpu_place::make_server(strata::route_plan const& plan,
                                                      cache_options const& options,
                                                      step_room const&) {
  return lm::make_server(model_, pool_, plan, options);
}

std::int64_t cpu_place::server_bytes(strata::route_plan const& plan, cache_options const& options,
                                     step_room const&) const {
  return lm::server_bytes(plan, config(), options);
}

std::int64_t cpu_place::available_memory() const { return lm::available_memory(); }

std::int64_t cpu_place::used_memory(server<float> const& serving) const {
  return weight_bytes(config(), device()) + serving.allocated_bytes() + serving.working_bytes();
}

double cpu_place::read_rate() {
  if (!probe_) probe_.emplace();
  return probe_->rate(pool_);
}

double cpu_place::product_rate(std::int32_t rows) {
  return blas_product_rate(std::max(config().mlp, config().q_dim()), config().dim, rows, pool_);
}

std::string cpu_place::machine() const { return machine_text(); }

std::string cpu_place::kernels() const { return kernels_text(); }

std::string kernels_text() {
  return std::string("attention: cpu::attention, ") + strata::cpu::isa_name() +
         "; products: OpenBLAS, " + openblas_get_corename();
}

std::unique_ptr<serving_place> open_model(std::string const& file, place_options const& where) {
  require_built_for(where.device);
  auto weights = load_model(file).weights;
#if STRATA_LM_CUDA
  if (where.device == device_kind::cuda) return cuda::place_model(weights);
#endif
  return std::make_unique<owning_cpu_place>(std::move(weights), where.threads);
}

std::unique_ptr<serving_place> open_shape(model_config const& config, std::string const& name,
                                          place_options const& where) {
  require_built_for(where.device);
#if STRATA_LM_CUDA
  if (where.device == device_kind::cuda) return cuda::place_shape(config);
#endif
  require_fit(weight_bytes(config, where.device), available_memory(), "the weights of " + name,
              "this machine");
  auto place = std::make_unique<owning_cpu_place>(parameters<float>(config), where.threads);
  place->fill();
  return place;
}

}  // namespace lm
