#include "server/frontend/rpc/request_check.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/unknown_field_set.h"
#include "server/convert/status.h"
#include "server/convert/trace_context.h"
#include "server/frontend/rpc/errors.h"

namespace kino::frontend {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;
using Violations = std::vector<engine::FieldViolation>;

constexpr int kMaxConditions = 16;
constexpr int kMaxLabels = 16;
constexpr size_t kMaxLabelBytes = 128;
constexpr size_t kMaxRequestIdBytes = 128;
constexpr size_t kMaxInlineBytes = 3 << 20;
constexpr int64_t kMaxTimeoutSeconds = int64_t{10} * 365 * 24 * 3600;

// What is told of one request. More would not fit into an error's headers, and a request can be
// made wrong in a million places.
constexpr size_t kMaxViolations = 16;
constexpr size_t kMaxViolationBytes = 256;

// How much a field may hold: bytes of a text, elements of a list or a map. Every text and every
// list has a bound, so that a field which is added later has one, too.
struct Bound {
  const char* field;
  size_t most;
};
constexpr size_t kMaxTextBytes = 1024;
constexpr size_t kMaxElements = 1000;
// Checked elsewhere, against a limit of the configuration or of its own.
constexpr size_t kHasItsOwn = SIZE_MAX;
constexpr Bound kTextBounds[] = {
    {"kino.v1.GenerateRequest.prompt", kHasItsOwn},
    {"kino.v1.GenerateRequest.negative_prompt", kHasItsOwn},
    {"kino.v1.GenerateRequest.request_id", kHasItsOwn},
    {"kino.v1.GenerateRequest.model", 128},
    {"kino.v1.GenerateRequest.tenant", 128},
    {"kino.v1.GenerateRequest.traceparent", 256},
    {"kino.v1.GenerateRequest.KnobsEntry.key", 128},
    {"kino.v1.Condition.asset_id", 128},
    {"kino.v1.Condition.data", kHasItsOwn},
    {"kino.v1.Plan.quantize_skip", 256},
    {"kino.v1.UploadAssetRequest.data", kHasItsOwn},
};
constexpr Bound kListBounds[] = {
    {"kino.v1.GenerateRequest.conditions", kMaxConditions},
    {"kino.v1.GenerateRequest.labels", kMaxLabels},
    {"kino.v1.GenerateRequest.knobs", 64},
    {"kino.v1.Plan.quantize_skip", 64},
    {"kino.v1.ListJobsRequest.states", 16},
    {"kino.v1.ListJobsRequest.labels", kMaxLabels},
    {"kino.v1.CancelJobsRequest.states", 16},
    {"kino.v1.CancelJobsRequest.labels", kMaxLabels},
};

template <size_t N>
size_t BoundOf(const Bound (&bounds)[N], const FieldDescriptor& field, size_t otherwise) {
  for (const Bound& bound : bounds) {
    if (field.full_name() == bound.field) return bound.most;
  }
  return otherwise;
}

// False and a violation: the text is longer than it may be.
bool CheckTextBound(const std::string& text, const FieldDescriptor& field, const std::string& path,
                    Violations& violations) {
  const size_t most = BoundOf(kTextBounds, field, kMaxTextBytes);
  if (text.size() <= most) return true;
  violations.push_back(
      {path, absl::StrCat("expected at most ", most, " bytes, got ", text.size())});
  return false;
}

// Each of these is false where a bound was passed.

bool CheckValue(const Message& message, const FieldDescriptor* field, int index,
                const std::string& path, Violations& violations) {
  const Reflection* reflection = message.GetReflection();
  const bool is_repeated = field->is_repeated();
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return CheckKnown(is_repeated ? reflection->GetRepeatedMessage(message, field, index)
                                    : reflection->GetMessage(message, field),
                        path, violations);
    case FieldDescriptor::CPPTYPE_STRING: {
      std::string scratch;
      const std::string& text =
          is_repeated ? reflection->GetRepeatedStringReference(message, field, index, &scratch)
                      : reflection->GetStringReference(message, field, &scratch);
      return CheckTextBound(text, *field, path, violations);
    }
    case FieldDescriptor::CPPTYPE_ENUM: {
      const int value = is_repeated ? reflection->GetRepeatedEnumValue(message, field, index)
                                    : reflection->GetEnumValue(message, field);
      if (field->enum_type()->FindValueByNumber(value) == nullptr) {
        violations.push_back({path, absl::StrCat("expected a value of ", field->enum_type()->name(),
                                                 ", got ", value)});
      }
      break;
    }
    case FieldDescriptor::CPPTYPE_DOUBLE: {
      const double value = is_repeated ? reflection->GetRepeatedDouble(message, field, index)
                                       : reflection->GetDouble(message, field);
      if (!std::isfinite(value)) {
        violations.push_back({path, absl::StrCat("expected a finite number, got ", value)});
      }
      break;
    }
    default:
      break;
  }
  return true;
}

void CheckUnknownFields(const Message& message, const std::string& path, Violations& violations) {
  const google::protobuf::UnknownFieldSet& unknown =
      message.GetReflection()->GetUnknownFields(message);
  for (int i = 0; i < unknown.field_count() && violations.size() < kMaxViolations; ++i) {
    const std::string number = absl::StrCat("field ", unknown.field(i).number());
    violations.push_back({path.empty() ? number : absl::StrCat(path, ".", number),
                          "this server does not know this field"});
  }
}

