// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Writing safetensors files, as others read them.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "../weight_type.hpp"

namespace lm {

struct tensor_to_write {
  std::string name;
  std::vector<std::int64_t> shape;
  std::span<float const> values;  ///< as many as the shape has
};

/// Writes or replaces a file: a temporary one beside it, fsync, rename, fsync of the folder.
/// Tensors lie in the given order. Throws `failure` where the system refuses, and the file is what
/// it was.
void write_safetensors(std::string const& path, std::vector<tensor_to_write> const& tensors,
                       weight_type type, std::map<std::string, std::string> const& metadata);

}  // namespace lm
