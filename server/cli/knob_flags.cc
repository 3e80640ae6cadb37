#include "server/cli/knob_flags.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <set>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"

namespace kino::cli {
namespace {

std::string FlagOf(const std::string& knob) {
  return absl::StrCat("--", absl::StrReplaceAll(knob, {{"_", "-"}}));
}

// Of all tasks, by name.
std::map<std::string, v1::KnobInfo> KnobsOf(const v1::Model& model) {
  std::map<std::string, v1::KnobInfo> knobs;
  for (const v1::TaskInfo& task : model.tasks()) {
    for (const v1::KnobInfo& knob : task.knobs()) knobs.emplace(knob.name(), knob);
  }
  return knobs;
}

// Reads one occurrence into `value`; lists are joined. What was expected, where it is none.
std::string Read(const std::string& text, v1::KnobInfo::Type type, v1::KnobValue* value) {
  const auto read_number = [](const std::string& item, double* number) {
    return absl::SimpleAtod(item, number) && std::isfinite(*number);
  };
  double number = 0;
  int64_t integer = 0;
  switch (type) {
    case v1::KnobInfo::INTEGER:
      if (!absl::SimpleAtoi(text, &integer)) return "a whole number";
      value->set_integer(integer);
      return "";
    case v1::KnobInfo::NUMBERS:
      for (const std::string& item : std::vector<std::string>(absl::StrSplit(text, ','))) {
        if (!read_number(item, &number)) return "numbers with commas between";
        value->mutable_numbers()->add_values(number);
      }
      return "";
    default:
      if (!read_number(text, &number)) return "a finite number";
      value->set_number(number);
      return "";
  }
}

const char* Placeholder(v1::KnobInfo::Type type) {
  if (type == v1::KnobInfo::NUMBERS) return "X,...";
  return type == v1::KnobInfo::INTEGER ? "N" : "X";
}

std::string HelpOf(const v1::KnobInfo& knob) {
  std::string help = absl::StrCat(knob.help(), " ", knob.min(), " to ", knob.max());
  if (knob.has_default_()) {
    absl::StrAppend(&help, ", default ",
                    knob.default_().has_integer() ? absl::StrCat(knob.default_().integer())
                                                  : absl::StrCat(knob.default_().number()));
  }
  return help + ".";
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
  reflection.ClearField(message, field);
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

void KnobFlags::AddPlaceholders(CLI::App& app, std::vector<std::string>* arguments) {
  for (size_t i = 0; i < arguments->size() && (*arguments)[i] != "--"; ++i) {
    std::string& argument = (*arguments)[i];
    if (argument.rfind("--", 0) != 0) continue;
    const size_t name_size = std::min(argument.find('='), argument.size());
    const bool has_value = name_size < argument.size();
    const CLI::Option* option = app.get_option_no_throw(argument.substr(0, name_size));
    if (option == nullptr) {
      const std::string flag = FlagOf(argument.substr(2, name_size - 2));
      argument.replace(0, name_size, flag);
      option = app.get_option_no_throw(flag);
      // CLI11 takes only what begins so for a name.
      const bool is_name = flag.size() > 2 && std::isalpha(static_cast<unsigned char>(flag[2]));
      if (option == nullptr && is_name) {
        option = command_line::AddOption(
            app, flag, [](const std::string&) { return ""; }, "", "");
        placeholders_.push_back(flag);
      }
    }
    // The next argument is this one's value, whatever it looks like.
    if (option != nullptr && option->get_items_expected_min() > 0 && !has_value) ++i;
  }
}

absl::Status KnobFlags::Register(CLI::App& app, const v1::Model& model) {
  const std::map<std::string, v1::KnobInfo> knobs = KnobsOf(model);
  for (const std::string& placeholder : placeholders_) {
    app.remove_option(app.get_option_no_throw(placeholder));
  }
  family_ = model.family();
  values_.clear();
  std::set<std::string> added;
  for (const auto& [name, knob] : knobs) {
    const std::string flag = FlagOf(name);
    if (app.get_option_no_throw(flag) != nullptr) continue;  // an option of every family's
    added.insert(flag);
    const auto read = [this, name = name, type = knob.type()](const std::string& text) {
      return Read(text, type, &values_[name]);
    };
    command_line::AddOption(app, flag, read, Placeholder(knob.type()), HelpOf(knob))
        ->group(absl::StrCat("Options of '", model.name(), "' (", model.family(), ")"))
        ->multi_option_policy(knob.type() == v1::KnobInfo::NUMBERS
                                  ? CLI::MultiOptionPolicy::TakeAll
                                  : CLI::MultiOptionPolicy::TakeLast);
  }
  for (const std::string& placeholder : placeholders_) {
    if (added.count(placeholder) == 1) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("unknown option '", placeholder, "'; model '", model.name(), "' has ",
                     added.empty() ? "none" : absl::StrJoin(added, ", "), " of its own"));
  }
  return absl::OkStatus();
}

void KnobFlags::Apply(v1::GenerateRequest* request) const {
  for (const auto& [name, value] : values_) {
    if (!SetField(family_, name, value, request)) (*request->mutable_knobs())[name] = value;
  }
}

}  // namespace kino::cli
