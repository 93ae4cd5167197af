// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What serving asks of a machine besides what a model does (machine.hpp): a cache there, and work
// that is recorded once and enqueued as one.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>

#include <strata/attention/query.hpp>
#include <strata/cache/rope.hpp>
#include <strata/cache/storage.hpp>
#include <strata/cache/view.hpp>
#include <strata/cuda/detail/append_call.hpp>
#include <strata/cuda/detail/forward_call.hpp>
#include <strata/status.hpp>

#include "cuda/machine.hpp"

namespace lm::cuda {

using served_queries = strata::query_rows<bfloat16>;
using append_side = strata::cuda::detail::append_side<bfloat16>;
template <strata::cache_storage Storage>
using served_view = strata::kv_view<typename Storage::k_codec, typename Storage::v_codec>;

/// What a recording does.
struct nothing {
  void operator()() const {}
};

/// - `pinned<T>(count)`: an owner of memory of the host, with `data()`, that copies go from and to
/// - `mirror`, and `make_mirror(storage, bytes)`: strata's copy of a step (cuda/step_mirror.cuh)
/// - `append<KCodec, VCodec>(k, v, rope)` as strata/cuda/append.cuh has it
/// - `attention_bytes(q, view, bounds)` of workspace, and `attend(q, view, bounds, workspace)`: a
///   whole call within these bounds
/// - `graph`: `record(graph, body)` keeps what body() launches, multiplies, appends, attends and
///   downloads, and does none of it; `replay(graph)` does it. Pointers and sizes are those of the
///   recording, and what lies behind the pointers is that of the replay. Every product of the body
///   has been asked for before.
template <class M, class Storage>
concept serving_machine =
    machine<M> &&
    requires(M& m, Storage const& storage, std::int64_t bytes, append_side const& rows,
             strata::rotary<float> const& rope, served_queries const& q,
             served_view<Storage> const& view, strata::cuda::launch_bounds const& bounds,
             std::span<std::byte> workspace, typename M::graph& graph, nothing const& body) {
      { m.template pinned<float>(bytes).data() } -> std::same_as<float*>;
      { m.make_mirror(storage, bytes) } -> std::same_as<strata::result<typename M::mirror>>;
      {
        m.template append<typename Storage::k_codec, typename Storage::v_codec>(rows, rows, rope)
      } -> std::same_as<strata::status>;
      { m.attention_bytes(q, view, bounds) } -> std::same_as<std::int64_t>;
      { m.attend(q, view, bounds, workspace) } -> std::same_as<strata::status>;
      m.record(graph, body);
      m.replay(graph);
    };

}  // namespace lm::cuda
