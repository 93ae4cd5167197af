// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Train on routes that are drawn anew for every pass; serve with the caches of 2 layers of 8.
#include <strata/picture.hpp>
#include <strata/strata.hpp>

#include <cstdio>
#include <vector>

using namespace strata;

int main() {
  // Eight layers with two KV heads of 64; layers 0 and 4 lead. All of it is known at compile time.
  constexpr auto model = kv_classes::uniform(8, {.kv = {.kv_heads = 2, .k_dim = 64, .v_dim = 64}});
  constexpr auto serving = make_plan(leader_set(8, {0, 4}), model);
  static_assert(bytes_per_token<bf16_codec>(*serving, model) == 1024);  // 4096 without sharing

  // Training: in each pass a layer reads its own K and V, or those of any layer before it.
  auto const drawn = make_plan(random_previous(0.5), model, {.seed = 1, .step = 2}).value();
  std::printf("training\n%s\nserving\n%s", picture(drawn).c_str(), picture(*serving).c_str());

  // Serving: followers project no K and V and keep none. Other requests may have other leaders.
  auto const room = contiguous_options::for_plan(*serving, 1, 256);  // 1 sequence of 256 tokens
  stack server(contiguous_storage<bf16_codec>(model, room), reference_attention{});
  std::vector<float> q(4 * 64, .1f), k(2 * 64, .2f), v(2 * 64, .3f), out(4 * 64);  // of your model
  serial_executor here;
  auto step = server.begin({server.open(*serving).value()});  // room for a token: all or nothing
  for (layer_id layer{0}; layer.index < 8; ++layer.index) {
    for (auto const& rows : step.k_writers(layer)) rows.store_all(k.data());
    for (auto const& rows : step.v_writers(layer)) rows.store_all(v.data());
    layer_queries<float> const queries{.q = q.data(), .out = out.data(), .q_heads = 4};
    std::vector<std::byte> workspace(*step.workspace_bytes(layer, queries, here.num_shares()));
    if (!step.attend(here, layer, queries, workspace).ok()) return 1;
  }
  return step.commit().ok() ? 0 : 1;  // only now does the token count
}