bool CheckField(const Message& message, const FieldDescriptor* field, const std::string& path,
                Violations& violations) {
  const std::string name = path.empty() ? field->name() : absl::StrCat(path, ".", field->name());
  if (!field->is_repeated()) return CheckValue(message, field, -1, name, violations);
  const int size = message.GetReflection()->FieldSize(message, field);
  const size_t most = BoundOf(kListBounds, *field, kMaxElements);
  if (static_cast<size_t>(size) > most) {
    violations.push_back({name, absl::StrCat("expected at most ", most, ", got ", size)});
    return false;
  }
  bool is_bounded = true;
  for (int i = 0; i < size && violations.size() < kMaxViolations; ++i) {
    is_bounded &= CheckValue(message, field, i, absl::StrCat(name, "[", i, "]"), violations);
  }
  return is_bounded;
}

bool IsPrintableAscii(const std::string& text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c >= 0x20 && c <= 0x7e; });
}

bool IsLabelKey(const std::string& key) {
  return !key.empty() && key.size() <= kMaxLabelBytes &&
         std::all_of(key.begin(), key.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
                  c == '-';
         });
}

void CheckTimeout(bool is_set, const google::protobuf::Duration& duration, const std::string& field,
                  Violations& violations) {
  if (!is_set) return;
  const bool is_positive = duration.seconds() >= 0 && duration.nanos() >= 0 &&
                           (duration.seconds() > 0 || duration.nanos() > 0);
  if (!is_positive || duration.seconds() > kMaxTimeoutSeconds || duration.nanos() > 999'999'999) {
    violations.push_back(
        {field, absl::StrCat("expected a time above 0 and at most ten years, got ",
                             duration.seconds(), " s and ", duration.nanos(), " ns")});
  }
}

void CheckPrompt(const std::string& text, const std::string& field, int64_t max_bytes,
                 Violations& violations) {
  if (static_cast<int64_t>(text.size()) > max_bytes) {
    violations.push_back(
        {field, absl::StrCat("expected at most ", max_bytes, " bytes, got ", text.size())});
  }
}

void CheckConditions(const v1::GenerateRequest& request, Violations& violations) {
  for (int i = 0; i < request.conditions_size(); ++i) {
    const v1::Condition& condition = request.conditions(i);
    const std::string field = absl::StrCat("conditions[", i, "]");
    if (condition.has_path()) {
      violations.push_back({field + ".path",
                            "the server reads no local files; upload the file (UploadAsset) or "
                            "send its bytes in 'data'"});
    }
    if (condition.has_data() && condition.data().empty()) {
      violations.push_back({field + ".data", "expected the bytes of a file, got none"});
    }
    if (condition.has_data() && condition.data().size() > kMaxInlineBytes) {
      violations.push_back(
          {field + ".data", absl::StrCat("expected at most ", kMaxInlineBytes, " bytes, got ",
                                         condition.data().size(), "; use UploadAsset")});
    }
  }
}

}  // namespace

bool CheckKnown(const Message& message, const std::string& path, Violations& violations) {
  CheckUnknownFields(message, path, violations);
  std::vector<const FieldDescriptor*> fields;
  message.GetReflection()->ListFields(message, &fields);
  bool is_bounded = true;
  for (const FieldDescriptor* field : fields) {
    is_bounded &= CheckField(message, field, path, violations);
  }
  return is_bounded;
}

absl::Status CheckEnvelope(const Message& message) {
  Violations violations;
  CheckUnknownFields(message, "", violations);
  std::vector<const FieldDescriptor*> fields;
  message.GetReflection()->ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    if (field->message_type() == v1::GenerateRequest::descriptor()) continue;
    CheckField(message, field, "", violations);
  }
  return convert::InvalidRequest(WithoutRepeats(std::move(violations)));
}

void CheckServerFields(const v1::GenerateRequest& request, const config::LimitsConfig& limits,
                       Violations& violations) {
  CheckPrompt(request.prompt(), "prompt", limits.max_prompt_bytes, violations);
  CheckPrompt(request.negative_prompt(), "negative_prompt", limits.max_prompt_bytes, violations);
  if (request.request_id().size() > kMaxRequestIdBytes || !IsPrintableAscii(request.request_id())) {
    violations.push_back({"request_id", absl::StrCat("expected at most ", kMaxRequestIdBytes,
                                                     " printable ASCII characters, got ",
                                                     request.request_id().size(), " bytes")});
  }
  if (!request.traceparent().empty() && !convert::IsTraceparent(request.traceparent())) {
    violations.push_back({"traceparent",
                          "expected a W3C traceparent, 00-TRACE-PARENT-FLAGS in lower-case "
                          "hexadecimal"});
  }
  for (const auto& [key, value] : request.labels()) {
    if (!IsLabelKey(key)) {
      violations.push_back({"labels", "a key is 1 to 128 characters of [a-z0-9._-]"});
    } else if (value.size() > kMaxLabelBytes || value.find('\0') != std::string::npos) {
      violations.push_back(
          {absl::StrCat("labels.", key), absl::StrCat("expected at most ", kMaxLabelBytes,
                                                      " bytes without NUL, got ", value.size())});
    }
  }
  CheckTimeout(request.has_start_timeout(), request.start_timeout(), "start_timeout", violations);
  CheckTimeout(request.has_run_timeout(), request.run_timeout(), "run_timeout", violations);
  CheckTimeout(request.has_result_ttl(), request.result_ttl(), "result_ttl", violations);
  CheckConditions(request, violations);
}

Violations WithoutRepeats(Violations violations) {
  std::set<std::string> seen;
  std::erase_if(violations, [&](const engine::FieldViolation& violation) {
    return !seen.insert(violation.field).second;
  });
  if (violations.size() > kMaxViolations) violations.resize(kMaxViolations);
  for (engine::FieldViolation& violation : violations) {
    violation.field = CutText(violation.field, kMaxViolationBytes);
    violation.description = CutText(violation.description, kMaxViolationBytes);
  }
  return violations;
}

}  // namespace kino::frontend
