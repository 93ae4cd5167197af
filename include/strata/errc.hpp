// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Error codes and their sentences.
#pragma once

#include <cstdint>
#include <string_view>

#include <strata/config.hpp>

STRATA_NAMESPACE_BEGIN

/// What went wrong.
enum class errc : std::int32_t {
  ok = 0,
  // Layers and maps (laws 1 and 3).
  no_layers,
  too_many_layers,
  layer_out_of_range,
  source_out_of_range,
  source_above_reader,
  source_not_a_leader,
  no_leader_before,
  class_mismatch,
  window_too_small,
  source_without_kv,
  stage_mismatch,
  illegal_draw,
  layer_count_mismatch,
  too_many_layer_kinds,
  bad_layer_kind,
  bad_rope,
  bad_plan,
  capture_unsupported,
  // Numbers from outside.
  value_out_of_range,
  value_too_small,
  value_too_large,
  not_a_probability,
  probability_not_finite,
  size_overflow,
  null_pointer,  // value is a `tensor`
  // Strategy and routing strings; value is the offset of the character.
  parse_unknown_strategy,
  parse_unknown_routing,
  parse_expected_number,
  parse_number_too_small,
  parse_number_too_large,
  parse_list_too_long,
  parse_expected_separator,
  parse_trailing_text,
  parse_not_ascending,
  parse_groups_do_not_fill,
  parse_group_too_large,
  parse_leader_without_kv,
  parse_no_leader_before,
  parse_first_layer_must_lead,
  // Caches (laws 4 and 10).
  bad_max_sequences,
  bad_max_tokens,
  bad_block_size,
  bad_num_blocks,
  unknown_sequence,
  duplicate_sequence,
  too_many_sequences,
  sequence_full,
  out_of_k_blocks,
  out_of_v_blocks,
  out_of_memory,
  bad_new_tokens,
  bad_truncation,
  bad_rollback,
  window_let_go,
  not_a_subset,
  cache_approximate,
  positions_gapped,
  too_few_tokens,
  layer_stores_nothing,
  stale_match,
  other_storage,
  too_many_plans,
  too_many_rows,
  position_not_ahead,
  position_too_large,
  step_in_progress,
  no_step,
  plan_mismatch,
  separate_allocations,
  layer_without_memory,
  head_scales_mismatch,
  bad_head_scale,  // value is a `tensor`
  bad_row_of_blocks,
  row_too_short,
  rows_not_stored,
  // Snapshots; value is an offset into the file.
  snapshot_truncated,
  snapshot_damaged,
  snapshot_other_version,
  snapshot_foreign,
  // Files; value is errno where the system refused.
  cannot_open_file,
  cannot_read_file,
  cannot_write_file,
  file_not_durable,
  no_regular_file,
  file_changed,
  // Tiers of memory under a cache.
  out_of_tier_bytes,
  not_in_tier,
  tier_foreign,
  // RoPE tables.
  rope_too_short,
  rope_stride_too_small,
  rope_dims_mismatch,
  rope_pairs_mismatch,
  rope_not_wanted,
  rope_head_too_large,
  // Attention calls.
  bad_share,
  bad_view_rows,
  bad_view_heads,
  length_beyond_blocks,
  num_seqs_mismatch,
  num_rows_mismatch,
  too_few_tensors,
  offsets_not_from_zero,
  offsets_descend,
  bad_key_range,
  bad_window,
  bad_scale,
  bad_softcap,
  heads_not_divisible,
  positions_missing,
  memory_too_small,
  workspace_too_small,
  memory_misaligned,
  memory_overlaps,
  // Many rows at once.
  row_width_mismatch,
  rows_overlap,
  list_not_ascending,
  head_too_large,
  bounds_missing,
  rows_beyond_bounds,
  mirror_too_small,
  device_failure,  // value is the runtime's own code
  // Maps as engines write them.
  form_cannot_express,
  pattern_descends,
  layer_in_two_groups,
  several_sources,
  // Choices of leaders.
  bad_weight,
  budget_too_small,
  unsupported,
};

