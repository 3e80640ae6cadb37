#include "engine/core/kernel_counter.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <map>
#include <string_view>
#include <utility>

#include "engine/core/trace.h"

namespace kino::engine {
namespace {

// What an operator's schema says of its calls.
struct OperatorKind {
  // It makes memory or changes a tensor's shape, and computes nothing.
  bool is_allocation = false;
  bool is_copy = false;
  std::vector<bool> writes;      // each argument
  std::vector<bool> overwrites;  // without reading it
  bool is_mutable = false;
  // The argument whose last axis a product sums over; -1: it is no product.
  int product_argument = -1;
};

bool StartsWith(std::string_view text, std::string_view prefix) {
  return text.substr(0, prefix.size()) == prefix;
}

OperatorKind KindOf(const at::RecordFunction& function) {
  OperatorKind kind;
  const std::optional<c10::OperatorName> name = function.operator_name();
  if (!name) return kind;
  const std::string_view text = name->name;
  for (const std::string_view prefix : {"aten::empty", "aten::new_empty", "aten::set_"})
    kind.is_allocation = kind.is_allocation || StartsWith(text, prefix);
  kind.is_copy = text == "aten::copy_";
  if (text == "aten::mm" || text == "aten::bmm") kind.product_argument = 0;
  if (text == "aten::addmm" || text == "aten::baddbmm") kind.product_argument = 1;
  const std::optional<c10::OperatorHandle> handle = c10::Dispatcher::singleton().findSchema(*name);
  if (!handle) return kind;
  kind.is_allocation = kind.is_allocation || handle->hasTag(at::Tag::inplace_view);
  const bool fills =
      kind.is_copy || text == "aten::fill_" || text == "aten::zero_" || text == "aten::normal_";
  for (const c10::Argument& argument : handle->schema().arguments()) {
    const bool writes = argument.alias_info() != nullptr && argument.alias_info()->isWrite();
    kind.is_mutable = kind.is_mutable || writes;
    kind.writes.push_back(writes);
    kind.overwrites.push_back(writes && (argument.is_out() || fills));
  }
  return kind;
}

// Of operators that were called before: their names stand where they stood.
const OperatorKind& CachedKindOf(const at::RecordFunction& function) {
  thread_local std::map<std::pair<const char*, const char*>, OperatorKind> kinds;
  const std::pair<const char*, const char*> key(function.name(), function.overload_name());
  const auto found = kinds.find(key);
  if (found != kinds.end()) return found->second;
  return kinds.emplace(key, KindOf(function)).first->second;
}

template <typename Body>
void ForTensors(const c10::IValue& value, const Body& body) {
  if (value.isTensor()) {
    if (value.toTensor().defined()) body(value.toTensor());
  } else if (value.isTensorList()) {
    for (const at::Tensor& each : value.toTensorVector()) {
      if (each.defined()) body(each);
    }
  }
}

// The memory that a tensor stands for.
struct Place {
  explicit Place(const at::Tensor& x)
      : storage(x.storage().unsafeGetStorageImpl()),
        offset(x.storage_offset()),
        bytes(BytesReached(x)) {}
  bool operator==(const Place&) const = default;

