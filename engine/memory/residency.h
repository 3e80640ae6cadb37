// Where a component's weights are. One mechanism for every policy: weight groups entered through a
// guard.
//
// "none": every group is brought to the device by LoadAll and stays. "block:N": groups given to
// AddStream are cut into runs of N that share prefetch + 1 slots on the device; entering one starts
// the copy of the next, in the order the stream is used, first after last. Groups that are in no
// stream stay, as with "none".
//
// Home of the weights is the mapped file: its pages are the page cache's, not ours. On the CPU a
// weight whose dtype is already the file's is used where it lies when resident; a streamed one is
// copied to its slot all the same, so that the CPU runs the code a device runs. Threads: one thread
// enters guards; copies run on one thread of the Residency's own (CPU) or a copy stream (CUDA).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/describe/weight_plan.h"
#include "engine/weights/weight_set.h"

namespace kino::engine {

class CopyEngine;

// The groups of one BlockStack, in the order they are used.
class WeightStream {
 public:
  ~WeightStream();

  // While it lives the group's weights are on the device.
  class Guard {
   public:
    Guard(Guard&& other) noexcept : stream_(other.stream_), run_(other.run_) {
      other.stream_ = nullptr;
    }
    Guard(const Guard&) = delete;
    Guard& operator=(const Guard&) = delete;
    Guard& operator=(Guard&&) = delete;
    ~Guard();

   private:
    friend class WeightStream;
    Guard(WeightStream* stream, int run) : stream_(stream), run_(run) {}
    WeightStream* stream_;
    int run_;
  };

  // Waits for group `index`'s copy if it is under way, makes it if not, and starts the next one's.
  Guard Enter(int index);
  int size() const { return static_cast<int>(groups_.size()); }

 private:
  friend class Residency;
  struct Slot;
  WeightStream(std::vector<WeightGroup*> groups, const ResidencyPolicy& policy, c10::Device device,
               CopyEngine* copies);
  int Runs() const;
  void StartCopy(int run);
  void Leave(int run);

  std::vector<WeightGroup*> groups_;
  ResidencyPolicy policy_;
  c10::Device device_;
  CopyEngine* copies_;
  std::vector<std::unique_ptr<Slot>> slots_;
};

class Residency {
 public:
  Residency(WeightSet& set, const ResidencyPolicy& policy);
  ~Residency();
  // The stream lives as long as the Residency.
  WeightStream* AddStream(std::vector<WeightGroup*> groups);
  // Brings every group that stays to the device. Throws what torch throws.
  void LoadAll();
  const ResidencyPolicy& policy() const { return policy_; }

 private:
  WeightSet& set_;
  ResidencyPolicy policy_;
  std::unique_ptr<CopyEngine> copies_;
  std::vector<std::unique_ptr<WeightStream>> streams_;
};

}  // namespace kino::engine