namespace detail {

/// The sentence of a code; {l}, {v} and {b} stand for layer, value and bound, {f} for a value that
/// counts millionths, {t} for one that is a `tensor`.
constexpr std::string_view sentence(errc code) noexcept {
  switch (code) {
    case errc::ok:
      return "ok";
    case errc::no_layers:
      return "the model has {v} layers; at least {b} is needed";
    case errc::too_many_layers:
      return "the model has {v} layers; strata plans at most {b}";
    case errc::layer_out_of_range:
      return "layer {l} does not exist; the model has {b} layers";
    case errc::source_out_of_range:
      return "layer {l} reads layer {v}, which does not exist; the model has {b} layers";
    case errc::source_above_reader:
      return "layer {l} reads layer {v}, which comes later; a source is at most {b}";
    case errc::source_not_a_leader:
      return "layer {l} reads layer {v}, which keeps no cache: it reads layer {b} itself";
    case errc::no_leader_before:
      return "layer {l} has no leader of its KV class at or before it; the first layer of each "
             "class must be one";
    case errc::class_mismatch:
      return "layer {l} cannot read layer {v}: their K/V differ in heads, dimensions, RoPE or "
             "capture stage";
    case errc::window_too_small:
      return "layer {l} cannot read layer {v}: the source keeps a window of {b} tokens, too few "
             "for the reader";
    case errc::source_without_kv:
      return "layer {l} cannot read layer {v}, which has no K/V";
    case errc::stage_mismatch:
      return "layer {l} cannot read layer {v}: it is on another pipeline stage";
    case errc::illegal_draw:
      return "the sampler sent layer {l} to layer {v}, which is not among its {b} candidates";
    case errc::layer_count_mismatch:
      return "the number of layers is {v}, but {b} were expected";
    case errc::too_many_layer_kinds:
      return "layer {l} is of kind number {v}; a model has at most {b} kinds of layer";
    case errc::bad_layer_kind:
      return "layer {l}: heads, dimensions and window are at least 1, heads and dimensions at "
             "most {b}; got {v}";
    case errc::bad_rope:
      return "layer {l}: RoPE's theta and scaling must be finite and not negative";
    case errc::bad_plan:
      return "layer {l}: the plan's row is not what make_plan would write (it reads layer {v})";
    case errc::capture_unsupported:
      return "layer {l}: serving reads K as it was captured; keys captured before RoPE cannot be "
             "read";
    case errc::value_out_of_range:
      return "the value {v} is out of range; the bound is {b}";
    case errc::value_too_small:
      return "the value {v} is too small; at least {b} is needed";
    case errc::value_too_large:
      return "the value {v} is too large; at most {b} is allowed";
    case errc::not_a_probability:
      return "a probability such as self_probability lies between 0 and 1; got {f}";
    case errc::probability_not_finite:
      return "a probability such as self_probability is not a number, or far beyond 0 to 1";
    case errc::size_overflow:
      return "a size overflows 64 bits: {v} times {b}";
    case errc::null_pointer:
      return "layer {l}: {t} is null";
    case errc::parse_unknown_strategy:
      return "unknown strategy at character {v}; there are full, every:K, spread:N, "
             "groups:N,N,..., leaders:0,L,... and tail:N";
    case errc::parse_unknown_routing:
      return "unknown routing at character {v}; there are self, rcla:P, cla:K, rdcla:K:P, "
             "sets:R,R,... and mix:S/S/...";
    case errc::parse_expected_number:
      return "expected a number at character {v}";
    case errc::parse_number_too_small:
      return "the number at character {v} is too small; at least {b} is needed";
    case errc::parse_number_too_large:
      return "the number at character {v} is too large; at most {b} is allowed";
    case errc::parse_list_too_long:
      return "the list goes on at character {v}; it holds at most {b}";
    case errc::parse_expected_separator:
      return "expected ':' at character {v}, and a value behind it";
    case errc::parse_trailing_text:
      return "unexpected text from character {v} on";
    case errc::parse_not_ascending:
      return "the leader at character {v} does not come after the one before it, {b}";
    case errc::parse_groups_do_not_fill:
      return "the groups from character {v} on do not add up to the {b} layers of the model";
    case errc::parse_group_too_large:
      return "the group at character {v} reaches beyond the {b} layers of the model";
    case errc::parse_leader_without_kv:
      return "the leader at character {v} has no K/V to share: layer {b}";
    case errc::parse_no_leader_before:
      return "at character {v}: layer {l} is left without a leader of its KV class at or before it";
    case errc::parse_first_layer_must_lead:
      return "at character {v}: the first leader must be layer {b}, or the layers before it have "
             "nothing to read";
    case errc::bad_max_sequences:
      return "max_sequences is {v}; at least {b} is needed";
    case errc::bad_max_tokens:
      return "max_tokens is {v}; at least {b} is needed";
    case errc::bad_block_size:
      return "block_size is {v} tokens; at least {b} is needed";
    case errc::bad_num_blocks:
      return "the storage has {v} blocks or tensors for K or V; at least {b} is needed";
    case errc::unknown_sequence:
      return "sequence {v} is not open; {b} sequences are";
    case errc::duplicate_sequence:
      return "sequence {v} appears twice in one batch";
    case errc::too_many_sequences:
      return "all {b} sequences are in use";
    case errc::sequence_full:
      return "the sequence would hold {v} tokens; the storage was made for {b}";
    case errc::out_of_k_blocks:
      return "{v} blocks for K are missing; {b} are free";
    case errc::out_of_v_blocks:
      return "{v} blocks for V are missing; {b} are free";
    case errc::out_of_memory:
      return "{v} bytes could not be allocated";
    case errc::bad_new_tokens:
      return "a sequence cannot grow by {v} tokens; at least {b} is needed";
    case errc::bad_truncation:
      return "the sequence cannot be cut down to {v} tokens; it has {b}";
    case errc::bad_rollback:
      return "max_rollback is {v} tokens; at least {b} is needed";
    case errc::window_let_go:
      return "layer {l}: token {v} would come into its window again, but those before {b} were let "
             "go; a greater max_rollback keeps them";
    case errc::not_a_subset:
      return "layer {l}: the new plan reads K/V of its own there, which the sequence does not have: "
             "a cache shrinks to layers that it keeps already";
    case errc::cache_approximate:
      return "the K/V of sequence {v} are approximate: it shrank, or began with what another plan "
             "had computed";
    case errc::positions_gapped:
      return "the sequence's {b} tokens end at position {v}: there are gaps between them";
    case errc::too_few_tokens:
      return "{v} tokens were given; the sequence has {b}";
    case errc::stale_match:
      return "since this prefix was found the index has learnt or forgotten something, or it was found "
             "for another plan: find it again";
    case errc::other_storage:
      return "the index is of another storage";
    case errc::too_many_plans:
      return "the index knows {b} plans already; more max_plans are needed";
    case errc::layer_stores_nothing:
      return "layer {l}: the sequence's plan stores no such tensor there";
    case errc::too_many_rows:
      return "the batch has {v} rows; at most {b} fit into one step";
    case errc::position_not_ahead:
      return "position {v} was already passed; the next one is {b}";
    case errc::position_too_large:
      return "the sequence would end at position {v}; positions go up to {b}";
    case errc::step_in_progress:
      return "a step is in progress: commit or abandon it first";
    case errc::no_step:
      return "no step is in progress: call begin first";
    case errc::plan_mismatch:
      return "the plan has {v} layers, but the model has {b}";
    case errc::separate_allocations:
      return "layer {l}: one sequence reads layer {v} and another layer {b}, which lie in "
             "separate allocations; mixed depth needs one";
    case errc::layer_without_memory:
      return "layer {l}: the plan stores its K/V, but the engine gave no memory for it";
    case errc::head_scales_mismatch:
      return "{v} head scales of K (or V) were given, but the codec takes {b}: for every layer as "
             "many as the most KV heads of one, or none";
    case errc::bad_head_scale:
      return "layer {l}: {t} of KV head {b} is zero, negative, infinite or not a number";
    case errc::bad_row_of_blocks:
      return "layer {l}: first_row gives a sequence row {v} of the blocks; the bound is {b}";
    case errc::row_too_short:
      return "layer {l}: a row of blocks holds {v} tokens, fewer than max_tokens, {b}";
    case errc::rows_not_stored:
      return "layer {l}: {v} of the {b} new rows of its K (or V) were not stored";
    case errc::snapshot_truncated:
      return "the snapshot ends within the section that begins at byte {v}; it has {b} bytes";
    case errc::snapshot_damaged:
      return "the snapshot is damaged, or none: the section at byte {v} (kind {b}) is not as it was "
             "written";
    case errc::snapshot_other_version:
      return "the snapshot's format is version {v}; this library reads version {b}";
    case errc::snapshot_foreign:
      return "layer {l}: the snapshot is another model's or another storage's (its part {v} differs: "
             "3 model, 4 codecs, 5 number of layers, 6 kind of layer, 7 head scales)";
    case errc::cannot_open_file:
      return "the file, or the folder that it is in, cannot be opened: errno {v}";
    case errc::cannot_read_file:
      return "the file cannot be read: errno {v}";
    case errc::cannot_write_file:
      return "the file cannot be written, and is what it was: errno {v}";
    case errc::file_not_durable:
      return "the file was written and is in its place, but its folder could not be synchronised "
             "(errno {v}): after a crash the old one may be there";
    case errc::no_regular_file:
      return "the path is a folder's, a device's or the like, and no regular file's";
    case errc::file_changed:
      return "the file became shorter while it was read: {v} of {b} bytes were there";
    case errc::out_of_tier_bytes:
      return "{v} bytes of the tier are missing; {b} are free";
    case errc::not_in_tier:
      return "the tier holds no such sequence (place {v}); it holds {b}";
    case errc::tier_foreign:
      return "layer {l}: the tier is for another kind of storage (part {v} differs: 4 codecs, "
             "5 number of layers, 6 kind of layer, 7 head scales)";
    case errc::rope_too_short:
      return "layer {l}: a key stands at position {v}, beyond the RoPE table of {b} positions";
    case errc::rope_stride_too_small:
      return "the RoPE table's stride is {v}; a position has {b} cosines";
    case errc::rope_dims_mismatch:
      return "the RoPE table turns {v} elements of a head, in pairs; of these keys {b} are turned";
    case errc::rope_pairs_mismatch:
      return "the RoPE table has interleaved = {v}, the layer's keys {b}: other elements are pairs";
    case errc::rope_not_wanted:
      return "the layer's keys are not rotated: the theta of their RoPE is 0";
    case errc::rope_head_too_large:
      return "a head of {v} elements cannot be rotated while it is stored; one of {b} can";
    case errc::bad_share:
      return "layer {l}: there is no share {v} of {b}; they are numbered from 0";
    case errc::bad_view_rows:
      return "layer {l}: the view has {v} sequences or tokens; at least {b} is needed";
    case errc::bad_view_heads:
      return "layer {l}: the view's kv_heads, k_dim and v_dim are at least {b}; one is {v}";
    case errc::length_beyond_blocks:
      return "layer {l}: a sequence of the view has {v} tokens; its blocks have room for {b}";
    case errc::num_seqs_mismatch:
      return "layer {l}: the queries are those of {v} sequences, the view has {b}";
    case errc::num_rows_mismatch:
      return "layer {l}: the queries have {v} rows; {b} rows of the step are live there";
    case errc::too_few_tensors:
      return "layer {l}: tensors of {v} layers were given; at least {b} are needed";
    case errc::offsets_not_from_zero:
      return "layer {l}: the offsets of query rows begin with {v}; the first is {b}";
    case errc::offsets_descend:
      return "layer {l}: the offsets of query rows descend from {b} to {v}";
    case errc::bad_key_range:
      return "layer {l}: keys from {v} to {b} are no range: 0 <= key_begin <= key_end";
    case errc::bad_window:
      return "layer {l}: the window of the rule is {v}; at least {b} is needed";
    case errc::bad_scale:
      return "layer {l}: the scale of the rule is negative, infinite or not a number";
    case errc::bad_softcap:
      return "layer {l}: the softcap of the rule is negative, infinite, not a number, or so small "
             "that scores could not be divided by it";
    case errc::heads_not_divisible:
      return "layer {l}: q_heads is {v}; a multiple of the {b} KV heads is needed, and not 0";
    case errc::positions_missing:
      return "layer {l}: query positions must be given where the number of keys differs per KV "
             "head";
    case errc::memory_misaligned:
      return "the memory given starts {v} bytes off a {b}-byte boundary";
    case errc::memory_overlaps:
      return "the memory given for K and for V overlaps";
    case errc::memory_too_small:
      return "the memory given has {v} bytes; {b} are needed";
    case errc::workspace_too_small:
      return "layer {l}: the workspace has {v} bytes; {b} are needed";
    case errc::row_width_mismatch:
      return "rows of {v} bytes cannot hold what rows of {b} bytes do";
    case errc::rows_overlap:
      return "the rows that are written overlap those that are read";
    case errc::list_not_ascending:
      return "the list of rows that stay does not ascend: {v} comes after {b}";
    case errc::head_too_large:
      return "a head has {v} elements; this kernel takes up to {b}";
    case errc::bounds_missing:
      return "the host cannot read how many rows {v} sequences have; launch_bounds must say how many "
             "there are at most";
    case errc::rows_beyond_bounds:
      return "the queries, or one sequence's, have {v} rows; launch_bounds allow {b}";
    case errc::mirror_too_small:
      return "the mirror of steps has {v} bytes; this step's tables take {b}";
    case errc::device_failure:
      return "the device's runtime refused: error {v}";
    case errc::form_cannot_express:
      return "layer {l} reads layer {v}, but in this form it would read layer {b}";
    case errc::pattern_descends:
      return "layer {l} reads layer {v}, but the layer before it layer {b}: groups are neighbours";
    case errc::layer_in_two_groups:
      return "layer {l} is in two groups";
    case errc::several_sources:
      return "layer {l} makes its K (or V) of {v} others'; a layer has {b} source";
    case errc::bad_weight:
      return "layer {l}: a weight or a sensitivity is negative, infinite or not a number";
    case errc::budget_too_small:
      return "layer {l}: even the fewest leaders take {v} bytes of K and V; the budget is {b}";
    case errc::unsupported:
      return "not supported by this kernel or storage (value {v}, bound {b})";
  }
  return "unknown error";
}

}  // namespace detail

STRATA_NAMESPACE_END
