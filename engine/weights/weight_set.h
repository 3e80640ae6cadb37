// The parameters of one component: what a model's layers look up, by the checkpoint's own names,
// and how each is held.
//
// Layers are built from a WeightScope and keep WeightRefs; they never see a file, a device, a
// policy or a format. Looking a weight up never fails at once: WeightSet::Finish reports everything
// missing, misshapen and unexpected together. Threads: building and use belong to the engine's
// thread; values are filled by memory/residency.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "engine/core/checkpoint.h"
#include "engine/quant/bitsandbytes_checkpoint.h"
#include "engine/quant/weight_format.h"
#include "nlohmann/json.hpp"

namespace kino::engine {

class WeightGroup;

// What the layers of a checkpoint are to diffusers and torch; casting and quantization go by it.
enum class LayerKind { kLinear, kConvolution, kEmbedding, kOther };

// Weights that are brought to the device together. memory/residency makes them.
class WeightUnit {
 public:
  virtual ~WeightUnit() = default;
  // Brings the unit's weights to the device, and keeps them there until as many calls of Unpin.
  virtual void Pin() = 0;
  virtual void Unpin() noexcept = 0;
};

// Holds a unit on the device while it lives; no unit is nothing to hold.
class UnitPin {
 public:
  explicit UnitPin(WeightUnit* unit) : unit_(unit) {
    if (unit_ != nullptr) unit_->Pin();
  }
  UnitPin(UnitPin&& other) noexcept : unit_(std::exchange(other.unit_, nullptr)) {}
  UnitPin(const UnitPin&) = delete;
  UnitPin& operator=(const UnitPin&) = delete;
  UnitPin& operator=(UnitPin&&) = delete;
  ~UnitPin() {
    if (unit_ != nullptr) unit_->Unpin();
  }

 private:
  WeightUnit* unit_;
};

// One parameter or buffer.
struct Weight {
  std::string name;  // the checkpoint's
  std::vector<int64_t> shape;
  c10::ScalarType dtype = c10::ScalarType::Undefined;  // of computation
  LayerKind kind = LayerKind::kOther;
  bool is_matrix = false;  // a linear layer's: may be quantized
  const WeightGroup* group = nullptr;
  const TensorEntry* entry = nullptr;  // in the mapped file; nullptr until found
  // The layer it belongs to: its name without the last part.
  std::string_view leaf() const;

  // The form the checkpoint has it in when that is none of torch's dtypes, and the tensors of it
  // there.
  std::shared_ptr<const WeightFormat> file_format;
  std::vector<at::Tensor> file_parts;

  // How it is held; memory/residency's. No format: one tensor of `stored_dtype`.
  std::shared_ptr<const WeightFormat> format;
  c10::ScalarType stored_dtype = c10::ScalarType::Undefined;
  std::vector<PartSpec> parts;
  std::vector<at::Tensor> value;  // on the compute device; empty while away
  WeightUnit* unit = nullptr;     // nullptr: it stays on the device
  int64_t bytes() const;          // of all parts
};

// Weights a family wants to move together: a transformer block, what only Prepare needs, the rest.
class WeightGroup {
 public:
  WeightGroup(std::string name, std::string part)
      : name_(std::move(name)), part_(std::move(part)) {}
  const std::string& name() const { return name_; }
  // Groups of one part are used in the same stage of a run ("encoder", "decoder" of a VAE).
  const std::string& part() const { return part_; }
  const std::vector<Weight*>& weights() const { return weights_; }
  // That all of the group is in, if there is one; memory/residency's.
  WeightUnit* unit() const { return unit_; }
  void set_unit(WeightUnit* unit) { unit_ = unit; }

 private:
  friend class WeightScope;
  std::string name_;
  std::string part_;
  std::vector<Weight*> weights_;
  WeightUnit* unit_ = nullptr;
};

// Is told of every weight that is read: to a trace it says which phase a run is in, and tests hold
// a layer to what it may touch.
class WeightAudit {
 public:
  virtual ~WeightAudit() = default;
  virtual void Touch(const Weight& weight) = 0;
};

class WeightSet {
 public:
  // `dtype` is what floating-point weights are computed in.
  WeightSet(std::shared_ptr<const Checkpoint> checkpoint, c10::ScalarType dtype,
            c10::Device device);

  // Linear layers that the checkpoint holds quantized, as its config.json says, are looked up as
  // such. Before any is; Finish reports what is wrong with it. `where` names the file.
  void ReadQuantization(const nlohmann::json& config, const std::string& where);

