// Copies weights from the mapped file to slots while the compute thread works: a thread on the CPU;
// on CUDA a pinned staging buffer and a copy stream, ordered by events alone. Threads: Start, Wait
// and Release are called by the compute thread.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/weights/weight_set.h"

namespace kino::engine {

// One contiguous buffer on the device, and the weights that are laid out in it.
struct SlotCopy {
  at::Tensor buffer;  // uint8 on the compute device
  std::vector<Weight*> weights;
};

class CopyEngine {
 public:
  // A copy under way; 0 is none.
  using Ticket = uint64_t;

  virtual ~CopyEngine() = default;
  // Starts copying every weight into the buffer; its view becomes the weight's value by the time
  // Wait returns.
  virtual Ticket Start(const SlotCopy& copy) = 0;
  // After this the compute thread (on CUDA: its stream) sees the weights. Rethrows what the copy
  // threw.
  virtual void Wait(Ticket ticket) = 0;
  // The compute thread has enqueued its last use of the buffer; a later Start may overwrite it.
  virtual void Release(const SlotCopy& copy) = 0;

  static std::unique_ptr<CopyEngine> Create(c10::Device device);
};

// Bytes each weight of a slot starts at, and the slot's size; starts are aligned to 256.
std::vector<int64_t> SlotOffsets(const std::vector<Weight*>& weights, int64_t* total);
// The checkpoint's tensor in its own dtype, where it lies in the mapped file (a copy if it lies
// misaligned). Never written to.
at::Tensor HomeTensor(const Weight& weight);

}  // namespace kino::engine
