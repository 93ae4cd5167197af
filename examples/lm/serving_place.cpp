// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "serving_place.hpp"

#include <algorithm>
#include <cstddef>
#include <span>
#include <utility>

#include <strata/attention/cpu/lanes.hpp>

#include "blas_rate.hpp"
#include "fit.hpp"
#include "formats/open_model.hpp"
#include "gemm.hpp"
#include "narrow_product.hpp"
#include "narrow_weights.hpp"
#include "report.hpp"

#if STRATA_LM_CUDA
#include "cuda/device_place.hpp"
#endif

namespace lm {
namespace {

/// Weights of the right size and deviation, fast: a hash of the index instead of the normal numbers
/// of `initialise`, which take minutes for billions of them.
template <class Element>
void fill_quickly(std::span<Element> values, strata::thread_pool& pool) {
  constexpr std::size_t part = 1 << 20;
  for_tasks(pool, static_cast<std::int64_t>((values.size() + part - 1) / part),
            [&](std::int64_t task, std::int32_t) {
              auto const begin = static_cast<std::size_t>(task) * part;
              auto const end = std::min(begin + part, values.size());
              for (auto i = begin; i < end; ++i) {
                auto bits = static_cast<std::uint32_t>(i) * 0x9E3779B9U;
                bits = (bits ^ bits >> 15) * 0x85EBCA6BU;
                auto const x = (static_cast<float>(bits >> 8) * 0x1p-24F - 0.5F) * 0.069F;
                values[i] = strata::detail::narrow<Element>(x);
              }
            });
}
void fill_quickly(parameters<float>& model, strata::thread_pool& pool) {
  fill_quickly(model.values(), pool);
  for (auto const& entry : model.table().entries)
    if (entry.role == tensor_role::norm) std::ranges::fill(model.tensor(entry), 1.0F);
}
void fill_quickly(narrow_weights& model, strata::thread_pool& pool) {
  fill_quickly(model.values(), pool);
  auto const& entries = model.table().entries;
  for (std::size_t i = 0; i < entries.size(); ++i)
    if (narrow_weights::is_gain(entries[i])) std::ranges::fill(model.gain(i), 1.0F);
}

served_model<float> served(parameters<float> const& model) { return model; }
served_model<float> served(narrow_weights const& model) { return model.served(); }

/// A processor's model that is nobody else's.
template <class Weights>
struct model_owner {
  Weights model;
  strata::thread_pool pool;

  model_owner(Weights weights, std::int32_t threads) : model(std::move(weights)), pool(threads) {}
};
template <class Weights>
class owning_cpu_place final : private model_owner<Weights>, public cpu_place {
  using owner = model_owner<Weights>;

 public:
  owning_cpu_place(Weights weights, std::int32_t threads)
      : owner(std::move(weights), threads), cpu_place(served(owner::model), owner::pool) {}
  void fill() { fill_quickly(owner::model, owner::pool); }
};

template <class Weights>
std::unique_ptr<serving_place> open_random(model_config const& config, std::int32_t threads) {
  auto place = std::make_unique<owning_cpu_place<Weights>>(Weights(config), threads);
  place->fill();
  return place;
}

}  // namespace

weight_type choose_weights(std::optional<weight_type> asked, device_kind device,
                           std::string const& file) {
  if (device == device_kind::cuda) {
    if (asked == weight_type::f32)
      throw failure("--weights f32: --device cuda keeps weights in bf16", exit_code::wrong_use);
    return weight_type::bf16;
  }
  if (asked) return *asked;
  return file.empty() ? weight_type::f32 : stored_weights(file);
}

std::int64_t weight_bytes(model_config const& config, device_kind device, weight_type type) {
  if (device == device_kind::cpu && type == weight_type::bf16) return narrow_weights::bytes(config);
  return make_tensor_table(config).size * weight_size(type);
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
  return model_.bytes + serving.allocated_bytes() + serving.working_bytes();
}

double cpu_place::read_rate() {
  if (!probe_) probe_.emplace(model_.memory);
  return probe_->rate(pool_);
}

double cpu_place::product_rate(std::int32_t rows) {
  return blas_product_rate(std::max(config().mlp, config().q_dim()), config().dim, rows, pool_);
}

std::string cpu_place::machine() const { return machine_text(); }

std::string cpu_place::kernels() const {
  return kernels_text() +
         (model_.narrow ? text(" from %lld rows on", static_cast<long long>(few_narrow_rows + 1))
                        : std::string());
}

std::string kernels_text() {
  return std::string("attention: cpu::attention, ") + strata::cpu::isa_name() +
         "; products: OpenBLAS, " + openblas_get_corename();
}

std::unique_ptr<serving_place> open_model(std::string const& file, place_options const& where) {
  require_built_for(where.device);
  auto const type = choose_weights(where.weights, where.device, file);
#if STRATA_LM_CUDA
  if (where.device == device_kind::cuda)
    return cuda::place_model(load_model(file, where.adapters).weights);
#endif
  if (type == weight_type::bf16)
    return std::make_unique<owning_cpu_place<narrow_weights>>(
        load_narrow_model(file, where.adapters), where.threads);
  return std::make_unique<owning_cpu_place<parameters<float>>>(
      load_model(file, where.adapters).weights, where.threads);
}

std::unique_ptr<serving_place> open_shape(model_config const& config, std::string const& name,
                                          place_options const& where) {
  require_built_for(where.device);
  auto const type = choose_weights(where.weights, where.device, {});
#if STRATA_LM_CUDA
  if (where.device == device_kind::cuda) return cuda::place_shape(config);
#endif
  require_fit(weight_bytes(config, where.device, type), available_memory(),
              "the weights of " + name, "this machine");
  if (type == weight_type::bf16) return open_random<narrow_weights>(config, where.threads);
  return open_random<parameters<float>>(config, where.threads);
}

}  // namespace lm
