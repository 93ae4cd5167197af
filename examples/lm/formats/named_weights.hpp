// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The weights of a model out of tensors with other names.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "../narrow_weights.hpp"
#include "../parameters.hpp"
#include "../weight_type.hpp"
#include "tensor_source.hpp"

namespace lm {

/// What others call the tensors of a model.
struct tensor_names {
  std::string layer;  ///< what comes before the number of a layer: "model.layers."
  /// Ours, without layer and number, and theirs: {"wq", "self_attn.q_proj.weight"}.
  std::vector<std::pair<std::string, std::string>> names;

  /// Throws where the tensor has none.
  std::string of(tensor_entry const& entry) const;
};

/// [rows, cols], or [cols] of norm gains: how the tensor lies in files of others.
std::vector<std::int64_t> shape_of(tensor_entry const& entry);

/// A tensor that a source must have.
struct wanted_tensor {
  std::string name;
  std::vector<std::int64_t> shape;
};

/// Where a source has each of these; [wanted]. Throws `failure` where one is missing or has another
/// shape than `whose`, and where one is there that was not asked for, unless may_ignore(name).
std::vector<std::size_t> find_tensors(tensor_source const& source,
                                      std::vector<wanted_tensor> const& wanted,
                                      bool (*may_ignore)(std::string const& name),
                                      char const* whose = "the model's");

/// All weights of a model. Throws `failure`, before any memory is taken, where a tensor is missing
/// or has another shape, where one is there that the model has no place for, unless
/// may_ignore(name), and where the weights do not fit into memory.
parameters<float> read_weights(tensor_source const& source, model_config const& config,
                               tensor_names const& names,
                               bool (*may_ignore)(std::string const& name));

/// The same, rounded on the way, a few rows at a time: no more memory than the weights take.
narrow_weights read_narrow_weights(tensor_source const& source, model_config const& config,
                                   tensor_names const& names,
                                   bool (*may_ignore)(std::string const& name));

/// bf16 where every matrix of the file is, so that nothing is lost by keeping it; else f32.
weight_type stored_type(tensor_source const& source);

}  // namespace lm
