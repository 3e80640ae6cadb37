// The copy of a weight slab to the device and the order of it among the device's work: the only
// part of offloading that differs between devices. Threads: said at each function; the compute
// thread is the one that runs the model, the copy thread is CopyEngine's.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

namespace kino::engine {

// A point in the device's work. Nothing on the CPU, where work is done when its call returns; an
// event on CUDA. Whoever gets none, since the call threw, must not let the memory be used again.
class Fence {
 public:
  virtual ~Fence() = default;
};

class Transport {
 public:
  virtual ~Transport() = default;
  // Weights that do not lie in one host slab must be laid out in one first (CUDA: pinned, so that
  // the copy is asynchronous). If not, they are written to the device buffer where they belong.
  virtual bool needs_staging() const = 0;
  // Host memory the copy reads from fast; counted with the host's. Not freed before the copies from
  // it are done. Any thread.
  virtual at::Tensor AllocateHost(int64_t bytes) = 0;
  // All compute work so far. Compute thread. Throws when the device failed.
  virtual std::shared_ptr<const Fence> ComputeFence() = 0;
  // Copies `from` (host) to `to` (device), both uint8 of one size, once `after` is done; the result
  // is the copy. Does not wait for it. Copies are done in the order they are asked for. When it
  // throws, no copy is under way. Copy thread.
  virtual std::shared_ptr<const Fence> Copy(const at::Tensor& to, const at::Tensor& from,
                                            const Fence* after) = 0;
  // Compute work from here on comes after `fence`. Compute thread.
  virtual void ComputeAfter(const Fence& fence) = 0;
  // Blocks until `fence` is done. Copy thread.
  virtual void WaitFor(const Fence& fence) = 0;

  static std::unique_ptr<Transport> Create(c10::Device device);
};

// The CPU's: a copy is a copy. `with_staging` makes it go through host slabs as CUDA's does, for
// tests.
std::unique_ptr<Transport> CreateCpuTransport(bool with_staging);

}  // namespace kino::engine
