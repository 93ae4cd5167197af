// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Named tensors, wherever they come from: GGUF and safetensors files have them in common.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "../failure.hpp"
#include "named.hpp"

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

  /// Some elements of tensors()[index] as floats, from `first` on: whole rows (of the last
  /// dimension). Throws `failure` where the tensor has no such part.
  virtual void read_part(std::size_t index, std::int64_t first, std::span<float> to) const = 0;

  /// All of them; to: [size()]. Throws `failure` where there are more or fewer.
  void read(std::size_t index, std::span<float> to) const {
    auto const& tensor = tensors().at(index);
    if (std::cmp_not_equal(to.size(), tensor.size()))
      throw failure(path() + ": tensor " + detail::quoted(tensor.name) + " has " +
                    std::to_string(tensor.size()) + " elements, not " + std::to_string(to.size()));
    read_part(index, 0, to);
  }

  /// Takes what was read out of this process's memory; it comes again from the system's.
  virtual void forget() const noexcept {}

  /// Null where there is none of that name.
  tensor_info const* find(std::string const& name) const noexcept {
    for (auto const& tensor : tensors())
      if (tensor.name == name) return &tensor;
    return nullptr;
  }

 protected:
  /// Throws unless the tensor has these rows.
  void check_part(std::size_t index, std::int64_t first, std::size_t count) const {
    auto const& tensor = tensors().at(index);
    auto const row = tensor.shape.empty() ? std::int64_t{1} : tensor.shape.back();
    bool const whole = row > 0 && first % row == 0 && count % static_cast<std::size_t>(row) == 0;
    bool const inside =
        first >= 0 && first <= tensor.size() && std::cmp_less_equal(count, tensor.size() - first);
    if (count > 0 && !(whole && inside))
      throw failure(path() + ": tensor " + detail::quoted(tensor.name) + " of " +
                    std::to_string(tensor.size()) + " elements in rows of " + std::to_string(row) +
                    " has no part of " + std::to_string(count) + " from " + std::to_string(first) +
                    " on");
  }
};

/// Calls body(first, elements) for all of a tensor, whole rows of up to 1 MiB of floats at a time,
/// and keeps none of it.
template <class Body>
void read_in_parts(tensor_source const& source, std::size_t index, Body const& body) {
  auto const& tensor = source.tensors().at(index);
  if (tensor.size() == 0) return;
  auto const row = tensor.shape.empty() ? std::int64_t{1} : tensor.shape.back();
  auto const rows = (std::int64_t{1} << 18) / row;
  auto const part = row * (rows < 1 ? 1 : rows);
  std::vector<float> values(static_cast<std::size_t>(part < tensor.size() ? part : tensor.size()));
  for (std::int64_t first = 0; first < tensor.size(); first += part) {
    auto const left = tensor.size() - first;
    auto const now = std::span(values).first(static_cast<std::size_t>(left < part ? left : part));
    source.read_part(index, first, now);
    body(first, std::span<float const>(now));
    source.forget();
  }
}

}  // namespace lm
