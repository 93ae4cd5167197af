// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A step of a stack whose K and V lie on a device: the host keeps the books, kernels read a copy.
// All of it on one stream.
//
//     stack server(*device_storage<paged_storage<bf16_codec>>::make(stream, model, options),
//                  reference_attention{});  // a kernel is asked for and not used
//     // changed: tokens of a batch's sequences that forks and their like brought; without any, 0
//     auto const room =
//         step_mirror::bytes_for(layers, sequences, rows, options.block_size, changed);
//     auto mirror = *step_mirror::make({stream}, server.storage(), room);
//     auto const attention = *make_attention(stream, {.rows = rows, .rows_per_seq = most});
//     serial_executor here;
//
//     auto step = server.begin(batch);
//     if (auto const s = mirror.send(step); !s.ok()) return s;
//     // x: [rows of the batch, width]
//     for (layer_id l{0}; layers > l.index; ++l.index) {
//       // x: [input rows, width]; k, v: [input rows, kv_heads, dim], projected from its norm, or
//       // null where step.k_writers(l), step.v_writers(l) are empty
//       auto const k_side = mirror.k_side(step, l, k), v_side = mirror.v_side(step, l, v);
//       if (auto const s = append<bf16_codec, bf16_codec>(stream, k_side, v_side, rope); !s.ok())
//         return s;
//       // Only live rows ask and leave the layer. x: [live rows, width] from here on; its norm, if
//       // q is projected from what k was, likewise.
//       if (auto const s = mirror.keep_live(step, l, x, width); !s.ok()) return s;
//       auto const live = static_cast<std::int32_t>(step.live_rows(l).size());
//       // q: [live rows, q_heads, k_dim]; out: [live rows, q_heads, v_dim]
//       layer_queries<bfloat16> const queries{
//           .q = q, .out = out, .q_heads = q_heads, .num_rows = live};
//       auto const asked = mirror.queries(step, l, queries);
//       auto const keys = mirror.view(step, l);
//       if (!asked.ok()) return asked.state();
//       // workspace: attention.workspace_bytes(*asked, *keys, 1), on the device
//       if (auto const s = attend(here, attention, *asked, *keys, workspace); !s.ok()) return s;
//       // x: + out projected, + the feed-forward part, of the live rows
//     }
//     // x: [live rows of the last layer, width], then [rows that want logits, width]
//     if (auto const s = mirror.keep_logits(step, {layers - 1}, x, width); !s.ok()) return s;
//     return step.commit();
//
// A graph that was captured of such a loop serves a later batch, once `send` has sent it, where
// that has as many sequences and rows, and at every layer as many live rows: their number is in the
// launches. Decode has, whatever the plans: every sequence brings one token and wants logits. Its
// k_side and v_side then say `always`, for plans that store where those captured do not.
#pragma once

#include <cstddef>
#include <cstdint>

#include <cuda_runtime_api.h>

#include <strata/config.hpp>
#include <strata/cuda/detail/step_mirror_on.hpp>
#include <strata/cuda/memory.cuh>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

namespace cuda {

namespace detail {

struct stream_device {
  ::cudaStream_t stream = nullptr;

  struct buffer : device_memory {
    static result<buffer> make(stream_device const& device, std::int64_t bytes) noexcept {
      auto made = device_memory::make(device.stream, bytes);
      if (!made.ok()) return made.state();
      buffer owner;
      static_cast<device_memory&>(owner) = std::move(*made);
      return result<buffer>(std::move(owner));
    }
  };
  struct staging : staging_memory {
    static result<staging> make(stream_device const&, std::int64_t bytes) noexcept {
      auto made = staging_memory::make(bytes);
      if (!made.ok()) return made.state();
      staging owner;
      static_cast<staging_memory&>(owner) = std::move(*made);
      return result<staging>(std::move(owner));
    }
    status mark(stream_device const& device) const noexcept {
      return staging_memory::mark(device.stream);
    }
  };

  status copy(std::byte* to, void const* from, std::size_t bytes) const noexcept {
    if (bytes == 0) return {};
    return as_status(::cudaMemcpyAsync(to, from, bytes, ::cudaMemcpyHostToDevice, stream));
  }
  stream_launcher launcher() const noexcept { return {stream}; }
};

}  // namespace detail

using step_mirror = detail::step_mirror_on<detail::stream_device>;

}  // namespace cuda

STRATA_NAMESPACE_END
