// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// strata: stochastic KV routing. This header brings everything but three that would double its
// compile time: thread_pool.hpp, picture.hpp and attention/cpu/blocked.hpp; include them where
// needed.
#pragma once

#include <strata/attention/kernel.hpp>
#include <strata/attention/online_softmax.hpp>
#include <strata/attention/query.hpp>
#include <strata/attention/reference.hpp>
#include <strata/cache/borrowed_storage.hpp>
#include <strata/cache/codec.hpp>
#include <strata/cache/contiguous_storage.hpp>
#include <strata/cache/element.hpp>
#include <strata/cache/footprint.hpp>
#include <strata/cache/paged_storage.hpp>
#include <strata/cache/sequence_book.hpp>
#include <strata/cache/storage.hpp>
#include <strata/cache/view.hpp>
#include <strata/cache/writer.hpp>
#include <strata/config.hpp>
#include <strata/errc.hpp>
#include <strata/executor.hpp>
#include <strata/fwd.hpp>
#include <strata/geometry.hpp>
#include <strata/ids.hpp>
#include <strata/map/grouped_map.hpp>
#include <strata/map/identity_map.hpp>
#include <strata/map/layer_map.hpp>
#include <strata/map/layer_mask.hpp>
#include <strata/map/leader_set.hpp>
#include <strata/map/spread_map.hpp>
#include <strata/map/strategy.hpp>
#include <strata/map/table_map.hpp>
#include <strata/map/tail_map.hpp>
#include <strata/plan.hpp>
#include <strata/policy.hpp>
#include <strata/random.hpp>
#include <strata/router.hpp>
#include <strata/routing/any_sampler.hpp>
#include <strata/routing/coin_to_map.hpp>
#include <strata/routing/fixed_route.hpp>
#include <strata/routing/probability.hpp>
#include <strata/routing/random_leader_set.hpp>
#include <strata/routing/random_previous.hpp>
#include <strata/routing/random_window.hpp>
#include <strata/routing/recorded_route.hpp>
#include <strata/routing/sampler.hpp>
#include <strata/routing/self_only.hpp>
#include <strata/routing/strategy_mixture.hpp>
#include <strata/stack.hpp>
#include <strata/status.hpp>
#include <strata/step.hpp>
#include <strata/version.hpp>
