// The parameters of one component: what a model's layers look up, by the checkpoint's own names,
// and where each is now.
//
// Layers are built from a WeightScope and keep WeightRefs; they never see a file, a device or a
// policy. Looking a weight up never fails at once: WeightSet::Finish reports everything missing,
// misshapen and unexpected together. Threads: building and use belong to the engine's thread;
// values are filled by memory/residency.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "engine/core/checkpoint.h"

namespace kino::engine {

class WeightGroup;

// One parameter or buffer.
struct Weight {
  std::string name;  // the checkpoint's
  std::vector<int64_t> shape;
  c10::ScalarType dtype;              // of computation
  const TensorEntry* home = nullptr;  // in the mapped file; nullptr until found
  at::Tensor value;                   // on the compute device; undefined while away
  int64_t bytes() const;              // as computed with
};

// What moves together: a transformer block, what only Prepare needs, the rest.
class WeightGroup {
 public:
  explicit WeightGroup(std::string name) : name_(std::move(name)) {}
  const std::string& name() const { return name_; }
  const std::vector<Weight*>& weights() const { return weights_; }
  int64_t bytes() const;

 private:
  friend class WeightScope;
  std::string name_;
  std::vector<Weight*> weights_;
};

// Names of the weights a piece of code read, for tests that hold a layer to what it may touch.
class WeightAudit {
 public:
  void Touch(const std::string& name) { touched_.insert(name); }
  const absl::flat_hash_set<std::string>& touched() const { return touched_; }

 private:
  absl::flat_hash_set<std::string> touched_;
};

class WeightSet {
 public:
  // `dtype` is what floating-point weights are computed in.
  WeightSet(std::shared_ptr<const Checkpoint> checkpoint, c10::ScalarType dtype,
            c10::Device device);

  WeightGroup& AddGroup(std::string name);
  // INVALID_ARGUMENT with every missing, misshapen and unexpected name (the first 20 of each).
  absl::Status Finish() const;
  // Keys with this prefix may be in the file without being looked up.
  void AllowUnexpected(std::string prefix) { allowed_prefixes_.push_back(std::move(prefix)); }

  const Checkpoint& checkpoint() const { return *checkpoint_; }
  c10::ScalarType dtype() const { return dtype_; }
  c10::Device device() const { return device_; }
  const std::vector<std::unique_ptr<WeightGroup>>& groups() const { return groups_; }
  // While set, every read of a weight is recorded. Nullptr ends it.
  void set_audit(WeightAudit* audit) { audit_ = audit; }
  WeightAudit* audit() const { return audit_; }

 private:
  friend class WeightScope;
  std::shared_ptr<const Checkpoint> checkpoint_;
  c10::ScalarType dtype_;
  c10::Device device_;
  std::vector<std::unique_ptr<WeightGroup>> groups_;
  std::vector<std::unique_ptr<Weight>> weights_;
  absl::flat_hash_map<std::string, Weight*> by_name_;
  std::vector<std::string> missing_;
  std::vector<std::string> misshapen_;
  std::vector<std::string> allowed_prefixes_;
  WeightAudit* audit_ = nullptr;
};

// A parameter as a layer holds it. Cheap to copy; the WeightSet outlives it.
class WeightRef {
 public:
  WeightRef() = default;
  // False for an optional weight the checkpoint does not have.
  explicit operator bool() const { return weight_ != nullptr; }
  // REQUIRES: its group is on the device (a residency guard is held).
  const at::Tensor& get() const;

 private:
  friend class WeightScope;
  WeightRef(const WeightSet* set, const Weight* weight) : set_(set), weight_(weight) {}
  const WeightSet* set_ = nullptr;
  const Weight* weight_ = nullptr;
};

// y = x W^T + b. The one place that knows how a Linear's weight is stored.
class LinearWeight {
 public:
  LinearWeight() = default;
  LinearWeight(WeightRef weight, WeightRef bias) : weight_(weight), bias_(bias) {}
  // x: [..., in] -> [..., out], in x's dtype.
  at::Tensor Apply(const at::Tensor& x) const;

 private:
  WeightRef weight_;
  WeightRef bias_;
};

// A prefix of names, a group and a dtype: where a layer finds its weights.
class WeightScope {
 public:
  WeightScope(WeightSet& set, WeightGroup& group)
      : set_(&set), group_(&group), dtype_(set.dtype()) {}

  WeightScope Sub(std::string_view name) const;
  WeightScope Sub(std::string_view name, int index) const;
  // The same names, moved and counted with another group.
  WeightScope In(WeightGroup& group) const;
  // Weights of this scope are computed in `dtype`, whatever the set's is.
  WeightScope WithDType(c10::ScalarType dtype) const;

  WeightRef Get(std::string_view name, std::vector<int64_t> shape) const;
  // The first of these full names that the checkpoint has; its other names for the same tensor are
  // not unexpected.
  WeightRef GetAny(const std::vector<std::string>& full_names, std::vector<int64_t> shape) const;
  // weight [out, in], and bias [out] if asked for.
  LinearWeight Linear(std::string_view name, int64_t in, int64_t out, bool bias = true) const;
  // The checkpoint has `name` under this scope.
  bool Has(std::string_view name) const;

 private:
  std::string Full(std::string_view name) const;
  WeightRef Add(const std::string& full_name, std::vector<int64_t> shape) const;

  WeightSet* set_;
  WeightGroup* group_;
  std::string prefix_;
  c10::ScalarType dtype_;
};

}  // namespace kino::engine
