// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// GGUF files, as llama.cpp writes them: versions 2 and 3, little endian. All that a file claims of
// itself is checked before anything is returned: every count, length and offset against what is
// left of the file, every product for overflow. It takes time in proportion to the metadata, and
// memory to the number of keys and tensors; strings and tensors stay in the file.
//
//     gguf_file const file("model.gguf");
//     auto const words = file.metadata().texts("tokenizer.ggml.tokens");
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "ggml_types.hpp"
#include "gguf_metadata.hpp"
#include "mapped_file.hpp"
#include "tensor_source.hpp"

namespace lm {

namespace detail {
class gguf_parser;
}  // namespace detail

/// Moves, and what it returned stays valid.
class gguf_file final : public tensor_source {
 public:
  /// Throws `failure` where it cannot be read, is no such file or lies, with the key or tensor, the
  /// value and its bound.
  explicit gguf_file(std::string const& path);
  /// The same of bytes elsewhere, which outlive this; `name` is for messages.
  gguf_file(std::span<std::byte const> bytes, std::string name);

  std::string const& path() const noexcept override { return path_; }
  std::vector<tensor_info> const& tensors() const noexcept override { return tensors_; }
  void read_part(std::size_t index, std::int64_t first, std::span<float> to) const override;
  void forget() const noexcept override { file_.forget(); }

  gguf_metadata const& metadata() const noexcept { return metadata_; }

  /// Whether a file begins as these do.
  static bool recognises(std::span<std::byte const> bytes) noexcept;

 private:
  friend class detail::gguf_parser;
  /// Where a tensor lies, in whole blocks.
  struct placed {
    ggml_type const* type = nullptr;
    std::int64_t blocks = 0;
    std::uint64_t offset = 0, bytes = 0;
  };

  mapped_file file_;
  std::span<std::byte const> bytes_;
  std::string path_;
  gguf_metadata metadata_;
  std::vector<tensor_info> tensors_;
  std::vector<placed> places_;  // [tensors]
};

}  // namespace lm
