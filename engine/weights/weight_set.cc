#include "engine/weights/weight_set.h"

#include <ATen/ops/linear.h>
#include <c10/core/ScalarType.h>

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/types/span.h"

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

int64_t Elements(const std::vector<int64_t>& shape) {
  int64_t count = 1;
  for (const int64_t extent : shape) count *= extent;
  return count;
}

}  // namespace

int64_t Weight::bytes() const {
  return Elements(shape) * static_cast<int64_t>(c10::elementSize(dtype));
}

int64_t WeightGroup::bytes() const {
  int64_t sum = 0;
  for (const Weight* weight : weights_) sum += weight->bytes();
  return sum;
}

WeightSet::WeightSet(std::shared_ptr<const Checkpoint> checkpoint, c10::ScalarType dtype,
                     c10::Device device)
    : checkpoint_(std::move(checkpoint)), dtype_(dtype), device_(device) {}

WeightGroup& WeightSet::AddGroup(std::string name) {
  groups_.push_back(std::make_unique<WeightGroup>(std::move(name)));
  return *groups_.back();
}

absl::Status WeightSet::Finish() const {
  std::vector<std::string> unexpected;
  for (const auto& [name, entry] : checkpoint_->tensors()) {
    if (by_name_.contains(name)) continue;
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
  return absl::InvalidArgumentError(absl::StrCat("the weights in '", checkpoint_->folder(),
                                                 "' do not fit the config: ", message));
}

const at::Tensor& WeightRef::get() const {
  if (WeightAudit* audit = set_->audit()) audit->Touch(weight_->name);
  TORCH_CHECK(weight_->value.defined(), "weight '", weight_->name, "' is not on the device");
  return weight_->value;
}

at::Tensor LinearWeight::Apply(const at::Tensor& x) const {
  const at::Tensor& weight = weight_.get();
  if (!bias_) return at::linear(x, weight);
  return at::linear(x, weight, bias_.get());
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

WeightRef WeightScope::Add(const std::string& full_name, std::vector<int64_t> shape) const {
  auto weight = std::make_unique<Weight>();
  weight->name = full_name;
  weight->shape = std::move(shape);
  weight->dtype = dtype_;
  weight->home = set_->checkpoint_->Find(full_name);
  if (weight->home == nullptr) {
    set_->missing_.push_back(full_name);
  } else if (weight->home->shape != weight->shape) {
    set_->misshapen_.push_back(
        absl::StrCat(full_name, " is [", absl::StrJoin(weight->home->shape, ", "), "], expected [",
                     absl::StrJoin(weight->shape, ", "), "]"));
  }
  Weight* added = weight.get();
  set_->by_name_[full_name] = added;
  group_->weights_.push_back(added);
  set_->weights_.push_back(std::move(weight));
  return WeightRef(set_, added);
}

WeightRef WeightScope::Get(std::string_view name, std::vector<int64_t> shape) const {
  return Add(Full(name), std::move(shape));
}

WeightRef WeightScope::GetAny(const std::vector<std::string>& full_names,
                              std::vector<int64_t> shape) const {
  const std::string* found = nullptr;
  for (const std::string& name : full_names) {
    if (set_->checkpoint_->Find(name) == nullptr) continue;
    if (found == nullptr) {
      found = &name;
    } else {
      set_->allowed_prefixes_.push_back(name);
    }
  }
  return Add(found == nullptr ? full_names.front() : *found, std::move(shape));
}

LinearWeight WeightScope::Linear(std::string_view name, int64_t in, int64_t out, bool bias) const {
  const WeightScope scope = Sub(name);
  return LinearWeight(scope.Get("weight", {out, in}),
                      bias ? scope.Get("bias", {out}) : WeightRef());
}

}  // namespace kino::engine
