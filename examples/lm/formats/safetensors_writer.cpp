// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "safetensors_writer.hpp"

#include <algorithm>
#include <cstddef>

#include <nlohmann/json.hpp>

#include <strata/cache/element.hpp>

#include "../output_file.hpp"

namespace lm {
namespace {

std::int64_t bytes_of(tensor_to_write const& tensor, weight_type type) noexcept {
  return static_cast<std::int64_t>(tensor.values.size()) * (type == weight_type::f32 ? 4 : 2);
}

/// Its length is a multiple of 8, so that elements are aligned in a mapped file.
std::string header_of(std::vector<tensor_to_write> const& tensors, weight_type type,
                      std::map<std::string, std::string> const& metadata) {
  nlohmann::ordered_json header;
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::int64_t end = 0;
  for (auto const& tensor : tensors) {
    auto const begin = end;
    end += bytes_of(tensor, type);
    header[tensor.name] = {{"dtype", type == weight_type::f32 ? "F32" : "BF16"},
                           {"shape", tensor.shape},
                           {"data_offsets", {begin, end}}};
  }
  auto text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return text;
}

/// A part at a time: no second copy of a model in memory.
void write_as_bf16(detail::file const& out, std::span<float const> values) {
  std::vector<strata::bfloat16> part;
  while (!values.empty()) {
    auto const now = values.first(std::min(values.size(), std::size_t{1} << 16));
    part.clear();
    for (auto const value : now) part.push_back(strata::to_bfloat16(value));
    out.write(part.data(), static_cast<std::int64_t>(part.size() * sizeof(part.front())));
    values = values.subspan(now.size());
  }
}

}  // namespace

void write_safetensors(std::string const& path, std::vector<tensor_to_write> const& tensors,
                       weight_type type, std::map<std::string, std::string> const& metadata) {
  auto const header = header_of(tensors, type, metadata);
  std::uint64_t const length = header.size();
  detail::replace_file(path, [&](detail::file const& out) {
    out.write(&length, sizeof(length));
    out.write(header.data(), static_cast<std::int64_t>(header.size()));
    for (auto const& tensor : tensors)
      if (type == weight_type::f32)
        out.write(tensor.values.data(), static_cast<std::int64_t>(tensor.values.size_bytes()));
      else
        write_as_bf16(out, tensor.values);
  });
}

}  // namespace lm
