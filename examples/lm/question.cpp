// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "question.hpp"

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

#include "failure.hpp"
#include "formats/strict_json.hpp"
#include "text.hpp"
#include "tokenizer/json_fields.hpp"

namespace lm {
namespace {

std::string line_of_text(json_field const& field) {
  auto const& text = field.text();
  if (text.find_first_not_of(' ') == std::string::npos)
    field.refuse_value("a text that is not empty");
  if (text.find_first_of("\n\r") != std::string::npos)
    field.refuse_value("a text of one line; a new line ends a passage, a question and an answer");
  return text;
}

std::vector<std::string> lines_of_text(json_field const& field) {
  auto const count = field.length();
  if (count == 0) field.refuse_value("a list of at least one text");
  std::vector<std::string> out;
  for (std::size_t i = 0; i < count; ++i) out.push_back(line_of_text(field.item(i)));
  return out;
}

void refuse_other_fields(json_field const& object) {
  if (!object.value().is_object()) object.refuse_value("an object");
  for (auto const& [key, value] : object.value().items()) {
    bool known = false;
    for (auto const* const name : {"set", "passages", "question", "answers"})
      known = known || key == name;
    if (!known)
      object.refuse("has the field " + detail::quoted(key) +
                    "; there are set, passages, question and answers");
  }
}

question read_question(std::string_view line, std::string const& place) {
  auto const json = parse_strictly(line, place);
  json_field const object(json, place);
  refuse_other_fields(object);
  question q;
  q.set = line_of_text(object["set"]);
  q.passages = lines_of_text(object["passages"]);
  q.text = line_of_text(object["question"]);
  q.answers = lines_of_text(object["answers"]);
  return q;
}

std::string context_text(question const& q, std::span<std::int32_t const> order) {
  std::string out = "Context: ";
  for (std::size_t i = 0; i < q.passages.size(); ++i) {
    auto const at = order.empty() ? i : static_cast<std::size_t>(order[i]);
    out += q.passages[at] + "\n";
  }
  return out;
}

void require_permutation(std::span<std::int32_t const> order, std::size_t size) {
  std::vector<bool> seen(size, false);
  bool valid = order.size() == size;
  for (auto const at : order) {
    valid = valid && at >= 0 && static_cast<std::size_t>(at) < size &&
            !seen[static_cast<std::size_t>(at)];
    if (!valid) break;
    seen[static_cast<std::size_t>(at)] = true;
  }
  if (!valid)
    throw failure("the order of passages is no permutation of all " + std::to_string(size));
}

}  // namespace

std::vector<question> read_questions(std::string const& path) {
  auto const bytes = read_file(path);
  return parse_questions({reinterpret_cast<char const*>(bytes.data()), bytes.size()}, path);
}

std::vector<question> parse_questions(std::string_view rest, std::string const& path) {
  std::vector<question> out;
  for (std::int64_t number = 1; !rest.empty(); ++number) {
    auto const end = std::min(rest.find('\n'), rest.size());
    auto const place = path + ", line " + std::to_string(number);
    if (end == 0) throw failure(place + " is empty; each line must be a question");
    out.push_back(read_question(rest.substr(0, end), place));
    out.back().line = number;
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  if (out.empty()) throw failure(path + " is empty; there must be at least one question");
  return out;
}

std::string prompt_text(question const& q, bool question_first,
                        std::span<std::int32_t const> order) {
  if (!order.empty()) require_permutation(order, q.passages.size());
  auto const context = context_text(q, order);
  auto const asked = "Question: " + q.text + "\n";
  return (question_first ? asked + context : context + asked) + "Answer:";
}

std::string answer_text(question const& q) { return " " + q.answers.front(); }

}  // namespace lm
