// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// strata-lm answer: questions about passages, answered under each strategy, and how well.
#include <algorithm>
#include <cstdio>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "answer_scores.hpp"
#include "commands.hpp"
#include "config_json.hpp"
#include "greedy_batch.hpp"
#include "progress.hpp"
#include "question.hpp"
#include "report.hpp"
#include "serving.hpp"
#include "serving_place.hpp"
#include "table.hpp"
#include "text_coder.hpp"

namespace lm {
namespace {

struct given_answer {
  std::string text;
  std::int64_t tokens = 0;
  answer_scores scores;
};

/// All answers of a strategy, in the order of the questions.
struct strategy_answers {
  strategy const* what = nullptr;
  std::vector<given_answer> answers;
};

/// Means over some of the answers.
struct set_scores {
  std::string set;
  std::int64_t questions = 0;
  answer_scores sum;
  std::int64_t tokens = 0;

  void add(given_answer const& a) {
    ++questions;
    sum.f1 += a.scores.f1;
    sum.em += a.scores.em;
    sum.rouge_l += a.scores.rouge_l;
    tokens += a.tokens;
  }
  double mean(double of) const { return of / static_cast<double>(questions); }
};

/// Names of sets, in the order in which the questions have them.
std::vector<std::string> sets_of(std::vector<question> const& questions) {
  std::vector<std::string> names;
  for (auto const& q : questions)
    if (std::ranges::find(names, q.set) == names.end()) names.push_back(q.set);
  return names;
}

/// What --set and --limit leave.
std::vector<question> choose_questions(answer_options const& o) {
  auto all = read_questions(o.questions);
  auto const names = sets_of(all);
  for (auto const& set : o.sets) {
    if (std::ranges::find(names, set) != names.end()) continue;
    std::string known;
    for (auto const& name : names) known += (known.empty() ? "" : ", ") + name;
    throw failure("--set " + set + ": " + o.questions + " has no such set; it has " + known,
                  exit_code::wrong_use);
  }
  std::map<std::string, std::int32_t> taken;
  std::erase_if(all, [&](question const& q) {
    bool const wanted = o.sets.empty() || std::ranges::find(o.sets, q.set) != o.sets.end();
    return !wanted || (++taken[q.set] > o.limit && o.limit > 0);
  });
  return all;
}

/// The questions as tokens, as training takes them. Throws, with its line, where one leaves too
/// little of the context.
std::vector<std::vector<std::int32_t>> prompts_of(std::vector<question> const& questions,
                                                  text_coder const& coder,
                                                  answer_options const& o) {
  std::vector<std::vector<std::int32_t>> prompts;
  for (auto const& q : questions) {
    prompts.push_back(coder.encode(prompt_text(q, false, {})));
    auto const needed = static_cast<std::int64_t>(prompts.back().size()) + o.max_tokens;
    if (needed > o.context)
      throw failure(o.questions + ", line " + std::to_string(q.line) + ": its " +
                        count_text(needed - o.max_tokens) + " tokens and " +
                        std::to_string(o.max_tokens) + " of an answer exceed the context of " +
                        std::to_string(o.context) +
                        "; give a larger --context or less "
                        "--max-tokens",
                    exit_code::does_not_fit);
  }
  return prompts;
}

/// The first line of what a model wrote, without the space before it.
std::string answer_of(std::span<std::int32_t const> tokens, text_coder const& coder) {
  std::string text;
  for (auto const token : tokens) text += coder.decode(token);
  text.erase(std::min(text.find('\n'), text.size()));
  text.erase(0, std::min(text.find_first_not_of(' '), text.size()));
  return text;
}

/// Answers everything under one strategy, on a place.
class answering {
 public:
  answering(serving_place& place, answer_options const& o, cache_codec codec,
            std::vector<question> const& questions)
      : place_(place), options_(o), coder_(load_text_coder(o.model)), questions_(questions) {
    require_vocabulary(coder_, place.config());
    prompts_ = prompts_of(questions, coder_, o);
    std::size_t longest = 0;
    for (auto const& p : prompts_) longest = std::max(longest, p.size());
    auto const at_once = std::min(static_cast<std::size_t>(o.batch), prompts_.size());
    cache_ = {codec, static_cast<std::int32_t>(at_once),
              static_cast<std::int32_t>(longest) + o.max_tokens};
  }

  /// progress(questions done, seconds) hears of each. Fewer are answered once interrupted.
  template <class Progress>
  strategy_answers answer(strategy const& what, Progress const& progress) {
    strategy_answers out{&what, std::vector<given_answer>(prompts_.size())};
    auto const serving = place_.make_server(what.plan, cache_, greedy_room(cache_.max_sequences));
    greedy_batch<float> batch(*serving, what.plan, options_.max_tokens);
    auto const ends = [&](std::int32_t token) {
      return coder_.ends(token) || coder_.decode(token).find('\n') != std::string::npos;
    };
    std::int64_t done = 0;
    stopwatch const clock;
    auto const outcome = batch.run(prompts_, ends, [&](std::size_t i, auto const& tokens) {
      auto& a = out.answers[i];
      a.text = answer_of(tokens, coder_);
      a.tokens = static_cast<std::int64_t>(tokens.size());
      a.scores = score_answer(a.text, questions_[i].answers);
      progress(++done, clock.seconds());
    });
    require(outcome, "answering with " + what.given);
    return out;
  }

