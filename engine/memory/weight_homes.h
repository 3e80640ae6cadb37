// In which form each weight of a component is stored, and where it lies while it is not on the
// device: the mapped checkpoint, host memory, or, where the form is not the checkpoint's, an
// unlinked file. One thread at a time; Fill may run on another while nothing else does.
#pragma once

#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/core/run_context.h"
#include "engine/describe/weight_plan.h"
#include "engine/weights/weight_set.h"

namespace kino::engine {

// Where each part of some weights starts in a slab.
struct SlabLayout {
  struct Place {
    Weight* weight;
    size_t part;
    int64_t offset;
  };
  std::vector<Place> places;
  int64_t bytes = 0;
  // Larger parts first, each at a multiple of 256 bytes.
  static SlabLayout Of(const std::vector<Weight*>& weights);
};

// The part as a tensor in `slab` (uint8).
at::Tensor PartView(const at::Tensor& slab, const SlabLayout::Place& place);

class WeightHomes {
 public:
  explicit WeightHomes(WeightSet& set) : set_(set) {}

  // Chooses every weight's form; what lay in another form is forgotten.
  void ChooseForms(const WeightPlan& plan);
  // Lets all weights lie in the checkpoint, or in a spill file. Throws StatusError (CANCELLED), in
  // front of a weight that is written; then they lie where they lay.
  void MoveToFile(const RunContext& context);
  // Lets a slab's weights lie in `slab` (host memory of the layout's size).
  void MoveToSlab(const SlabLayout& layout, const at::Tensor& slab);
  // Forgets what is not the checkpoint's.
  void Forget();

  // Writes one part in its stored form. host: uint8 of its bytes.
  void Fill(const SlabLayout::Place& place, const at::Tensor& host) const;
  // All parts in their stored form on the host; where they lie if that is possible without a copy.
  std::vector<at::Tensor> Parts(const Weight& weight) const;
  // Where its parts lie in a mapped file, and their bytes; empty when they lie elsewhere.
  std::vector<std::pair<const void*, int64_t>> FileRanges(const Weight& weight) const;
  // Parts would not copy: they lie in a mapped file in their stored form.
  bool IsMapped(const Weight& weight) const;

 private:
  // In the checkpoint's own form; maybe in another dtype than stored.
  at::Tensor Raw(const Weight& weight) const;
  bool IsEncoded(const Weight& weight) const;

  WeightSet& set_;
  // Weights that lie elsewhere than in the checkpoint, in their stored form.
  std::unordered_map<const Weight*, std::vector<at::Tensor>> parts_;
  bool parts_are_mapped_ = false;
};

}  // namespace kino::engine
