#include "engine/weights/weight_set.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/ones.h>
#include <c10/core/ScalarType.h>

#include <algorithm>
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/types/span.h"
#include "engine/core/torch_types.h"
#include "engine/core/trace.h"
#include "engine/ops/linear.h"
#include "engine/quant/gguf.h"
#include "engine/quant/row_scaled.h"

namespace kino::engine {
namespace {

constexpr size_t kNamesShown = 20;

void AppendNames(std::string& message, const char* what, const std::vector<std::string>& names) {
  if (names.empty()) return;
  absl::StrAppend(
      &message, message.empty() ? "" : "; ", names.size(), " ", what, ": ",
      absl::StrJoin(absl::MakeSpan(names).first(std::min(names.size(), kNamesShown)), ", "),
      names.size() > kNamesShown ? ", ..." : "");
}

// How a file calls the scales of its fp8 weights, when some of the names are such scales; or null.
const char* ScaledFp8Scheme(const std::vector<std::string>& names) {
  const auto has = [&names](const std::vector<std::string>& leaves) {
    return std::any_of(names.begin(), names.end(), [&leaves](const std::string& name) {
      const size_t dot = name.rfind('.');
      return std::find(leaves.begin(), leaves.end(),
                       dot == std::string::npos ? name : name.substr(dot + 1)) != leaves.end();
    });
  };
  if (has({"scaled_fp8", "scale_weight", "scale_input"})) {
    return "ComfyUI's scaled_fp8, with scale_weight";
  }
  if (has({"weight_scale", "weight_scale_inv", "input_scale"})) return "weight_scale";
  return nullptr;
}

int64_t Elements(const std::vector<int64_t>& shape) {
  int64_t count = 1;
  for (const int64_t extent : shape) count *= extent;
  return count;
}

// As diffusers uses re.search with its patterns: a part of the name, or all of it between ^ and $.
bool Matches(const std::string& pattern, std::string_view name) {
  if (pattern.size() >= 2 && pattern.front() == '^' && pattern.back() == '$') {
    return name == std::string_view(pattern).substr(1, pattern.size() - 2);
  }
  return name.find(pattern) != std::string_view::npos;
}

bool MatchesAny(const std::vector<std::string>& patterns, std::string_view name) {
  return std::any_of(patterns.begin(), patterns.end(),
                     [name](const std::string& pattern) { return Matches(pattern, name); });
}

// A stored tensor in the dtype of computation. torch converts float8_e4m3fn on the CPU one value
// after the other; a table, with every value times one, does it several times as fast.
at::Tensor Computed(const at::Tensor& stored, c10::ScalarType dtype) {
  if (!stored.is_cpu() || stored.scalar_type() != c10::ScalarType::Float8_e4m3fn ||
      stored.dim() < 2)
    return stored.to(dtype);
  const at::Tensor rows = stored.flatten(1);
  return DecodeRows(rows, at::ones({rows.size(0)}, at::TensorOptions().dtype(at::kFloat)), 1.0f,
                    dtype)
      .view(stored.sizes());
}

}  // namespace

std::string_view Weight::leaf() const {
  const size_t dot = name.rfind('.');
  return dot == std::string::npos ? std::string_view() : std::string_view(name).substr(0, dot);
}

int64_t Weight::bytes() const {
  int64_t sum = 0;
  for (const PartSpec& part : parts)
    sum += Elements(part.shape) * static_cast<int64_t>(c10::elementSize(part.dtype));
  return sum;
}

WeightSet::WeightSet(std::shared_ptr<const Checkpoint> checkpoint, c10::ScalarType dtype,
                     c10::Device device)
    : checkpoint_(std::move(checkpoint)),
      dtype_(dtype),
      device_(device),
      // diffusers' DEFAULT_SKIP_MODULES_PATTERN (hooks/layerwise_casting.py).
      cast_skips_({"pos_embed", "patch_embed", "norm", "^proj_in$", "^proj_out$"}) {}

void WeightSet::ReadQuantization(const nlohmann::json& config, const std::string& where) {
  absl::StatusOr<std::optional<BitsAndBytesConfig>> read = ReadBitsAndBytesConfig(config, where);
  serialized_status_.Update(read.status());
  if (read.ok()) serialized_ = *read;
}

WeightGroup& WeightSet::AddGroup(std::string name, std::string part) {
  groups_.push_back(std::make_unique<WeightGroup>(std::move(name), std::move(part)));
  return *groups_.back();
}

std::vector<WeightGroup*> WeightSet::AddGroups(const std::string& name, int count,
                                               const std::string& part) {
  std::vector<WeightGroup*> groups;
  for (int i = 0; i < count; ++i) groups.push_back(&AddGroup(absl::StrCat(name, ".", i), part));
  return groups;
}

bool WeightSet::MayCast(const Weight& weight) const {
  return weight.kind != LayerKind::kOther && !MatchesAny(cast_skips_, weight.leaf());
}

bool WeightSet::MayQuantize(const Weight& weight) const {
  return weight.is_matrix && !MatchesAny(quantize_skips_, weight.leaf());
}

void WeightSet::HoldEmpty() {
  for (const std::unique_ptr<Weight>& weight : weights_) {
    weight->format = nullptr;
    weight->value = {at::empty(weight->shape, at::device(device_).dtype(weight->dtype))};
  }
}

absl::Status WeightSet::Finish() const {
  if (!serialized_status_.ok()) return serialized_status_;
  std::vector<std::string> unexpected;
  for (const auto& [name, entry] : checkpoint_->tensors()) {
    if (by_name_.contains(name) || companions_.contains(name)) continue;
    const bool allowed = std::any_of(
        allowed_prefixes_.begin(), allowed_prefixes_.end(),
        [&name = name](const std::string& prefix) { return absl::StartsWith(name, prefix); });
    if (!allowed) unexpected.push_back(name);
  }
  std::string message;
  AppendNames(message, "missing", missing_);
  AppendNames(message, "misshapen", misshapen_);
  AppendNames(message, "unexpected", unexpected);
  if (message.empty()) return absl::OkStatus();
  if (const char* scheme = ScaledFp8Scheme(unexpected); scheme != nullptr) {
    absl::StrAppend(&message, "; these are fp8 weights with scales (", scheme,
                    "), which are not read: take the model in float16, bfloat16 or GGUF");
  }
  return absl::InvalidArgumentError(absl::StrCat("the weights in '", checkpoint_->folder(),
                                                 "' do not fit the config: ", message));
}

PinnedTensor::PinnedTensor(const Weight& weight) : pin_(weight.unit) {
  TORCH_CHECK(!weight.value.empty(), "weight '", weight.name, "' is not on the device");
  if (weight.format != nullptr) {
    tensor_ = weight.format->Decode(weight.value, weight.shape, weight.dtype);
  } else {
    tensor_ = Computed(weight.value.front(), weight.dtype);
  }
}

void WeightRef::Touch() const {
  if (WeightAudit* audit = set_->audit()) audit->Touch(*weight_);
}

PinnedTensor WeightRef::get() const {
  Touch();
  return PinnedTensor(*weight_);
}

at::Tensor WeightRef::OnHost() const {
  const TensorEntry& entry = *weight_->entry;
  const at::Tensor value = at::empty(entry.shape, at::TensorOptions().dtype(ToTorch(entry.dtype)));
  // The file may have it at an odd place.
  std::memcpy(value.mutable_data_ptr(), entry.data, static_cast<size_t>(entry.bytes));
  return value.to(weight_->dtype);
}

at::Tensor LinearWeight::Apply(const at::Tensor& x) const {
  const Weight& weight = *weight_.weight_;
  CountLinear(x.numel() / std::max<int64_t>(weight.shape[1], 1), weight.shape[1], weight.shape[0]);
  if (weight.format == nullptr) {
    const PinnedTensor matrix = weight_.get();
    if (!bias_) return Linear(x, matrix, {});
    return Linear(x, matrix, *bias_.get());
  }
  weight_.Touch();
  const UnitPin pin(weight.unit);
  TORCH_CHECK(!weight.value.empty(), "weight '", weight.name, "' is not on the device");
  if (!bias_) return weight.format->Linear(x, weight.value, weight.shape, {});
  return weight.format->Linear(x, weight.value, weight.shape, *bias_.get());
}

WeightScope WeightScope::Sub(std::string_view name) const {
  WeightScope scope = *this;
  scope.prefix_ = absl::StrCat(prefix_, std::string(name), ".");
  return scope;
}

WeightScope WeightScope::Sub(std::string_view name, int index) const {
  WeightScope scope = *this;
  scope.prefix_ = absl::StrCat(prefix_, std::string(name), ".", index, ".");
  return scope;
}

WeightScope WeightScope::In(WeightGroup& group) const {
  WeightScope scope = *this;
  scope.group_ = &group;
  return scope;
}

WeightScope WeightScope::InOwnGroup() const {
  return In(set_->AddGroup(prefix_.substr(0, prefix_.size() - 1), group_->part()));
}

WeightScope WeightScope::WithDType(c10::ScalarType dtype) const {
  WeightScope scope = *this;
  scope.dtype_ = dtype;
  return scope;
}

std::string WeightScope::Full(std::string_view name) const {
  return absl::StrCat(prefix_, std::string(name));
}

bool WeightScope::Has(std::string_view name) const {
  return set_->checkpoint_->Find(Full(name)) != nullptr;
}

std::vector<int64_t> WeightScope::FindFileForm(Weight& weight) const {
  if (weight.entry->block != GgmlType::kNone) {
    const std::vector<int64_t>& shape = weight.entry->shape;
    const int64_t row =
        shape.back() / GgmlBlockElements(weight.entry->block) * GgmlBlockBytes(weight.entry->block);
    weight.file_format = MakeGgufFormat(weight.entry->block);
    weight.file_parts = {at::from_blob(const_cast<std::byte*>(weight.entry->data),
                                       {weight.entry->bytes / row, row},
                                       at::TensorOptions().dtype(at::kByte))};
    return shape;
  }
  if (!weight.is_matrix || !set_->serialized_) return weight.entry->shape;
  absl::StatusOr<std::optional<SerializedLinear>> read = ReadBitsAndBytesLinear(
      std::string(weight.leaf()),
      [this](const std::string& name) { return set_->checkpoint_->Find(name); },
      *set_->serialized_);
  set_->serialized_status_.Update(read.status());
  if (!read.ok() || !*read) return weight.entry->shape;
  weight.file_format = (*read)->format;
  weight.file_parts = std::move((*read)->parts);
  set_->companions_.insert((*read)->companions.begin(), (*read)->companions.end());
  return (*read)->shape;
}

WeightRef WeightScope::Add(const std::string& full_name, std::vector<int64_t> shape, LayerKind kind,
                           bool is_matrix) const {
  auto weight = std::make_unique<Weight>();
  weight->name = full_name;
  weight->shape = std::move(shape);
  weight->dtype = dtype_;
  weight->kind = kind;
  weight->is_matrix = is_matrix;
  weight->group = group_;
  weight->entry = set_->checkpoint_->Find(full_name);
  std::vector<int64_t> found;
  if (weight->entry != nullptr) found = FindFileForm(*weight);
  if (weight->entry == nullptr) {
    set_->missing_.push_back(full_name);
  } else if (found != weight->shape) {
    set_->misshapen_.push_back(absl::StrCat(full_name, " is [", absl::StrJoin(found, ", "),
                                            "], expected [", absl::StrJoin(weight->shape, ", "),
                                            "]"));
  }
  Weight* added = weight.get();
  set_->by_name_[full_name] = added;
  group_->weights_.push_back(added);
  set_->weights_.push_back(std::move(weight));
  return WeightRef(set_, added);
}

WeightRef WeightScope::Get(std::string_view name, std::vector<int64_t> shape,
                           LayerKind kind) const {
  return Add(Full(name), std::move(shape), kind, /*is_matrix=*/false);
}

WeightAndBias WeightScope::WithBias(const std::vector<int64_t>& shape, LayerKind kind) const {
  return {.weight = Get("weight", shape, kind), .bias = Get("bias", {shape.front()}, kind)};
}

WeightRef WeightScope::GetAny(const std::vector<std::string>& full_names,
                              std::vector<int64_t> shape, LayerKind kind) const {
  const std::string* found = nullptr;
  for (const std::string& name : full_names) {
    if (set_->checkpoint_->Find(name) == nullptr) continue;
    if (found == nullptr) {
      found = &name;
    } else {
      set_->allowed_prefixes_.push_back(name);
    }
  }
  return Add(found == nullptr ? full_names.front() : *found, std::move(shape), kind,
             /*is_matrix=*/false);
}

LinearWeight WeightScope::Linear(std::string_view name, int64_t in, int64_t out, bool bias) const {
  const WeightScope scope = Sub(name);
  return LinearWeight(
      scope.Add(scope.Full("weight"), {out, in}, LayerKind::kLinear, true),
      bias ? scope.Add(scope.Full("bias"), {out}, LayerKind::kLinear, false) : WeightRef());
}

}  // namespace kino::engine