  WeightGroup& AddGroup(std::string name, std::string part = "");
  // One for each of a stack of blocks: NAME.0, NAME.1, ...
  std::vector<WeightGroup*> AddGroups(const std::string& name, int count,
                                      const std::string& part = "");
  // INVALID_ARGUMENT with every missing, misshapen and unexpected name (the first 20 of each).
  absl::Status Finish() const;
  // Keys with this prefix may be in the file without being looked up.
  void AllowUnexpected(std::string prefix) { allowed_prefixes_.push_back(std::move(prefix)); }
  // Layers that layerwise casting leaves alone, as diffusers' _skip_layerwise_casting_patterns: a
  // part of the layer's name, or all of it between ^ and $.
  void SkipCasting(std::string_view pattern) { cast_skips_.emplace_back(pattern); }
  // Linear layers that stay unquantized: a part of the layer's name.
  void SkipQuantizing(std::string_view pattern) { quantize_skips_.emplace_back(pattern); }
  bool MayCast(const Weight& weight) const;
  bool MayQuantize(const Weight& weight) const;

  const Checkpoint& checkpoint() const { return *checkpoint_; }
  c10::ScalarType dtype() const { return dtype_; }
  c10::Device device() const { return device_; }
  const std::vector<std::unique_ptr<WeightGroup>>& groups() const { return groups_; }
  const std::vector<std::unique_ptr<Weight>>& weights() const { return weights_; }
  // On the meta device: holds every weight as an empty tensor in the dtype of computation, so that
  // the network can be traced (core/trace.h).
  void HoldEmpty();
  // While set, it is told of every read of a weight. Nullptr ends it.
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
  std::optional<BitsAndBytesConfig> serialized_;
  absl::Status serialized_status_;               // the first that is not OK
  absl::flat_hash_set<std::string> companions_;  // tensors that belong to quantized ones
  std::vector<std::string> missing_;
  std::vector<std::string> misshapen_;
  std::vector<std::string> allowed_prefixes_;
  std::vector<std::string> cast_skips_;
  std::vector<std::string> quantize_skips_;
  WeightAudit* audit_ = nullptr;
};

// A weight in its compute dtype, on the device. It is valid while this lives, no longer: use it in
// the expression that got it. Two of different layers at a time need two slots of the device, which
// a plan may not give.
class PinnedTensor {
 public:
  explicit PinnedTensor(const Weight& weight);
  operator const at::Tensor&() const { return tensor_; }  // NOLINT: stands in for the tensor
  const at::Tensor& operator*() const { return tensor_; }
  const at::Tensor* operator->() const { return &tensor_; }

 private:
  UnitPin pin_;
  at::Tensor tensor_;
};

// A parameter as a layer holds it. Cheap to copy; the WeightSet outlives it.
class WeightRef {
 public:
  WeightRef() = default;
  // False for an optional weight the checkpoint does not have.
  explicit operator bool() const { return weight_ != nullptr; }
  PinnedTensor get() const;
  // Read from the file, in the dtype of computation: a little one that is wanted where the rest of
  // its component is not. REQUIRES: the file has it in one of torch's dtypes.
  at::Tensor OnHost() const;

 private:
  friend class WeightScope;
  friend class LinearWeight;
  WeightRef(const WeightSet* set, const Weight* weight) : set_(set), weight_(weight) {}
  void Touch() const;
  const WeightSet* set_ = nullptr;
  const Weight* weight_ = nullptr;
};

// A weight and the bias that goes with it: of a norm, a convolution.
struct WeightAndBias {
  WeightRef weight, bias;
};

// y = x W^T + b. The one place that knows how a linear layer's weight is stored.
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
  // With a group of their own, named by their prefix, of this one's part.
  WeightScope InOwnGroup() const;
  // Weights of this scope are computed in `dtype`, whatever the set's is.
  WeightScope WithDType(c10::ScalarType dtype) const;

  WeightRef Get(std::string_view name, std::vector<int64_t> shape,
                LayerKind kind = LayerKind::kOther) const;
  // "weight" of this shape and "bias" of its first extent.
  WeightAndBias WithBias(const std::vector<int64_t>& shape,
                         LayerKind kind = LayerKind::kOther) const;
  // The first of these full names that the checkpoint has; its other names for the same tensor are
  // not unexpected.
  WeightRef GetAny(const std::vector<std::string>& full_names, std::vector<int64_t> shape,
                   LayerKind kind = LayerKind::kOther) const;
  // weight [out, in], and bias [out] if asked for.
  LinearWeight Linear(std::string_view name, int64_t in, int64_t out, bool bias = true) const;
  // The checkpoint has `name` under this scope.
  bool Has(std::string_view name) const;

 private:
  std::string Full(std::string_view name) const;
  WeightRef Add(const std::string& full_name, std::vector<int64_t> shape, LayerKind kind,
                bool is_matrix) const;
  // Sets how the checkpoint holds it; gives the shape it has there.
  std::vector<int64_t> FindFileForm(Weight& weight) const;

  WeightSet* set_;
  WeightGroup* group_;
  std::string prefix_;
  c10::ScalarType dtype_;
};

}  // namespace kino::engine
