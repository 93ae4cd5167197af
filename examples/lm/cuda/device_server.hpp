// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// stack_server.hpp's twin on a device: the host keeps the books of the same stack, a mirror brings
// them over, and what is enqueued reads them there. Weights and activations are bf16, sums float.
//
// Rows that nobody needs above their sequence's tail are dropped. A layer's K and V are projected
// for all of its input rows where one sequence stores them (append passes the others by): a batch of
// mixed depths is one product of its rows, not one for each run of them.
//
// A step in which every sequence has one token and wants its logits is recorded when it comes for
// the second time, and replayed from then on: for each number of sequences and set of layers that
// store, whatever the plans and lengths.
//
// Tests run all of it on the host, too (tests/lm_cuda/server_test.cpp).
#pragma once

#include <algorithm>
#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <map>
#include <new>
#include <span>
#include <utility>
#include <vector>

#include <strata/attention/reference.hpp>
#include <strata/stack.hpp>

#include "cuda/device_angles.hpp"
#include "cuda/device_parameters.hpp"
#include "cuda/heads.hpp"
#include "cuda/machine_failure.hpp"
#include "cuda/norm.hpp"
#include "cuda/serving_machine.hpp"
#include "cuda/serving_memory.hpp"
#include "server.hpp"

namespace lm::cuda {

/// What a recorded step depends on: how many sequences, and which layers store their K and V.
struct recorded_shape {
  using layer_set = std::array<std::uint64_t, strata::max_layers / 64>;
  std::int32_t sequences = 0;
  layer_set k = {}, v = {};

  static void add(layer_set& set, strata::layer_id l) noexcept {
    set[static_cast<std::size_t>(l.index / 64)] |= std::uint64_t{1} << l.index % 64;
  }
  friend auto operator<=>(recorded_shape const&, recorded_shape const&) = default;
};

/// A server on a machine. The machine and the weights are the caller's and outlive it; one thread
/// at a time uses a machine. All memory is taken when it is made: a step of more rows, or of more
/// that want logits, is refused with how many there are and how many there may be. `run` returns
/// when the device is done.
template <class Machine, strata::cache_storage Storage>
  requires serving_machine<Machine, Storage>
class device_server final : public server<float> {
  // The stack asks for a kernel; attention is the machine's.
  using stack_type = strata::stack<Storage, strata::reference_attention>;
  using step_type = strata::step<Storage, strata::reference_attention>;

 public:
  /// Throws what the machine throws, and where the storage's tables find no room.
  device_server(Machine& m, device_weights<Machine> const& weights, model_config const& config,
                Storage storage, step_room const& room)
      : machine_(m),
        config_(config),
        weights_(weights.weights()),
        room_(checked(room)),
        logit_slab_(slab_of(room, storage.max_sequences())),
        stack_(std::move(storage)),
        arena_(
            m.template allocate<std::byte>(serving_memory::bytes(config, room.rows, logit_slab_))),
        memory_(config, room.rows, logit_slab_, arena_.data()),
        workspace_bytes_(
            workspace_bytes(m, config, max_sequences(), stack_.storage().max_tokens(), room)),
        workspace_(m.template allocate<std::byte>(workspace_bytes_)),
        angles_(m, config, max_tokens()),
        numbers_(m.template pinned<std::int32_t>(serving_memory::numbers_for(config, room.rows))),
        logits_(m.template pinned<float>(std::int64_t{room.logit_rows} * config.vocab)),
        mirror_(make_mirror()),
        kept_(static_cast<std::size_t>(config.layers) + 1) {
    rule_.window = config.kind().window;
    entries_.reserve(static_cast<std::size_t>(max_sequences()));
    working_bytes_ = bytes(m, config, max_sequences(), max_tokens(), room);
  }

  /// Bytes of the device that a server takes, but for those of its storage and its products.
  static std::int64_t bytes(Machine& m, model_config const& config, std::int32_t sequences,
                            std::int32_t max_tokens, step_room const& room) {
    auto const positions = std::int64_t{max_tokens} * (config.head_dim + sequences);
    return serving_memory::bytes(config, room.rows, slab_of(room, sequences)) +
           workspace_bytes(m, config, sequences, max_tokens, room) +
           mirror_bytes(config, sequences, room) + positions * std::int64_t{sizeof(float)};
  }

  using server<float>::run;

  model_config const& config() const noexcept override { return config_; }
  strata::result<strata::sequence_id> open(strata::route_plan const& plan) noexcept override {
    return stack_.open(plan);
  }
  strata::status close(strata::sequence_id id) noexcept override { return stack_.close(id); }
  std::span<float const> logits() const noexcept override {
    return {logits_.data(), static_cast<std::size_t>(logit_rows_ * config_.vocab)};
  }
  std::int32_t max_tokens() const noexcept override { return stack_.storage().max_tokens(); }
  std::int32_t max_sequences() const noexcept override { return stack_.storage().max_sequences(); }
  std::int64_t allocated_bytes() const noexcept override {
    return stack_.storage().allocated_bytes();
  }
  /// Of the device.
  std::int64_t working_bytes() const noexcept override { return working_bytes_; }
  std::int32_t length(strata::sequence_id id) const noexcept override {
    return stack_.storage().length(id);
  }

  strata::status run(std::span<feed const> batch) noexcept override;
  strata::status fill_with_noise(strata::sequence_id id, std::int32_t count) noexcept override;

  /// Whether steps are recorded (they are, until told otherwise), and how many were replayed.
  void use_recordings(bool use) noexcept { records_ = use; }
  std::int64_t replays() const noexcept { return replays_; }
  /// Which rows of the blocks a sequence keeps its K and V in.
  Storage const& storage() const noexcept { return stack_.storage(); }

