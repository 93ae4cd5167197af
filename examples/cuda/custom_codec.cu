// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A codec of one's own on a device: the one of ../custom_codec.cpp, int8 with one scale per row,
// whose rows kernels append and read. The same prompt and tokens go through a server of the host,
// whose attention is the reference in double.
#include <strata/attention/reference.hpp>
#include <strata/cache/contiguous_storage.hpp>
#include <strata/cuda/append.cuh>
#include <strata/cuda/attention.cuh>
#include <strata/cuda/codec.hpp>
#include <strata/cuda/step_mirror.cuh>
#include <strata/cuda/storage.cuh>
#include <strata/map/identity_map.hpp>
#include <strata/stack.hpp>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <span>
#include <vector>

// 1. The codec: its functions are the host's and the device's.
struct row_int8 {
  static constexpr bool exact = false;

  STRATA_HOST_DEVICE static std::int64_t row_bytes(std::int32_t n) noexcept { return n; }
  STRATA_HOST_DEVICE static std::int64_t scale_bytes(std::int32_t) noexcept {
    return sizeof(float);
  }

  template <std::floating_point T>
  STRATA_HOST_DEVICE static void encode(T const* in, std::int32_t n, std::byte* row,
                                        std::byte* scales) noexcept {
    float largest = 0;
    for (std::int32_t i = 0; i < n; ++i) {
      auto const size = std::fabs(static_cast<float>(in[i]));
      if (size > largest || size != size) largest = size;  // NaN stays: no size is greater
    }
    float const scale = largest / 127;  // NaN: all of the row is read as that
    std::memcpy(scales, &scale, sizeof scale);
    for (std::int32_t i = 0; i < n; ++i) {
      float const steps = scale > 0 ? std::round(static_cast<float>(in[i]) / scale) : 0.f;
      row[i] = static_cast<std::byte>(
          static_cast<std::int8_t>(std::fmin(std::fmax(steps, -127.f), 127.f)));
    }
  }

  template <std::floating_point T>
  STRATA_HOST_DEVICE static void decode(std::byte const* row, std::byte const* scales,
                                        std::int32_t n, T* out) noexcept {
    float scale;
    std::memcpy(&scale, scales, sizeof scale);
    for (std::int32_t i = 0; i < n; ++i)
      out[i] = static_cast<T>(static_cast<float>(static_cast<std::int8_t>(row[i])) * scale);
  }
};

// 2. How kernels read it, eight elements at a time. Whole rows are encoded at once, because they
// share a scale: `encoded_together` stays 0.
template <>
struct strata::cuda::chunk_reader<row_int8> {
  template <class Block>
  STRATA_DEVICE static void load(Block const&, std::byte const* row, std::byte const* scales,
                                 std::int32_t first, std::int32_t n, bool,
                                 float (&out)[chunk_elements]) {
    float scale;
    std::memcpy(&scale, scales, sizeof scale);
    byte_chunk const bytes(row + first, n - first);
    for (std::int32_t i = 0; i < chunk_elements; ++i)
      out[i] = first + i < n ? static_cast<float>(static_cast<std::int8_t>(bytes[i])) * scale : 0;
  }
};
static_assert(strata::cuda::device_codec<row_int8>);

namespace {

using namespace strata::cuda;
using strata::layer_id;

constexpr std::int32_t q_heads = 4, kv_heads = 2, dim = 48, most_tokens = 64, most_rows = 40;
constexpr std::int32_t steps[] = {most_rows, 1, 1, 7, 1};  // tokens of each

void require(strata::status const& s) {
  if (s.ok()) return;
  std::printf("%s\n", strata::describe(s).c_str());
  std::exit(1);
}
void require(cudaError_t error) {
  if (error == cudaSuccess) return;
  std::printf("%s\n", cudaGetErrorString(error));
  std::exit(1);
}

/// Memory that host and device see.
template <class T>
class managed {
 public:
  explicit managed(std::int64_t count) : count_(static_cast<std::size_t>(count)) {
    require(cudaMallocManaged(&data_, count_ * sizeof(T)));
  }
  managed(managed const&) = delete;
  managed& operator=(managed const&) = delete;
  ~managed() { (void)cudaFree(data_); }
  std::span<T> all() const { return {data_, count_}; }

 private:
  T* data_ = nullptr;
  std::size_t count_;
};

/// What a step brings, and what attention answers.
struct step_rows {
  managed<float> q{most_rows * q_heads * dim}, k{most_rows * kv_heads * dim},
      v{most_rows * kv_heads * dim}, out{most_rows * q_heads * dim};

