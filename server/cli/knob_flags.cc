#include "server/cli/knob_flags.h"

#include <cmath>
#include <map>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"

namespace kino::cli {
namespace {

std::string FlagOf(const std::string& knob) { return absl::StrReplaceAll(knob, {{"_", "-"}}); }

// Of all tasks, by name.
std::map<std::string, v1::KnobInfo> KnobsOf(const v1::Model& model) {
  std::map<std::string, v1::KnobInfo> knobs;
  for (const v1::TaskInfo& task : model.tasks()) {
    for (const v1::KnobInfo& knob : task.knobs()) knobs.emplace(knob.name(), knob);
  }
  return knobs;
}

absl::Status BadValue(const KnobFlag& flag, const char* expected) {
  return absl::InvalidArgumentError(
      absl::StrCat("--", flag.first, ": expected ", expected, ", got '", flag.second, "'"));
}

absl::StatusOr<v1::KnobValue> Parse(const KnobFlag& flag, v1::KnobInfo::Type type) {
  v1::KnobValue value;
  double number = 0;
  int64_t integer = 0;
  switch (type) {
    case v1::KnobInfo::INTEGER:
      if (!absl::SimpleAtoi(flag.second, &integer)) return BadValue(flag, "a whole number");
      value.set_integer(integer);
      return value;
    case v1::KnobInfo::NUMBERS:
      for (const std::string& item : std::vector<std::string>(absl::StrSplit(flag.second, ','))) {
        if (!absl::SimpleAtod(item, &number) || !std::isfinite(number))
          return BadValue(flag, "numbers with commas between");
        value.mutable_numbers()->add_values(number);
      }
      return value;
    default:
      if (!absl::SimpleAtod(flag.second, &number) || !std::isfinite(number))
        return BadValue(flag, "a finite number");
      value.set_number(number);
      return value;
  }
}

// Whether the field can hold the value as it is.
bool Holds(const google::protobuf::FieldDescriptor& field, const v1::KnobValue& value) {
  using Field = google::protobuf::FieldDescriptor;
  switch (value.value_case()) {
    case v1::KnobValue::kNumber:
      return !field.is_repeated() && field.cpp_type() == Field::CPPTYPE_DOUBLE;
    case v1::KnobValue::kInteger:
      return !field.is_repeated() && field.cpp_type() == Field::CPPTYPE_INT32 &&
             value.integer() == static_cast<int32_t>(value.integer());
    case v1::KnobValue::kNumbers:
      return field.is_repeated() && field.cpp_type() == Field::CPPTYPE_DOUBLE;
    case v1::KnobValue::VALUE_NOT_SET:
      return false;
  }
  return false;
}

// True: the family's message has a field that holds the value, and it is set.
bool SetField(const std::string& family, const std::string& knob, const v1::KnobValue& value,
              v1::GenerateRequest* request) {
  using Field = google::protobuf::FieldDescriptor;
  const Field* const of_family = request->GetDescriptor()->FindFieldByName(family);
  if (of_family == nullptr || of_family->real_containing_oneof() == nullptr) return false;
  const Field* const field = of_family->message_type()->FindFieldByName(knob);
  if (field == nullptr || !Holds(*field, value)) return false;
  google::protobuf::Message* const message =
      request->GetReflection()->MutableMessage(request, of_family);
  const google::protobuf::Reflection& reflection = *message->GetReflection();
  if (value.has_numbers()) {
    for (const double number : value.numbers().values())
      reflection.AddDouble(message, field, number);
  } else if (value.has_integer()) {
    reflection.SetInt32(message, field, static_cast<int32_t>(value.integer()));
  } else {
    reflection.SetDouble(message, field, value.number());
  }
  return true;
}

}  // namespace

absl::StatusOr<v1::Model> FindModel(Client& client, const std::string& name) {
  auto context = client.UnaryContext();
  v1::Model model;
  if (!name.empty()) {
    v1::GetModelRequest request;
    request.set_name(name);
    const absl::Status status = ToStatus(client.models().GetModel(context.get(), request, &model));
    if (!status.ok()) return status;
    return model;
  }
  v1::ListModelsResponse models;
  const absl::Status status =
      ToStatus(client.models().ListModels(context.get(), v1::ListModelsRequest(), &models));
  if (!status.ok()) return status;
  if (models.models_size() != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("the server has ", models.models_size(),
                     " models; say which with --model, since flags of "
                     "a model's family are given"));
  }
  return models.models(0);
}

absl::Status ApplyKnobs(const v1::Model& model, const std::vector<KnobFlag>& flags,
                        v1::GenerateRequest* request) {
  const std::map<std::string, v1::KnobInfo> knobs = KnobsOf(model);
  for (const KnobFlag& flag : flags) {
    const std::string name = absl::StrReplaceAll(flag.first, {{"-", "_"}});
    const auto found = knobs.find(name);
    if (found == knobs.end()) {
      const std::string own = absl::StrJoin(knobs, ", ", [](std::string* out, const auto& knob) {
        absl::StrAppend(out, "--", FlagOf(knob.first));
      });
      return absl::InvalidArgumentError(absl::StrCat(
          "unknown flag '--", flag.first, "'; model '", model.name(),
          own.empty() ? "' has no flags of its own" : absl::StrCat("' has ", own, " of its own")));
    }
    absl::StatusOr<v1::KnobValue> value = Parse(flag, found->second.type());
    if (!value.ok()) return value.status();
    if (!SetField(model.family(), name, *value, request))
      (*request->mutable_knobs())[name].MergeFrom(*value);
  }
  return absl::OkStatus();
}

std::string KnobHelp(const v1::Model& model) {
  std::string text;
  for (const auto& [name, knob] : KnobsOf(model)) {
    std::string range = absl::StrCat(knob.min(), " to ", knob.max());
    if (knob.has_default_()) {
      absl::StrAppend(&range, ", default ",
                      knob.default_().has_integer() ? absl::StrCat(knob.default_().integer())
                                                    : absl::StrCat(knob.default_().number()));
    }
    absl::StrAppend(&text, "  --", FlagOf(name), "\n      ", knob.help(), " ", range, ".\n");
  }
  return text;
}

}  // namespace kino::cli
