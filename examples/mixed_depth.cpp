// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Requests of three depths in one batch of one model, as an engine runs them: prefill in two chunks,
// of which only the last row's logits are wanted, then decoding. From a sequence's tail on only the
// rows that lead to wanted logits are computed. Each sequence gets the bits that it gets alone.
#include <strata/attention/cpu/attention.hpp>
#include <strata/strata.hpp>
#include <strata/thread_pool.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <iterator>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace {

using floats = std::vector<float>;
using storage = strata::paged_storage<strata::bf16_codec>;

constexpr std::int32_t layers = 8, width = 64, q_heads = 4, kv_heads = 2, head_dim = 16;
constexpr std::int32_t q_dim = q_heads * head_dim, kv_dim = kv_heads * head_dim, vocab = 256;
constexpr auto model = strata::kv_classes::uniform(
    layers, {.kv = {.kv_heads = kv_heads, .k_dim = head_dim, .v_dim = head_dim}});

/// x w^T. x: [rows, w's columns], w: [outputs, columns]
floats project(floats const& w, float const* x, std::int32_t rows, std::int32_t outputs) {
  auto const columns = w.size() / static_cast<std::size_t>(outputs);
  floats y;
  for (std::int32_t r = 0; r < rows; ++r, x += columns)
    for (auto weight = w.begin(); weight != w.end();) {
      float sum = 0;
      for (std::size_t i = 0; i < columns; ++i) sum += x[i] * *weight++;
      y.push_back(sum);
    }
  return y;
}

/// Attention layers with a residual stream and nothing else; a real one has norms, RoPE and MLPs.
struct toy {
  struct layer {
    floats wq, wk, wv, wo;
  };
  std::vector<layer> layer_of;
  floats embedding;  // [vocab, width]

  toy() {
    std::mt19937 generator(1);
    auto const random = [&](std::int32_t outputs, std::int32_t columns) {
      std::normal_distribution<float> normal(0, 0.25f);
      floats w(static_cast<std::size_t>(outputs * columns));
      for (auto& x : w) x = normal(generator);
      return w;
    };
    embedding = random(vocab, width);
    for (std::int32_t l = 0; l < layers; ++l)
      layer_of.push_back({random(q_dim, width), random(kv_dim, width), random(kv_dim, width),
                          random(width, q_dim)});
  }
};

void require(strata::status const& s) {
  if (!s.ok()) throw strata::error(s);
}

struct engine {
  toy const& weights;
  strata::thread_pool& threads;
  strata::stack<storage, strata::cpu::attention> server;
  std::vector<std::byte> workspace = {};
  std::int64_t rows_computed = 0;

  /// One step: logits [rows that want them, vocab]. tokens: those of all entries, one by one.
  floats run(std::vector<strata::batch_entry> const& batch,
             std::vector<std::int32_t> const& tokens) {
    auto step = server.begin(batch);
    require(step.state());  // out of blocks? Nothing has been reserved: take fewer, try again
    floats x;
    for (auto const token : tokens) {
      auto const from = weights.embedding.begin() + token * width;
      x.insert(x.end(), from, from + width);
    }
    for (strata::layer_id l{0}; l.index < layers; ++l.index) {
      auto const& w = weights.layer_of[static_cast<std::size_t>(l.index)];
      // x: [input rows, width]. Runs of them have a K, or a V, to store; where all sequences follow
      // there is none.
      for (auto const& run : step.k_writers(l)) {
        auto const* const rows = x.data() + run.first_row() * width;
        run.store_all(project(w.wk, rows, run.num_rows(), kv_dim).data());
      }
      for (auto const& run : step.v_writers(l)) {
        auto const* const rows = x.data() + run.first_row() * width;
        run.store_all(project(w.wv, rows, run.num_rows(), kv_dim).data());
      }
      // Where a tail begins, rows end whose logits nobody wants: from here on x is [live rows, ...].
      step.keep_live(l, x.data(), width);
      auto const live = static_cast<std::int32_t>(step.live_rows(l).size());
      auto const q = project(w.wq, x.data(), live, q_dim);
      floats out(q.size());
      strata::layer_queries<float> const queries{
          .q = q.data(), .out = out.data(), .q_heads = q_heads, .num_rows = live};
      auto const bytes = step.workspace_bytes(l, queries, threads.num_shares()).value();
      if (std::ssize(workspace) < bytes) workspace.resize(static_cast<std::size_t>(bytes));
      require(step.attend(threads, l, queries, workspace));
      auto const change = project(w.wo, out.data(), live, width);
      for (std::size_t i = 0; i < change.size(); ++i) x[i] += change[i];
      rows_computed += live;
    }
    // Without a tail a sequence has all of its rows left.
    step.keep_logits({layers - 1}, x.data(), width);
    auto const wanted = static_cast<std::int32_t>(step.logit_rows().size());
    auto const logits = project(weights.embedding, x.data(), wanted, vocab);
    require(step.commit());
    return logits;
  }
};

