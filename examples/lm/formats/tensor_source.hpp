// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Named tensors, wherever they come from: GGUF and safetensors files have them in common.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace lm {

/// A tensor as its file declares it. The last dimension is the one whose elements lie together, as
/// in PyTorch; GGUF's files count the other way around, and their reader turns them.
struct tensor_info {
  std::string name;
  std::vector<std::int64_t> shape;
  std::string type;  ///< of the elements, as the format names it: "BF16", "Q4_1"

  /// Elements; readers have checked that they can be counted.
  std::int64_t size() const noexcept {
    std::int64_t count = 1;
    for (auto const extent : shape) count *= extent;
    return count;
  }
};

/// A file, or several that belong together, whose tensors are all known and whose bounds are
/// checked before the first is read. Threads: const calls at the same time.
class tensor_source {
 public:
  virtual ~tensor_source() = default;

  /// For messages.
  virtual std::string const& path() const noexcept = 0;
  virtual std::vector<tensor_info> const& tensors() const noexcept = 0;

  /// The elements of tensors()[index] as floats; to: [size()]. Throws `failure` where they are not
  /// what the file says.
  virtual void read(std::size_t index, std::span<float> to) const = 0;

  /// Null where there is none of that name.
  tensor_info const* find(std::string const& name) const noexcept {
    for (auto const& tensor : tensors())
      if (tensor.name == name) return &tensor;
    return nullptr;
  }
};

}  // namespace lm
