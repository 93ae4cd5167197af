// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// strata: stochastic KV routing. This header brings everything but what would double its compile
// time: thread_pool.hpp, picture.hpp, and the CPU's kernels, attention/cpu/attention.hpp and
// attention/cpu/blocked.hpp; and cache/snapshot_file.hpp, which needs POSIX. Include those where they
// are needed.
//
//     training   sampler -> route_plan -> router (or a layer loop of one's own, and a kernel)
//     serving    map     -> route_plan -> stack of storage and kernel -> step
//
// Words. Layers are counted from 0. A layer reads the K/V of its *source*; a *leader* is its own
// source and keeps a cache, its *followers* read that. A *slot* numbers the stored tensors of a
// plan densely. The *tail* is what lies above the last layer that stores anything. Layers of one
// *KV class* (heads, dimensions, RoPE, capture stage) may read each other. *Retention* is bytes per
// token over those of a model whose layers all keep their own. A *row* is a token of a batch, a
// *span* the elements of a codec that share a scale, a *share* one worker's part of a call.
//
// Laws, which comments and tests call by number:
//    1. A map's source(l) is at or before l, may be read by l, and is its own source.
//    2. A sampler is pure: candidates and a key in, one of the candidates out, the same everywhere.
//    3. Only layers of one KV class read each other; in serving, a source's window covers its
//       reader's; K and V may have different sources.
//    4. Only rows whose plan stores a layer can be written there; a reader sees const bytes.
//    5. Full pass, chunked prefill and token by token agree: bit for bit on the reference attention
//       and wherever a kernel says so, else within its stated bound.
//    6. make_plan(map) equals make_plan(fixed_route(map)).
//    7. dK and dV of a source are the sum over its readers in descending layer order; nobody's are
//       exact zeros, and their projections may be skipped.
//    8. Masks compare positions, never indices; lengths may differ per KV head.
//    9. A call over a part of the keys returns its unmerged state; any split, merged, equals the
//       whole within the kernel's bound.
//   10. A step reserves everything or nothing; before commit nothing is visible; a refused call has
//       changed nothing.
//   11. Enough budget is identity.
//   12. Reading a cache that was filled under more leaders is approximate, and never a default.
#pragma once

#include <strata/attention/kernel.hpp>
#include <strata/attention/online_softmax.hpp>
#include <strata/attention/query.hpp>
#include <strata/attention/reference.hpp>
#include <strata/cache/borrowed_storage.hpp>
#include <strata/cache/codec.hpp>
#include <strata/cache/codec_pairs.hpp>
#include <strata/cache/contiguous_storage.hpp>
#include <strata/cache/element.hpp>
#include <strata/cache/footprint.hpp>
#include <strata/cache/fp8_codec.hpp>
#include <strata/cache/host_tier.hpp>
#include <strata/cache/int4_codec.hpp>
#include <strata/cache/int8_codec.hpp>
#include <strata/cache/paged_storage.hpp>
#include <strata/cache/prefix.hpp>
#include <strata/cache/prefix_index.hpp>
#include <strata/cache/pressure.hpp>
#include <strata/cache/rope.hpp>
#include <strata/cache/rotated_codec.hpp>
#include <strata/cache/sequence_book.hpp>
#include <strata/cache/snapshot.hpp>
#include <strata/cache/storage.hpp>
#include <strata/cache/view.hpp>
#include <strata/cache/writer.hpp>
#include <strata/checksum.hpp>
#include <strata/config.hpp>
#include <strata/errc.hpp>
#include <strata/executor.hpp>
#include <strata/fwd.hpp>
#include <strata/geometry.hpp>
#include <strata/ids.hpp>
#include <strata/map/engine_forms.hpp>
#include <strata/map/grouped_map.hpp>
#include <strata/map/identity_map.hpp>
#include <strata/map/layer_map.hpp>
#include <strata/map/layer_mask.hpp>
#include <strata/map/leader_set.hpp>
#include <strata/map/planner.hpp>
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
#include <strata/tensor.hpp>
#include <strata/version.hpp>
