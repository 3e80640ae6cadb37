#include "engine/core/trace.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <c10/core/Allocator.h>

#include <algorithm>
#include <mutex>
#include <utility>

#include "engine/core/kernel_counter.h"

namespace kino::engine {

struct Trace::Ledger {
  // Bytes by side: the device's, the host's.
  int64_t live[2] = {0, 0};
  int64_t peak[2] = {0, 0};
  bool is_gpu = false;
  bool on_host = false;  // what is allocated now

  int64_t Rounded(int64_t bytes, bool host) const {
    // CUDA's caching allocator hands out multiples of 512 bytes, malloc of 16.
    const int64_t unit = is_gpu && !host ? 512 : 16;
    return (bytes + unit - 1) / unit * unit;
  }
  void Add(int side, int64_t bytes) {
    live[side] += bytes;
    peak[side] = std::max(peak[side], live[side]);
  }
};

namespace {

thread_local Trace* current = nullptr;

}  // namespace

// Every meta tensor of the process is allocated here; those of threads that trace are counted.
struct MetaAllocator final : public c10::Allocator {
  struct Block {
    std::shared_ptr<Trace::Ledger> ledger;
    int side;
    int64_t bytes;
  };
  c10::DataPtr allocate(size_t bytes) override {
    const c10::Device meta(c10::DeviceType::Meta);
    if (current == nullptr) return {nullptr, meta};
    const std::shared_ptr<Trace::Ledger>& ledger = current->ledger_;
    const bool on_host = ledger->is_gpu && ledger->on_host;
    auto* block =
        new Block{ledger, on_host ? 1 : 0, ledger->Rounded(static_cast<int64_t>(bytes), on_host)};
    ledger->Add(block->side, block->bytes);
    return {nullptr, block, &Free, meta};
  }
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void*, const void*, size_t) const override {}

  static void Free(void* context) {
    const std::unique_ptr<Block> block(static_cast<Block*>(context));
    block->ledger->Add(block->side, -block->bytes);
  }
};

ComputeTarget CpuTarget() {
  return {.is_gpu = false, .cpu = ThisCpu(), .threads = at::get_num_threads()};
}

Trace::Trace(const ComputeTarget& target) : target_(target), ledger_(std::make_shared<Ledger>()) {
  TORCH_CHECK(current == nullptr, "this thread traces already");
  static std::once_flag once;
  std::call_once(once, [] {
    static MetaAllocator allocator;
    c10::SetAllocator(c10::DeviceType::Meta, &allocator, /*priority=*/1);
  });
  ledger_->is_gpu = target.is_gpu;
  if (target.is_gpu) kernels_ = std::make_unique<KernelCounter>();
  current = this;
}

Trace::~Trace() { current = nullptr; }

Trace* Trace::Current() { return current; }

TraceCounts Trace::counts() const {
  TraceCounts counts = counts_;
  counts.device_peak = ledger_->peak[0];
  counts.host_peak = ledger_->peak[1];
  if (kernels_ != nullptr) counts.kernels = kernels_->counts();
  return counts;
}

void Trace::Reset() {
  counts_ = {};
  if (kernels_ != nullptr) kernels_->Reset();
  for (int side = 0; side < 2; ++side) ledger_->peak[side] = ledger_->live[side];
}

void Trace::AddFlops(FlopKind kind, double flops) {
  double& sum = kind == FlopKind::kLinear      ? counts_.linear_flops
                : kind == FlopKind::kAttention ? counts_.attention_flops
                                               : counts_.convolution_flops;
  sum += flops;
}

void Trace::AddRows(int64_t rows) { counts_.rows = std::max(counts_.rows, rows); }

HostScope::HostScope() {
  if (current != nullptr) before_ = std::exchange(current->ledger_->on_host, true);
}

HostScope::~HostScope() {
  if (current != nullptr) current->ledger_->on_host = before_;
}

bool RunsOnCpu(c10::Device device) {
  return device.is_cpu() || (device.is_meta() && current != nullptr && !current->target().is_gpu);
}

bool RunsOnGpu(c10::Device device) {
  return device.is_cuda() || (device.is_meta() && current != nullptr && current->target().is_gpu);
}

const CpuFeatures& CpuOf(const at::Tensor& x) {
  return x.is_meta() && current != nullptr ? current->target().cpu : ThisCpu();
}

void CountFlops(FlopKind kind, double flops) {
  if (current != nullptr) current->AddFlops(kind, flops);
}

void CountLinear(int64_t rows, int64_t in, int64_t out) {
  if (current == nullptr) return;
  current->AddRows(rows);
  current->AddFlops(FlopKind::kLinear, 2.0 * static_cast<double>(rows) * static_cast<double>(in) *
                                           static_cast<double>(out));
}

at::Tensor ToHost(const at::Tensor& x, c10::ScalarType dtype) {
  if (!x.is_meta()) return x.to(at::kCPU, dtype);
  if (RunsOnCpu(x)) return x.to(dtype);
  // The device converts it, and makes it dense, before it is copied.
  const HostScope host;
  at::Tensor on_host = at::empty(x.sizes(), x.options().dtype(dtype));
  if (x.scalar_type() != dtype || !x.is_contiguous()) CountKernel({x}, {on_host});
  return on_host;
}

at::Tensor EmptyByHost(at::IntArrayRef shape, c10::ScalarType dtype) {
  const auto options = at::TensorOptions().device(at::kMeta).dtype(dtype);
  if (current == nullptr || !current->target().is_gpu) return at::empty(shape, options);
  at::Tensor made;
  {
    const HostScope host;
    made = at::empty(shape, options);
  }
  return at::empty(shape, options);
}

}  // namespace kino::engine