 private:
  serving_place& place_;
  answer_options const& options_;
  text_coder coder_;
  std::vector<question> const& questions_;
  std::vector<std::vector<std::int32_t>> prompts_;
  cache_options cache_;
};

/// Every set's, and those of all.
std::pair<std::vector<set_scores>, set_scores> scores_of(strategy_answers const& s,
                                                         std::vector<question> const& questions) {
  std::vector<set_scores> sets;
  for (auto const& name : sets_of(questions)) sets.push_back({name, 0, {}, 0});
  set_scores all{"all", 0, {}, 0};
  for (std::size_t i = 0; i < questions.size(); ++i) {
    std::ranges::find(sets, questions[i].set, &set_scores::set)->add(s.answers[i]);
    all.add(s.answers[i]);
  }
  return {std::move(sets), all};
}

std::string rows_text(std::vector<strategy_answers> const& rows,
                      std::vector<question> const& questions) {
  text_table table({"strategy", "set", "leaders", "retention", "questions", "F1 %", "EM %",
                    "ROUGE-L %", "tokens"},
                   2);
  for (auto const& row : rows) {
    auto [sets, all] = scores_of(row, questions);
    if (sets.size() > 1) sets.push_back(all);
    for (auto const& s : sets) {
      bool const first = &s == &sets.front();
      table.add({first ? row.what->given : "", s.set, first ? leaders_text(row.what->leaders) : "",
                 first ? text("%.1f %%", 100 * row.what->retention) : "", count_text(s.questions),
                 text("%.1f", 100 * s.mean(s.sum.f1)), text("%.1f", 100 * s.mean(s.sum.em)),
                 text("%.1f", 100 * s.mean(s.sum.rouge_l)),
                 text("%.1f", s.mean(static_cast<double>(s.tokens)))});
    }
  }
  return table.text();
}

json_value to_json(set_scores const& s) {
  return {{"questions", s.questions},
          {"f1", s.mean(s.sum.f1)},
          {"em", s.mean(s.sum.em)},
          {"rouge_l", s.mean(s.sum.rouge_l)},
          {"tokens", s.mean(static_cast<double>(s.tokens))}};
}

json_value rows_json(std::vector<strategy_answers> const& rows,
                     std::vector<question> const& questions, model_config const& config) {
  json_value out = {{"model", to_json(config)},
                    {"questions", questions.size()},
                    {"strategies", json_value::array()}};
  for (auto const& row : rows) {
    auto const [sets, all] = scores_of(row, questions);
    json_value one = {{"strategy", row.what->given},
                      {"leaders", row.what->leaders},
                      {"retention", row.what->retention},
                      {"sets", json_value::array()},
                      {"all", to_json(all)}};
    for (auto const& s : sets) {
      json_value entry = {{"set", s.set}};
      entry.update(to_json(s));
      one["sets"].push_back(std::move(entry));
    }
    out["strategies"].push_back(std::move(one));
  }
  return out;
}

/// A model may write bytes that are no UTF-8; JSON has U+FFFD for those.
std::string answer_lines(std::vector<strategy_answers> const& rows,
                         std::vector<question> const& questions) {
  std::string out;
  for (auto const& row : rows)
    for (std::size_t i = 0; i < questions.size(); ++i) {
      auto const& [said, tokens, scores] = row.answers[i];
      json_value const line = {{"strategy", row.what->given},
                               {"set", questions[i].set},
                               {"line", questions[i].line},
                               {"question", questions[i].text},
                               {"answer", said},
                               {"accepted", questions[i].answers},
                               {"f1", scores.f1},
                               {"em", scores.em},
                               {"rouge_l", scores.rouge_l}};
      out += line.dump(-1, ' ', false, json_value::error_handler_t::replace) + "\n";
    }
  return out;
}

}  // namespace

void run_answer(answer_options o) {
  require_writable("--json", o.json_file);
  require_writable("--answers", o.answers_file);
  auto const codec = choose_codec(o.codec, o.device, cache_codec::f32);
  auto const questions = choose_questions(o);
  auto const place = open_model(o.model, {o.device, o.threads, o.weights, o.adapters});
  auto const& config = place->config();
  if (o.context == 0) o.context = config.context;
  auto const strategies = resolve_strategies(o.strategies, config);
  answering all(*place, o, codec, questions);

  live_text news(stderr);
  std::vector<strategy_answers> rows;
  auto const count = static_cast<std::int64_t>(questions.size());
  for (auto const& s : strategies) {
    auto const progress = [&](std::int64_t done, double seconds) {
      auto const rate = static_cast<double>(done) / seconds;
      news.show(text("%s: %s of %s questions, %s questions/s, %s left\n", s.given.c_str(),
                     count_text(done).c_str(), count_text(count).c_str(), rate_text(rate).c_str(),
                     duration_text(static_cast<double>(count - done) / rate).c_str()));
    };
    auto answers = all.answer(s, progress);
    if (interrupted()) break;  // a part of the questions compares with nothing
    rows.push_back(std::move(answers));
  }
  news.clear();
  std::printf("%s questions of %s, up to %d at a time\n\n%s", count_text(count).c_str(),
              o.questions.c_str(), o.batch, rows_text(rows, questions).c_str());
  if (!o.json_file.empty()) write_json(o.json_file, rows_json(rows, questions, config));
  if (!o.answers_file.empty()) write_text(o.answers_file, answer_lines(rows, questions));
}

}  // namespace lm