 private:
  template <class T>
  using buffer = decltype(std::declval<Machine&>().template allocate<T>(0));
  template <class T>
  using pinned = decltype(std::declval<Machine&>().template pinned<T>(0));
  using k_codec = typename Storage::k_codec;
  using v_codec = typename Storage::v_codec;

  /// Heads as a product left them.
  struct projected {
    bfloat16 const* heads = nullptr;  ///< [rows, heads, head_dim]
    std::int64_t stride = 0;          ///< elements from row to row
  };
  struct projections {
    projected q, k, v;  ///< null where that was not projected
  };
  /// Some of a layer's rows, as indices among `numbers`.
  struct kept_rows {
    std::int64_t begin = -1;  ///< -1: all stay
    std::int64_t count = 0;
  };
  /// A step that came before, and from its second time on a recording of it.
  struct recording {
    typename Machine::graph graph;
    bool recorded = false;
  };
  static constexpr std::size_t most_recordings = 64;

  static step_room const& checked(step_room const& room) {
    auto const least = std::min(room.rows, room.logit_rows);
    if (least < 1)
      lm::require({strata::errc::value_too_small, strata::no_layer, least, 1},
                  "the rows of a step");
    return room;
  }
  /// Rows whose logits lie on the device at one time: all of a decode step.
  static std::int64_t slab_of(step_room const& room, std::int32_t sequences) {
    constexpr std::int32_t usual = 256;
    return std::min(room.logit_rows, std::max(usual, sequences));
  }
  static std::int64_t mirror_bytes(model_config const& c, std::int32_t sequences,
                                   step_room const& room) {
    return Machine::mirror::bytes_for(c.layers, sequences, room.rows);
  }
  static std::int64_t workspace_bytes(Machine& m, model_config const& c, std::int32_t sequences,
                                      std::int32_t max_tokens, step_room const& room);

  layer_weights<bfloat16 const> const& layer(strata::layer_id l) const noexcept {
    return weights_.layer[static_cast<std::size_t>(l.index)];
  }
  static std::int64_t size(std::span<std::int32_t const> rows) noexcept {
    return static_cast<std::int64_t>(rows.size());
  }

  typename Machine::mirror make_mirror() {
    auto const bytes = mirror_bytes(config_, max_sequences(), room_);
    auto made = machine_.make_mirror(stack_.storage(), bytes);
    lm::require(made.state(), "a mirror of the cache's tables");
    return std::move(*made);
  }
  strata::rotary<float> turns() const noexcept {
    return strata::rotary<float>::of(angles_.cos(), angles_.sin(), max_tokens(), config_.head_dim);
  }

  strata::status take_in(std::span<feed const> batch);
  strata::status send(step_type& step);
  void keep(std::size_t which, std::span<std::int32_t const> from,
            std::span<std::int32_t const> kept) noexcept;
  strata::status advance(step_type& step);
  recorded_shape shape_of(step_type& step) noexcept;
  strata::status replay(step_type& step, recording& known);
  void settle();
  template <class Body>
  strata::status reporting(Body const& body) noexcept;
  void tell(failure const& f) noexcept;

  strata::status enqueue(step_type& step);
  strata::status run_layer(step_type& step, strata::layer_id l);
  void norm(bfloat16 const* x, bfloat16 const* gain, bfloat16* y, std::int64_t rows);
  turn_heads heads_of(projected const& from, bfloat16 const* gain, bfloat16* to, std::int64_t rows,
                      std::int32_t heads) const noexcept;
  projected project(bfloat16 const* w, bfloat16* to, std::int64_t rows, std::int64_t width);
  projections project_input(step_type& step, strata::layer_id l);
  strata::status append(step_type& step, strata::layer_id l, projections const& of);
  void gather(kept_rows const& kept, bfloat16*& rows, bfloat16* one, bfloat16* other);
  strata::status attend(step_type& step, strata::layer_id l, projected const& q);
  void leave(strata::layer_id l, std::int64_t rows);
  void enqueue_logits(std::int64_t rows);
  strata::status append_noise(strata::sequence_id id, std::int32_t count);

  Machine& machine_;
  model_config config_;
  model_weights<bfloat16 const> weights_;
  step_room room_;
  std::int64_t logit_slab_ = 0;
  stack_type stack_;
  buffer<std::byte> arena_;
  serving_memory memory_;
  std::int64_t workspace_bytes_ = 0, working_bytes_ = 0;
  buffer<std::byte> workspace_;
  device_angles<Machine> angles_;
  pinned<std::int32_t> numbers_;
  pinned<float> logits_;  // [rows that may want logits, vocab]
  typename Machine::mirror mirror_;
  strata::score_rule rule_;
  std::map<recorded_shape, recording> recordings_;

  // Of the step at hand.
  bfloat16 *x_ = nullptr, *h_ = nullptr;  // where its rows lie now, [rows, dim]
  std::vector<strata::batch_entry> entries_;
  std::vector<kept_rows> kept_;  // [layers + 1], the last for the logits
  std::int64_t num_numbers_ = 0;
  bool one_each_ = false;  // every sequence has one token and wants its logits
  bool under_way_ = false;

  std::int64_t logit_rows_ = 0;
  bool records_ = true;
  std::int64_t replays_ = 0;
  std::uint64_t noises_ = 0;
  bool told_ = false;  ///< of a failure
};

}  // namespace lm::cuda

#include "cuda/device_server_layers.hpp"
#include "cuda/device_server_step.hpp"