  const void* storage;
  int64_t offset;
  double bytes;
};

double SumOfDistinct(std::vector<Place> places) {
  double sum = 0;
  for (auto place = places.begin(); place != places.end(); ++place) {
    if (std::find(places.begin(), place, *place) == place) sum += place->bytes;
  }
  return sum;
}

}  // namespace

// An operator that is under way.
struct KernelCounter::Call final : at::ObserverContext {
  Call* outer = nullptr;
  const OperatorKind* kind = nullptr;
  std::vector<Place> read, written;
  std::vector<const void*> storages;  // of all inputs
  bool touches_host = false;
  bool has_launched = false;  // itself, or what it called
  double product_length = 0;
};

double BytesReached(const at::Tensor& x) {
  if (x.numel() == 0) return 0;
  int64_t elements = 1, extent = 1;
  for (int64_t axis = 0; axis < x.dim(); ++axis) {
    if (x.stride(axis) != 0) elements *= x.size(axis);
    extent += (x.size(axis) - 1) * x.stride(axis);
  }
  return static_cast<double>(std::min(elements, extent)) * static_cast<double>(x.element_size());
}

KernelCounter::KernelCounter()
    : handle_(at::addThreadLocalCallback(at::RecordFunctionCallback(&Enter, &Leave)
                                             .needsInputs(true)
                                             .needsOutputs(true)
                                             .scopes({at::RecordScope::FUNCTION}))) {}

KernelCounter::~KernelCounter() { at::removeCallback(handle_); }

void KernelCounter::Launch(const std::vector<at::Tensor>& read,
                           const std::vector<at::Tensor>& written, double flops) {
  std::vector<Place> from, to;
  for (const at::Tensor& x : read) {
    if (x.defined()) from.emplace_back(x);
  }
  for (const at::Tensor& x : written) to.emplace_back(x);
  Add(SumOfDistinct(std::move(from)), SumOfDistinct(std::move(to)), flops);
}

void KernelCounter::Add(double bytes_read, double bytes_written, double flops) {
  const Roofline roofline;
  counts_.Add(
      {.launches = 1,
       .bytes_read = bytes_read,
       .bytes_written = bytes_written,
       .roofline_seconds = std::max(flops / roofline.flops_per_second,
                                    (bytes_read + bytes_written) / roofline.bytes_per_second)});
  // What calls a kernel of ours is no kernel itself.
  if (innermost_ != nullptr) innermost_->has_launched = true;
}

std::unique_ptr<at::ObserverContext> KernelCounter::Enter(const at::RecordFunction& function) {
  const Trace* const trace = Trace::Current();
  if (trace == nullptr || trace->kernels() == nullptr) return nullptr;
  KernelCounter& counter = *trace->kernels();
  auto call = std::make_unique<Call>();
  call->outer = std::exchange(counter.innermost_, call.get());
  call->kind = &CachedKindOf(function);
  const OperatorKind& kind = *call->kind;
  const c10::ArrayRef<const c10::IValue> inputs = function.inputs();
  for (size_t i = 0; i < inputs.size(); ++i) {
    ForTensors(inputs[i], [&](const at::Tensor& x) {
      if (!x.is_meta()) {
        call->touches_host = true;
        return;
      }
      call->storages.push_back(x.storage().unsafeGetStorageImpl());
      const bool known = i < kind.writes.size();
      if (known && kind.writes[i]) call->written.emplace_back(x);
      if (!known || !kind.overwrites[i]) call->read.emplace_back(x);
      if (static_cast<int>(i) == kind.product_argument && x.dim() > 0)
        call->product_length = static_cast<double>(x.size(-1));
    });
  }
  return call;
}

void KernelCounter::Leave(const at::RecordFunction& function, at::ObserverContext* context) {
  if (context == nullptr) return;
  Call& call = *static_cast<Call*>(context);
  KernelCounter& counter = *Trace::Current()->kernels();
  counter.innermost_ = call.outer;
  if (call.has_launched) {
    if (call.outer != nullptr) call.outer->has_launched = true;
    return;
  }
  const OperatorKind& kind = *call.kind;
  if (kind.is_allocation) return;
  // Copies between host and device, and what is computed on the host.
  if (call.touches_host && (kind.is_copy || call.storages.empty())) return;
  double outputs = 0;
  bool is_view = !kind.is_mutable;
  for (const c10::IValue& output : function.outputs()) {
    ForTensors(output, [&](const at::Tensor& x) {
      if (!x.is_meta()) return;
      outputs += static_cast<double>(x.numel());
      const void* storage = x.storage().unsafeGetStorageImpl();
      if (std::find(call.storages.begin(), call.storages.end(), storage) == call.storages.end())
        is_view = false;
      if (!kind.is_mutable) call.written.emplace_back(x);
    });
  }
  if (outputs == 0 || is_view) return;
  counter.Add(SumOfDistinct(std::move(call.read)), SumOfDistinct(std::move(call.written)),
              2.0 * outputs * call.product_length);
}

void CountKernel(const std::vector<at::Tensor>& read, const std::vector<at::Tensor>& written,
                 double flops) {
  if (const Trace* trace = Trace::Current(); trace != nullptr && trace->kernels() != nullptr)
    trace->kernels()->Launch(read, written, flops);
}

}  // namespace kino::engine
