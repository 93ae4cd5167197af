// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// safetensors files, one alone or the parts of a model that lie in a folder beside their index.
// What a header claims is checked before anything is returned, as the format's own library does:
// places follow each other without a hole or an overlap from the first byte behind the header to
// the last of the file, and each is as long as shape and type ask, which are multiplied with
// checked arithmetic.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "mapped_file.hpp"
#include "strict_json.hpp"
#include "tensor_source.hpp"

namespace lm {

/// One file. F32, F16 and BF16 are read, other types refused.
class safetensors_file final : public tensor_source {
 public:
  /// Throws `failure` with the tensor, the value and its bound.
  explicit safetensors_file(std::string const& path);
  /// The same of bytes elsewhere, which outlive this; `name` is for messages.
  safetensors_file(std::span<std::byte const> bytes, std::string name);

  std::string const& path() const noexcept override { return path_; }
  /// In the order of their places.
  std::vector<tensor_info> const& tensors() const noexcept override { return tensors_; }
  void read_part(std::size_t index, std::int64_t first, std::span<float> to) const override;
  void forget() const noexcept override { file_.forget(); }

  /// What stands in __metadata__.
  std::map<std::string, std::string> const& metadata() const noexcept { return metadata_; }

  /// Whether a file may be one: a length that fits it, and a brace.
  static bool recognises(std::span<std::byte const> bytes) noexcept;

  static constexpr std::int64_t longest_header = 100'000'000;  ///< the format's bound

 private:
  struct place {
    std::int64_t begin = 0, end = 0;  // bytes, from the end of the header on
  };

  [[noreturn]] void refuse(std::string const& why) const;
  [[noreturn]] void refuse_tensor(std::string const& name, std::string const& why) const;
  void parse();
  void add_metadata(strict_json const& json);
  void add_tensor(std::string const& name, strict_json const& json);
  void order_by_place();

  mapped_file file_;
  std::span<std::byte const> bytes_;
  std::string path_;
  std::span<std::byte const> data_;  // behind the header
  std::map<std::string, std::string> metadata_;
  std::vector<tensor_info> tensors_;
  std::vector<place> places_;  // [tensors]
};

/// model.safetensors of a folder or, where it has none, the parts that model.safetensors.index.json
/// lists. Throws where neither is there, or where a part and the index disagree.
std::unique_ptr<tensor_source> open_safetensors_folder(std::string const& folder);

}  // namespace lm
