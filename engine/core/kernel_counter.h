// Counts the kernels of a network that is traced for a GPU (trace.h).
//
// torch's own operators are seen as torch calls them: one that computes and calls no other that
// does is a launch, which reads its inputs and writes its outputs. Views, allocations and copies
// between host and device are none. Where an operator of ours runs kernels of its own, or others
// than torch would on meta tensors, it says so with CountKernel.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/record_function.h>

#include <memory>
#include <vector>

#include "engine/core/kernel_counts.h"

namespace kino::engine {

// What a thread launches while it lives. One at a time on a thread.
class KernelCounter {
 public:
  KernelCounter();
  ~KernelCounter();
  KernelCounter(const KernelCounter&) = delete;
  KernelCounter& operator=(const KernelCounter&) = delete;

  const KernelCounts& counts() const { return counts_; }
  void Reset() { counts_ = {}; }
  // A launch. A tensor that stands twice in `read` is read once; undefined ones are none.
  void Launch(const std::vector<at::Tensor>& read, const std::vector<at::Tensor>& written,
              double flops);

 private:
  struct Call;
  void Add(double bytes_read, double bytes_written, double flops);
  static std::unique_ptr<at::ObserverContext> Enter(const at::RecordFunction& function);
  static void Leave(const at::RecordFunction& function, at::ObserverContext* context);

  at::CallbackHandle handle_;
  Call* innermost_ = nullptr;
  KernelCounts counts_;
};

// Bytes of memory that `x` reaches: what is repeated by a stride of 0 once.
double BytesReached(const at::Tensor& x);

// One kernel of ours, or of a library behind a door of ours, with `flops` of products. For a trace
// of a GPU, else nothing.
void CountKernel(const std::vector<at::Tensor>& read, const std::vector<at::Tensor>& written,
                 double flops = 0);

}  // namespace kino::engine
