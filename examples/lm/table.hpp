// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A table of text, for terminals: the first columns flush left, all others flush right.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace lm {

/// Columns on a terminal that a UTF-8 text takes: its characters, not its bytes. East Asian width
/// is not looked at.
inline std::size_t columns_of(std::string const& text) {
  std::size_t count = 0;
  for (char const c : text) count += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  return count;
}

class text_table {
 public:
  explicit text_table(std::vector<std::string> header, std::size_t left_columns = 1)
      : header_(std::move(header)), left_columns_(left_columns) {}

  /// A title above the columns from `first` on, in a line above the header.
  void group(std::size_t first, std::string title) { groups_.emplace_back(first, title); }

  /// Cells that are missing stay empty; a column more than the header has is a mistake of ours.
  void add(std::vector<std::string> row) {
    row.resize(header_.size());
    rows_.push_back(std::move(row));
  }
  std::size_t num_rows() const { return rows_.size(); }

  /// Header, rule, rows: each line ends in a newline and is indented by `indent` columns.
  std::string text(std::size_t indent = 2) const {
    auto const widths = column_widths();
    std::string out = group_line(widths, indent) + line(header_, widths, indent);
    out.append(indent, ' ');
    std::size_t total = 0;
    for (auto const width : widths) total += width + 2;
    out.append(total - 2, '-');
    out += '\n';
    for (auto const& row : rows_) out += line(row, widths, indent);
    return out;
  }

 private:
  std::vector<std::size_t> column_widths() const {
    std::vector<std::size_t> widths;
    for (auto const& cell : header_) widths.push_back(columns_of(cell));
    for (auto const& row : rows_)
      for (std::size_t i = 0; i < row.size(); ++i)
        if (columns_of(row[i]) > widths[i]) widths[i] = columns_of(row[i]);
    return widths;
  }

  /// Titles where their columns begin; empty where there are none.
  std::string group_line(std::vector<std::size_t> const& widths, std::size_t indent) const {
    std::string out;
    for (auto const& [first, title] : groups_) {
      auto column = indent;
      for (std::size_t i = 0; i < first; ++i) column += widths[i] + 2;
      out.resize(std::max(out.size(), column), ' ');
      out += title;
    }
    return out.empty() ? out : out + '\n';
  }

  std::string line(std::vector<std::string> const& cells, std::vector<std::size_t> const& widths,
                   std::size_t indent) const {
    std::string out(indent, ' ');
    for (std::size_t i = 0; i < cells.size(); ++i) {
      auto const padding = widths[i] - columns_of(cells[i]);
      bool const left = i < left_columns_;
      if (i > 0) out.append(2, ' ');
      if (!left) out.append(padding, ' ');
      out += cells[i];
      if (left) out.append(padding, ' ');
    }
    while (!out.empty() && out.back() == ' ') out.pop_back();
    return out + '\n';
  }

  std::vector<std::string> header_;
  std::size_t left_columns_;
  std::vector<std::pair<std::size_t, std::string>> groups_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace lm
