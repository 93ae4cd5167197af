// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A storage, an index of its prefixes and what is computed for them: numbers that the owner, the plan
// and all tokens so far decide, so that K and V tell whose they are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include <strata/cache/paged_storage.hpp>
#include <strata/cache/prefix_index.hpp>
#include <strata/map/table_map.hpp>
#include <strata/plan.hpp>

namespace support::prefixes {

using storage_type = strata::paged_storage<strata::f32_codec>;
using index_type = strata::prefix_index<storage_type>;
using tokens_type = std::vector<std::int32_t>;

inline constexpr std::int32_t block_size = 4, window = 7, num_layers = 4;

inline strata::kv_classes classes(bool windows) {
  strata::layer_kind full, sliding;
  full.kv = sliding.kv = {.kv_heads = 1, .k_dim = 1, .v_dim = 1};
  if (windows) sliding.window = window;
  strata::layer_kind const layers[] = {full, sliding, full, sliding};
  return *strata::kv_classes::make(layers);
}

inline std::vector<strata::route_plan> plans(bool windows) {
  std::vector<strata::route_plan> all;
  for (auto const& sources :
       {tokens_type{0, 1, 2, 3}, {0, 0, 2, 2}, {0, 1, 0, 1}, {0, 0, 0, 0}, {0, 0, 2, 0}})
    all.push_back(*make_plan(*strata::table_map::make(sources), classes(windows)));
  return all;
}

inline bool stores_all(strata::route_plan const& plan, strata::route_plan const& fewer) {
  for (strata::layer_id l{0}; l.index < num_layers; ++l.index)
    if (fewer[l].k.stored && !plan[l].k.stored) return false;
  return true;
}

/// What a layer's K (or V) of the last of these tokens would be: a number that the owner, the plan
/// and all tokens so far decide.
inline float value_of(strata::prefix_owner const& owner, std::size_t plan,
                      tokens_type const& tokens, std::size_t count, bool is_k, strata::layer_id l) {
  std::uint64_t x = owner.model * 31 + owner.adapter * 37 + owner.tenant * 41 + plan * 43 +
                    static_cast<std::uint64_t>(l.index) * 47 + is_k;
  for (std::size_t i = 0; i < count; ++i)
    x = (x ^ static_cast<std::uint64_t>(tokens[i])) * 0xD1342543DE82EF95U + (x >> 29);
  return static_cast<float>(x >> 40);
}

/// A sequence as its engine knows it.
struct request {
  strata::prefix_owner owner;
  std::size_t plan = 0;            // whose K and V its tokens have
  std::size_t computed_under = 0;  // of those that it took over
  std::size_t taken_over = 0;
  tokens_type tokens;  // computed so far
};

class engine {
 public:
  std::vector<strata::route_plan> all_plans;
  storage_type storage;
  index_type index;

  engine(bool windows, std::int32_t blocks, std::int32_t max_entries)
      : all_plans(plans(windows)),
        storage(make(windows, blocks)),
        index(*index_type::make(storage, {max_entries, 4})) {}

  static storage_type make(bool windows, std::int32_t blocks) {
    strata::paged_options options;
    options.max_sequences = 5;
    options.max_tokens = 40;
    options.block_size = block_size;
    options.k_blocks = options.v_blocks = blocks;
    return *storage_type::make(classes(windows), options);
  }

  float* element(strata::sequence_id id, bool is_k, strata::layer_id l, std::int32_t token) {
    auto const blocks = is_k ? storage.k_blocks(l) : storage.v_blocks(l);
    auto const row = is_k ? storage.k_row(id, l) : storage.v_row(id, l);
    return reinterpret_cast<float*>(blocks.at(row, 0, token));
  }

  /// Computes the rest of a prompt; false where there is no room.
  bool compute(strata::sequence_id id, request& r, tokens_type const& prompt) {
    auto const first = static_cast<std::int32_t>(r.tokens.size());
    auto const count = static_cast<std::int32_t>(prompt.size()) - first;
    strata::growth const g{id, count};
    if (!storage.reserve({&g, 1}).ok()) return false;
    r.tokens = prompt;
    for (strata::layer_id l{0}; l.index < num_layers; ++l.index)
      for (bool const is_k : {true, false})
        if (all_plans[r.plan][l].k.stored)
          for (auto t = first; t < first + count; ++t)
            *element(id, is_k, l, t) = value(r, static_cast<std::size_t>(t), is_k, l);
    storage.commit();
    return true;
  }
  static float value(request const& r, std::size_t t, bool is_k, strata::layer_id l) {
    auto const plan = t < r.taken_over ? r.computed_under : r.plan;
    return value_of(r.owner, plan, r.tokens, t + 1, is_k, l);
  }

  /// Whether all tokens that a next query sees have the K and V that were computed for them.
  bool holds(strata::sequence_id id, request const& r) {
    auto const length = static_cast<std::int32_t>(r.tokens.size());
    for (strata::layer_id l{0}; l.index < num_layers; ++l.index) {
      auto const seen = storage.classes()[l].window;
      for (bool const is_k : {true, false})
        for (std::int32_t t = 0; all_plans[r.plan][l].k.stored && t < length; ++t)
          if (length - t < seen &&
              *element(id, is_k, l, t) != value(r, static_cast<std::size_t>(t), is_k, l))
            return false;
    }
    return true;
  }
};

inline tokens_type prompt_of(std::mt19937& random) {
  // Few different tokens, so that many prompts begin alike.
  tokens_type prompt(random() % 37 + 1);
  for (auto& token : prompt) token = static_cast<std::int32_t>(random() % 8 == 0);
  return prompt;
}

}  // namespace support::prefixes
