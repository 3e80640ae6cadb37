// Tracing: a network run on meta tensors, which have shapes and dtypes but no bytes, tells what it
// would hold and compute on a device. While a Trace lives on a thread, that thread's meta tensors
// are counted as that device's allocator would count them, and the operators that decide by the
// device ask the trace instead of the tensor. engine/trace runs whole models so.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include "engine/core/cpu_features.h"
#include "engine/core/kernel_counts.h"

namespace kino::engine {

// The device a network is traced for.
struct ComputeTarget {
  bool is_gpu = false;
  CpuFeatures cpu = {};  // of a CPU
  int threads = 1;       // of a CPU, inside an operator
};
// This process's CPU, with torch's number of threads.
ComputeTarget CpuTarget();

enum class FlopKind { kLinear, kAttention, kConvolution };

// What a trace has counted since it was reset.
struct TraceCounts {
  int64_t device_peak = 0;  // most bytes at a time; on a CPU all of them
  int64_t host_peak = 0;    // on a GPU: beside the device
  int64_t rows = 0;         // most rows that went through one linear layer
  double linear_flops = 0;
  double attention_flops = 0;
  double convolution_flops = 0;
  KernelCounts kernels = {};  // of a GPU
};

class KernelCounter;

class Trace {
 public:
  // Until it ends, the calling thread traces for `target`. REQUIRES: it does not trace already.
  explicit Trace(const ComputeTarget& target);
  ~Trace();
  Trace(const Trace&) = delete;
  Trace& operator=(const Trace&) = delete;

  // The calling thread's; nullptr: none.
  static Trace* Current();
  const ComputeTarget& target() const { return target_; }
  TraceCounts counts() const;
  // Nullptr: of a CPU.
  KernelCounter* kernels() const { return kernels_.get(); }
  // The peaks start again from what is live now, the rest from nothing.
  void Reset();
  void AddFlops(FlopKind kind, double flops);
  void AddRows(int64_t rows);

 private:
  friend class HostScope;
  struct Ledger;
  friend struct MetaAllocator;
  const ComputeTarget target_;
  // Tensors that outlive the trace still count down there.
  std::shared_ptr<Ledger> ledger_;
  std::unique_ptr<KernelCounter> kernels_;
  TraceCounts counts_;
};

// Tensors made while it lives on a tracing thread are the host's.
class HostScope {
 public:
  HostScope();
  ~HostScope();
  HostScope(const HostScope&) = delete;
  HostScope& operator=(const HostScope&) = delete;

 private:
  bool before_ = false;
};

// Where what is on `device` is computed: there, or, for meta tensors, where the thread traces for.
bool RunsOnCpu(c10::Device device);
bool RunsOnGpu(c10::Device device);
inline bool RunsOnCpu(const at::Tensor& x) { return RunsOnCpu(x.device()); }
inline bool RunsOnGpu(const at::Tensor& x) { return RunsOnGpu(x.device()); }
// Of the CPU that it runs on.
const CpuFeatures& CpuOf(const at::Tensor& x);

// For a trace, else nothing.
void CountFlops(FlopKind kind, double flops);
// 2 * rows * in * out of a linear layer, and its rows.
void CountLinear(int64_t rows, int64_t in, int64_t out);

// `x` in host memory in `dtype`: where the host waits for the device, and the only way in which a
// network may make it wait.
at::Tensor ToHost(const at::Tensor& x, c10::ScalarType dtype);
// A tensor of this shape that is made in host memory and then brought to the device, where only its
// shape is wanted (a trace).
at::Tensor EmptyByHost(at::IntArrayRef shape, c10::ScalarType dtype);

}  // namespace kino::engine
