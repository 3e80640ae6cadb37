#include "engine/memory/transport.h"

#include <ATen/ops/empty.h>

#ifdef KINO_WITH_CUDA
#include "engine/memory/cuda_transport.h"
#endif

namespace kino::engine {
namespace {

class CpuTransport final : public Transport {
 public:
  explicit CpuTransport(bool with_staging) : with_staging_(with_staging) {}
  bool needs_staging() const override { return with_staging_; }
  at::Tensor AllocateHost(int64_t bytes) override {
    return at::empty({bytes}, at::TensorOptions().dtype(at::kByte));
  }
  std::shared_ptr<const Fence> ComputeFence() override { return done_; }
  std::shared_ptr<const Fence> Copy(const at::Tensor& to, const at::Tensor& from,
                                    const Fence*) override {
    to.copy_(from);
    return done_;
  }
  void ComputeAfter(const Fence&) override {}
  void WaitFor(const Fence&) override {}

 private:
  const bool with_staging_;
  const std::shared_ptr<const Fence> done_ = std::make_shared<Fence>();
};

}  // namespace

std::unique_ptr<Transport> CreateCpuTransport(bool with_staging) {
  return std::make_unique<CpuTransport>(with_staging);
}

std::unique_ptr<Transport> Transport::Create(c10::Device device) {
#ifdef KINO_WITH_CUDA
  if (device.is_cuda()) return CreateCudaTransport(device);
#endif
  TORCH_CHECK(device.is_cpu(), "no weight transport for ", device.str());
  return CreateCpuTransport(/*with_staging=*/false);
}

}  // namespace kino::engine
