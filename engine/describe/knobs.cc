#include "engine/describe/knobs.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/describe/request.h"

namespace kino::engine {
namespace {

// Numbers of one value, in doubles: whole numbers of the API's range are exact.
std::vector<double> NumbersOf(const KnobValue& value) {
  if (const double* number = std::get_if<double>(&value)) return {*number};
  if (const int64_t* integer = std::get_if<int64_t>(&value)) return {static_cast<double>(*integer)};
  return std::get<std::vector<double>>(value);
}

// The value as `type`; absent: it is none.
std::optional<KnobValue> As(KnobType type, const KnobValue& value) {
  const std::vector<double> numbers = NumbersOf(value);
  if (type == KnobType::kNumbers) return numbers;
  if (std::holds_alternative<std::vector<double>>(value)) return std::nullopt;
  if (type == KnobType::kNumber) return numbers[0];
  constexpr double kMost = 1e15;
  if (!(std::abs(numbers[0]) <= kMost) || std::trunc(numbers[0]) != numbers[0]) return std::nullopt;
  return static_cast<int64_t>(numbers[0]);
}

const char* TypeText(KnobType type) {
  switch (type) {
    case KnobType::kNumber:
      return "a number";
    case KnobType::kInteger:
      return "a whole number";
    case KnobType::kNumbers:
      return "a list of numbers";
  }
  return "";
}

const KnobInfo* Find(const std::vector<KnobInfo>& infos, const std::string& name) {
  const auto found = std::find_if(infos.begin(), infos.end(),
                                  [&name](const KnobInfo& info) { return info.name == name; });
  return found == infos.end() ? nullptr : &*found;
}

}  // namespace

Knobs DefaultKnobs(const std::vector<KnobInfo>& infos, const std::string& family, Task task) {
  Knobs knobs{.family = family, .values = {}};
  for (const KnobInfo& info : infos) {
    if (info.fallback && info.IsOf(task))
      knobs.values.emplace(info.name, *As(info.type, KnobValue(*info.fallback)));
  }
  return knobs;
}

void FillKnobs(const std::vector<KnobInfo>& infos, Task task, Knobs& knobs, const Knobs& from) {
  for (const auto& [name, value] : from.values) {
    const KnobInfo* const info = Find(infos, name);
    if (info == nullptr || info->IsOf(task)) knobs.values.emplace(name, value);
  }
}

void CheckKnobs(const std::vector<KnobInfo>& infos, const std::string& family, Task task,
                Knobs& knobs, std::vector<FieldViolation>& violations) {
  if (!knobs.family.empty() && knobs.family != family) {
    violations.push_back({.field = knobs.family,
                          .description = absl::StrCat("this model's family is '", family,
                                                      "'; knobs of another do not apply")});
    return;
  }
  knobs.family = family;
  for (auto& [name, value] : knobs.values) {
    const auto fail = [&, &knob = name](const std::string& description) {
      violations.push_back({.field = absl::StrCat(family, ".", knob), .description = description});
    };
    const KnobInfo* const info = Find(infos, name);
    if (info == nullptr) {
      std::vector<std::string> known;
      for (const KnobInfo& each : infos) {
        if (each.IsOf(task)) known.push_back(each.name);
      }
      fail(
          absl::StrCat(TaskName(task), " has no such option; it has ", absl::StrJoin(known, ", ")));
      continue;
    }
    if (!info->IsOf(task)) {
      fail(absl::StrCat(TaskName(task), " has no such option"));
      continue;
    }
    const std::optional<KnobValue> typed = As(info->type, value);
    const std::vector<double> numbers = NumbersOf(value);
    if (!typed) {
      fail(absl::StrCat("expected ", TypeText(info->type), ", got ", absl::StrJoin(numbers, ", ")));
      continue;
    }
    value = *typed;
    for (size_t i = 0; i < numbers.size(); ++i) {
      if (numbers[i] >= info->low && numbers[i] <= info->high) continue;
      fail(absl::StrCat("expected ", info->low, " to ", info->high, ", got ", numbers[i],
                        info->type == KnobType::kNumbers ? absl::StrCat(" at ", i) : ""));
      break;
    }
  }
}

}  // namespace kino::engine
