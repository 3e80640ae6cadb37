#include "server/flags/flags.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace kino::flags {
namespace {

constexpr size_t kHelpColumn = 30;
constexpr size_t kHelpWidth = 100;

absl::Status BadValue(const std::string& name, const char* expected, const std::string& got) {
  return absl::InvalidArgumentError(
      absl::StrCat("--", name, ": expected ", expected, ", got '", got, "'"));
}

// Appends `text` wrapped to kHelpWidth, each line but the first indented to `column`.
void AppendWrapped(std::string* out, const std::string& text, size_t column) {
  size_t at = column;
  bool first = true;
  for (const std::string& word :
       std::vector<std::string>(absl::StrSplit(text, ' ', absl::SkipEmpty()))) {
    if (!first && at + 1 + word.size() > kHelpWidth) {
      absl::StrAppend(out, "\n", std::string(column, ' '));
      at = column;
      first = true;
    }
    absl::StrAppend(out, first ? "" : " ", word);
    at += word.size() + (first ? 0 : 1);
    first = false;
  }
  absl::StrAppend(out, "\n");
}

}  // namespace

FlagSet::FlagSet(std::string usage, std::string text, std::string epilogue)
    : usage_(std::move(usage)), text_(std::move(text)), epilogue_(std::move(epilogue)) {}

void FlagSet::AddCustom(const std::string& name,
                        std::function<absl::Status(const std::string&)> set,
                        std::string placeholder, std::string help) {
  flags_.push_back({name, std::move(placeholder), std::move(help), true, std::move(set)});
}

void FlagSet::Add(const std::string& name, std::string* value, std::string placeholder,
                  std::string help) {
  AddCustom(
      name,
      [value](const std::string& text) {
        *value = text;
        return absl::OkStatus();
      },
      std::move(placeholder), std::move(help));
}

void FlagSet::Add(const std::string& name, std::optional<std::string>* value,
                  std::string placeholder, std::string help) {
  AddCustom(
      name,
      [value](const std::string& text) {
        *value = text;
        return absl::OkStatus();
      },
      std::move(placeholder), std::move(help));
}

void FlagSet::Add(const std::string& name, int* value, std::string placeholder, std::string help) {
  AddCustom(
      name,
      [name, value](const std::string& text) {
        return absl::SimpleAtoi(text, value) ? absl::OkStatus()
                                             : BadValue(name, "a whole number", text);
      },
      std::move(placeholder), std::move(help));
}

void FlagSet::Add(const std::string& name, std::optional<int>* value, std::string placeholder,
                  std::string help) {
  AddCustom(
      name,
      [name, value](const std::string& text) {
        int parsed = 0;
        if (!absl::SimpleAtoi(text, &parsed)) return BadValue(name, "a whole number", text);
        *value = parsed;
        return absl::OkStatus();
      },
      std::move(placeholder), std::move(help));
}

void FlagSet::Add(const std::string& name, std::optional<uint64_t>* value, std::string placeholder,
                  std::string help) {
  AddCustom(
      name,
      [name, value](const std::string& text) {
        uint64_t parsed = 0;
        if (!absl::SimpleAtoi(text, &parsed)) {
          return BadValue(name, "a whole number of 64 bits, not negative", text);
        }
        *value = parsed;
        return absl::OkStatus();
      },
      std::move(placeholder), std::move(help));
}

void FlagSet::Add(const std::string& name, std::optional<double>* value, std::string placeholder,
                  std::string help) {
  AddCustom(
      name,
      [name, value](const std::string& text) {
        double parsed = 0;
        if (!absl::SimpleAtod(text, &parsed) || !std::isfinite(parsed)) {
          return BadValue(name, "a finite number", text);
        }
        *value = parsed;
        return absl::OkStatus();
      },
      std::move(placeholder), std::move(help));
}

void FlagSet::Add(const std::string& name, std::vector<std::string>* values,
                  std::string placeholder, std::string help) {
  AddCustom(
      name,
      [values](const std::string& text) {
        values->push_back(text);
        return absl::OkStatus();
      },
      std::move(placeholder), std::move(help));
}

void FlagSet::AddSwitch(const std::string& name, bool* value, std::string help) {
  flags_.push_back({name, "", std::move(help), false, [value](const std::string&) {
                      *value = true;
                      return absl::OkStatus();
                    }});
}

void FlagSet::AddPositional(std::vector<std::string>* values, size_t max_count) {
  positional_ = values;
  max_positional_ = max_count;
}

void FlagSet::CollectUnknown(std::vector<std::pair<std::string, std::string>>* values) {
  unknown_ = values;
}

const FlagSet::Flag* FlagSet::Find(const std::string& name) const {
  auto found = std::find_if(flags_.begin(), flags_.end(),
                            [&](const Flag& flag) { return flag.name == name; });
  return found == flags_.end() ? nullptr : &*found;
}

absl::Status FlagSet::Parse(const std::vector<std::string>& arguments) const {
  bool only_positional = false;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    if (!only_positional && argument == "--") {
      only_positional = true;
      continue;
    }
    if (only_positional || argument.rfind("--", 0) != 0) {
      if (!only_positional && argument.size() > 1 && argument[0] == '-') {
        return absl::InvalidArgumentError(absl::StrCat("unknown flag '", argument, "'"));
      }
      if (positional_ == nullptr || positional_->size() >= max_positional_) {
        return absl::InvalidArgumentError(absl::StrCat("unexpected argument '", argument, "'"));
      }
      positional_->push_back(argument);
      continue;
    }
    const size_t equals = argument.find('=');
    const std::string name = argument.substr(2, equals == std::string::npos ? equals : equals - 2);
    const Flag* flag = Find(name);
    if (flag == nullptr && unknown_ == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat("unknown flag '--", name, "'"));
    }
    std::string value;
    if (flag != nullptr && !flag->takes_value) {
      if (equals != std::string::npos) {
        return absl::InvalidArgumentError(absl::StrCat("--", name, " takes no value"));
      }
    } else if (equals != std::string::npos) {
      value = argument.substr(equals + 1);
    } else if (i + 1 < arguments.size()) {
      value = arguments[++i];
    } else {
      return absl::InvalidArgumentError(absl::StrCat("--", name, " needs a value"));
    }
    if (flag == nullptr) {
      unknown_->emplace_back(name, value);
    } else if (absl::Status status = flag->set(value); !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

std::string FlagSet::Help() const {
  std::string out = absl::StrCat("Usage: ", usage_, "\n\n");
  if (!text_.empty()) absl::StrAppend(&out, text_, "\n\n");
  for (const Flag& flag : flags_) {
    if (flag.help.empty()) continue;
    std::string left =
        absl::StrCat("  --", flag.name, flag.takes_value ? " " : "", flag.placeholder);
    if (left.size() + 2 > kHelpColumn) {
      absl::StrAppend(&out, left, "\n", std::string(kHelpColumn, ' '));
    } else {
      absl::StrAppend(&out, left, std::string(kHelpColumn - left.size(), ' '));
    }
    AppendWrapped(&out, flag.help, kHelpColumn);
  }
  if (!epilogue_.empty()) absl::StrAppend(&out, "\n", epilogue_, "\n");
  return out;
}

}  // namespace kino::flags