struct request {
  strata::route_plan plan;
  std::string_view prompt;
  floats logits = {};  // of the prompt's last token and of every token decoded
};

/// Serves requests side by side; returns how many rows went through a layer.
std::int64_t serve(toy const& weights, strata::thread_pool& threads, std::span<request> requests) {
  std::vector<strata::route_plan> plans;
  for (auto const& r : requests) plans.push_back(r.plan);
  engine e{weights, threads,
           decltype(engine::server)(storage(model, strata::paged_options::for_plans(plans, 64)))};
  std::vector<strata::sequence_id> ids;
  for (auto const& plan : plans) ids.push_back(e.server.open(plan).value());

  auto const step = [&](auto const& tokens_of, strata::logits wanted) {
    std::vector<strata::batch_entry> batch;
    std::vector<std::int32_t> tokens;
    for (std::size_t i = 0; i < requests.size(); ++i) {
      auto const part = tokens_of(requests[i]);
      batch.push_back({ids[i], static_cast<std::int32_t>(part.size()), wanted});
      for (auto const c : part) tokens.push_back(static_cast<unsigned char>(c));
    }
    auto const logits = e.run(batch, tokens);
    for (std::size_t i = 0; i < logits.size(); ++i) requests[i / vocab].logits.push_back(logits[i]);
  };
  // The first chunk leads to no logits at all, the second to one row of them.
  auto const half = [](request const& r) { return r.prompt.size() / 2; };
  step([&](request const& r) { return r.prompt.substr(0, half(r)); }, strata::logits::none);
  step([&](request const& r) { return r.prompt.substr(half(r)); }, strata::logits::last);
  for (int i = 0; i < 4; ++i)
    step(
        [](request const& r) {
          auto const last = r.logits.end() - vocab;
          return std::string(1, static_cast<char>(std::max_element(last, r.logits.end()) - last));
        },
        strata::logits::last);
  return e.rows_computed;
}

}  // namespace

int main() {
  toy const weights;
  strata::thread_pool threads(3);
  auto const plan = [](char const* strategy) {
    return strata::make_plan(strata::parse_strategy(strategy, layers).value(), model).value();
  };
  char const* const strategies[] = {"full", "every:2", "leaders:0,1,2"};
  request together[] = {{plan(strategies[0]), "Blessed is the man that walketh not"},
                        {plan(strategies[1]), "in the counsel of the ungodly"},
                        {plan(strategies[2]), "nor standeth in the way of sinners"}};
  auto const rows = serve(weights, threads, together);

  std::size_t tokens = 0;
  for (std::size_t i = 0; i < 3; ++i) {
    auto const& r = together[i];
    request alone[] = {{r.plan, r.prompt}};
    serve(weights, threads, alone);
    if (r.logits.empty() || r.logits != alone[0].logits) return std::puts("not as alone"), 1;
    tokens += r.prompt.size() + 4;
    std::printf("%-14s %5lld bytes a token, tail from layer %d on; as alone, bit for bit\n",
                strategies[i],
                static_cast<long long>(strata::bytes_per_token<strata::bf16_codec>(r.plan, model)),
                static_cast<int>(r.plan.tail_begin));
  }
  std::printf("%lld rows went through a layer, of %zu without tails\n",
              static_cast<long long>(rows), tokens * layers);
  return 0;
}