  void draw(std::minstd_rand& engine) const {
    for (auto const& tensor : {q.all(), k.all(), v.all()})
      for (auto& x : tensor) x = static_cast<float>(engine()) * 0x1p-30f - 1;  // in [-1, 1]
  }
};

/// 3. The step of an engine, as step_mirror.cuh has it.
template <class Server>
void run_on_device(Server& server, std::span<strata::batch_entry const> batch, step_mirror& mirror,
                   basic_attention<> const& attention, cudaStream_t stream, step_rows const& rows) {
  auto step = server.begin(batch);
  require(step.state());
  require(mirror.send(step));
  float const *const k = rows.k.all().data(), *const v = rows.v.all().data();
  require(
      append<row_int8, row_int8>(stream, mirror.k_side(step, {0}, k), mirror.v_side(step, {0}, v)));
  strata::layer_queries<float> const queries{
      .q = rows.q.all().data(), .out = rows.out.all().data(), .q_heads = q_heads};
  auto const asked = mirror.queries(step, {0}, queries);
  auto const view = mirror.view(step, {0});
  require(asked.state());
  require(view.state());
  managed<std::byte> const workspace(attention.workspace_bytes(*asked, *view, 1));
  strata::serial_executor here;
  require(strata::attend(here, attention, *asked, *view, workspace.all()));
  require(cudaStreamSynchronize(stream));
  require(step.commit());
}

/// The same on the host; the greatest difference of what it answers.
template <class Server>
double compare(Server& server, std::span<strata::batch_entry const> batch, step_rows const& rows) {
  auto step = server.begin(batch);
  require(step.state());
  for (auto const& run : step.k_writers({0})) run.store_all(rows.k.all().data());
  for (auto const& run : step.v_writers({0})) run.store_all(rows.v.all().data());
  std::vector<double> const q(rows.q.all().begin(), rows.q.all().end());
  std::vector<double> exact(q.size());
  std::vector<std::byte> workspace(1 << 16);
  strata::layer_queries<double> const queries{
      .q = q.data(), .out = exact.data(), .q_heads = q_heads};
  strata::serial_executor here;
  require(step.attend(here, {0}, queries, workspace));
  double worst = 0;
  auto const count = static_cast<std::size_t>(step.num_rows() * q_heads * dim);
  for (std::size_t i = 0; i < count; ++i) {
    auto const error = std::abs(exact[i] - static_cast<double>(rows.out.all()[i]));
    worst = std::fmax(worst, std::isnan(error) ? INFINITY : error);  // fmax passes NaN by
  }
  require(step.commit());
  return worst;
}

/// The greatest difference of all steps.
double run(cudaStream_t stream) {
  using storage = strata::contiguous_storage<row_int8>;
  auto const model =
      strata::kv_classes::uniform(1, {.kv = {.kv_heads = kv_heads, .k_dim = dim, .v_dim = dim}});
  auto const plan = *strata::make_plan(strata::identity_map(1), model);
  auto const room = strata::contiguous_options::for_plan(plan, 1, most_tokens);
  auto memory = strata::cuda::device_storage<storage>::make(stream, model, room);
  require(memory.state());
  strata::stack device(std::move(*memory), strata::reference_attention{});
  strata::stack host(storage(model, room), strata::reference_attention{});
  auto const id = device.open(plan), same = host.open(plan);
  require(id.state());
  require(same.state());
  auto mirror =
      step_mirror::make({stream}, device.storage(), step_mirror::bytes_for(1, 1, most_rows));
  require(mirror.state());
  // No head_dim has kernels of matrix products for this codec: none is named.
  auto const attention =
      make_attention<basic_attention<>>(stream, {.rows = most_rows, .rows_per_seq = most_rows});
  require(attention.state());
  std::minstd_rand engine(1);
  step_rows const rows;
  double worst = 0;
  for (auto const tokens : steps) {
    rows.draw(engine);
    strata::batch_entry const batch[] = {{*id, tokens, strata::logits::all}};
    run_on_device(device, batch, *mirror, *attention, stream, rows);
    worst = std::fmax(worst, compare(host, batch, rows));
  }
  return worst;
}

}  // namespace

int main() {
  int count = 0;
  if (auto const found = cudaGetDeviceCount(&count); found != cudaSuccess || count == 0) {
    std::printf("skipped: no CUDA device (%s)\n", cudaGetErrorString(found));
    return 77;
  }
  cudaStream_t stream = nullptr;
  require(cudaStreamCreate(&stream));
  auto const worst = run(stream);
  require(cudaStreamDestroy(stream));
  constexpr double bound = 1e-5;  // sums of floats, of values up to 1
  std::printf("off by %.1e at most, where %.0e is allowed\n", worst, bound);
  return worst <= bound ? 0 : 1;
}
