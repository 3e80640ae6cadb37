#include "server/config/yaml_reader.h"

#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/command_line/byte_size.h"

namespace kino::config {
namespace {

std::string Join(const std::string& path, const std::string& key) {
  return path.empty() ? key : absl::StrCat(path, ".", key);
}

const char* KindOf(const YAML::Node& node) {
  switch (node.Type()) {
    case YAML::NodeType::Map:
      return "a map";
    case YAML::NodeType::Sequence:
      return "a list";
    case YAML::NodeType::Null:
      return "nothing";
    default:
      return "a value";
  }
}

bool IsPlainNull(const YAML::Node& node) { return !node.IsDefined() || node.IsNull(); }

}  // namespace

std::string Where(const std::string& file, const YAML::Node& node) {
  if (!node.IsDefined()) return absl::StrCat(file, ":1:1");
  const YAML::Mark mark = node.Mark();
  return absl::StrCat(file, ":", mark.line + 1, ":", mark.column + 1);
}

MapReader::MapReader(std::string file, std::string path, const YAML::Node& node, Findings& findings)
    : file_(std::move(file)), path_(std::move(path)), node_(node), findings_(findings) {
  if (!IsPlainNull(node_) && !node_.IsMap()) {
    Error(absl::StrCat(path_.empty() ? "the file" : absl::StrCat("'", path_, "'"),
                       ": expected a map of keys, got ", KindOf(node_)));
  }
  is_listing_ = !node_.IsDefined();
}

MapReader::~MapReader() {
  if (!node_.IsDefined() || !node_.IsMap()) return;
  std::set<std::string> seen;
  for (const auto& entry : node_) {
    if (!entry.first.IsScalar()) {
      ErrorAt(entry.first, absl::StrCat("expected a key, got ", KindOf(entry.first)));
      continue;
    }
    const std::string& key = entry.first.Scalar();
    if (visited_.count(key) == 0) {
      ErrorAt(entry.first, absl::StrCat("unknown key '", Join(path_, key),
                                        "'; known here: ", absl::StrJoin(visited_, ", ")));
    } else if (!seen.insert(key).second) {
      ErrorAt(entry.first, absl::StrCat("key '", Join(path_, key), "' is given twice"));
    }
  }
}

bool MapReader::Has(const std::string& key) const {
  return node_.IsDefined() && node_.IsMap() && node_[key].IsDefined();
}

YAML::Node MapReader::Take(const std::string& key) {
  visited_.insert(key);
  findings_.keys.insert(Join(path_, key));
  if (!Has(key)) return YAML::Node(YAML::NodeType::Undefined);
  return node_[key];
}

void MapReader::Error(const std::string& message) const { ErrorAt(node_, message); }

void MapReader::ErrorAt(const YAML::Node& node, const std::string& message) const {
  findings_.errors.push_back(absl::StrCat(Where(file_, node), ": ", message));
}

bool MapReader::Scalar(const std::string& key, const std::string& expected, std::string& text,
                       YAML::Node& node) {
  node.reset(Take(key));
  if (!node.IsDefined()) return false;
  if (!node.IsScalar()) {
    ErrorAt(node,
            absl::StrCat("'", Join(path_, key), "': expected ", expected, ", got ", KindOf(node)));
    return false;
  }
  text = node.Scalar();
  return true;
}

bool MapReader::String(const std::string& key, std::string& out) {
  YAML::Node node;
  return Scalar(key, "text", out, node);
}

bool MapReader::String(const std::string& key, std::string& out, const std::string& expected,
                       const std::function<bool(const std::string&)>& valid) {
  std::string text;
  YAML::Node node;
  if (!Scalar(key, expected, text, node)) return false;
  if (!valid(text)) {
    ErrorAt(node,
            absl::StrCat("'", Join(path_, key), "': expected ", expected, ", got '", text, "'"));
    return false;
  }
  out = text;
  return true;
}

bool MapReader::Choice(const std::string& key, std::string& out,
                       const std::vector<std::string>& choices) {
  return String(key, out, absl::StrCat("one of ", absl::StrJoin(choices, ", ")),
                [&](const std::string& text) {
                  for (const std::string& choice : choices) {
                    if (choice == text) return true;
                  }
                  return false;
                });
}

bool MapReader::Bool(const std::string& key, bool& out) {
  std::string text;
  if (!Choice(key, text, {"true", "false"})) return false;
  out = text == "true";
  return true;
}

bool MapReader::OptionalBool(const std::string& key, std::optional<bool>& out) {
  bool value = false;
  if (!Bool(key, value)) return false;
  out = value;
  return true;
}

bool MapReader::Integer(const std::string& key, int64_t& out, int64_t min, int64_t max) {
  int64_t value = 0;
  std::string text;
  const std::string expected = absl::StrCat("a whole number from ", min, " to ", max);
  if (!String(key, text, expected, [&](const std::string& given) {
        return absl::SimpleAtoi(given, &value) && value >= min && value <= max;
      })) {
    return false;
  }
  out = value;
  return true;
}

bool MapReader::Integer(const std::string& key, int& out, int min, int max) {
  int64_t value = 0;
  if (!Integer(key, value, int64_t{min}, int64_t{max})) return false;
  out = static_cast<int>(value);
  return true;
}

bool MapReader::OptionalInteger(const std::string& key, std::optional<int>& out) {
  int value = 0;
  if (!Integer(key, value, 0, std::numeric_limits<int>::max())) return false;
  out = value;
  return true;
}

bool MapReader::OptionalNumber(const std::string& key, std::optional<double>& out) {
  double value = 0;
  std::string text;
  if (!String(key, text, "a finite number", [&](const std::string& given) {
        return absl::SimpleAtod(given, &value) && std::isfinite(value);
      })) {
    return false;
  }
  out = value;
  return true;
}

bool MapReader::Duration(const std::string& key, absl::Duration& out, absl::Duration min,
                         absl::Duration max) {
  absl::Duration value;
  std::string text;
  const std::string expected =
      absl::StrCat("a time such as '250ms', '10s' or '1h30m', from ", absl::FormatDuration(min),
                   " to ", absl::FormatDuration(max));
  if (!String(key, text, expected, [&](const std::string& given) {
        return absl::ParseDuration(given, &value) && value >= min && value <= max;
      })) {
    return false;
  }
  out = value;
  return true;
}

bool MapReader::Bytes(const std::string& key, int64_t& out, int64_t min, int64_t max) {
  int64_t value = 0;
  std::string text;
  const std::string expected =
      absl::StrCat(command_line::kByteSizeForm, ", from ", min, " to ", max, " bytes");
  if (!String(key, text, expected, [&](const std::string& given) {
        const absl::StatusOr<int64_t> bytes = command_line::ParseByteSize(given);
        if (bytes.ok()) value = *bytes;
        return bytes.ok() && value >= min && value <= max;
      })) {
    return false;
  }
  out = value;
  return true;
}

void MapReader::Map(const std::string& key, const std::function<void(MapReader&)>& read) {
  MapReader child(file_, Join(path_, key), Take(key), findings_);
  read(child);
}

void MapReader::List(const std::string& key, const std::function<void(MapReader&)>& read) {
  const YAML::Node node = Take(key);
  const std::string path = absl::StrCat(Join(path_, key), "[]");
  {
    MapReader listing(file_, path, YAML::Node(YAML::NodeType::Undefined), findings_);
    read(listing);
  }
  if (IsPlainNull(node)) return;
  if (!node.IsSequence()) {
    ErrorAt(node, absl::StrCat("'", Join(path_, key), "': expected a list, got ", KindOf(node)));
    return;
  }
  for (const YAML::Node& entry : node) {
    if (!entry.IsMap()) {
      ErrorAt(entry, absl::StrCat("'", path, "': expected a map of keys, got ", KindOf(entry)));
      continue;
    }
    MapReader child(file_, path, entry, findings_);
    read(child);
  }
}

void MapReader::Strings(const std::string& key, std::vector<std::string>& out) {
  const YAML::Node node = Take(key);
  if (IsPlainNull(node)) return;
  if (!node.IsSequence()) {
    ErrorAt(node, absl::StrCat("'", Join(path_, key), "': expected a list, got ", KindOf(node)));
    return;
  }
  for (const YAML::Node& entry : node) {
    if (!entry.IsScalar()) {
      ErrorAt(entry, absl::StrCat("'", Join(path_, key), "': expected text, got ", KindOf(entry)));
      continue;
    }
    out.push_back(entry.Scalar());
  }
}

bool MapReader::Numbers(const std::string& key, std::vector<double>& out) {
  const YAML::Node node = Take(key);
  if (IsPlainNull(node)) return false;
  std::vector<double> numbers;
  bool is_right = node.IsSequence() && node.size() > 0;
  for (size_t i = 0; is_right && i < node.size(); ++i) {
    double number = 0;
    is_right =
        node[i].IsScalar() && absl::SimpleAtod(node[i].Scalar(), &number) && std::isfinite(number);
    numbers.push_back(number);
  }
  if (!is_right) {
    ErrorAt(node, absl::StrCat("'", Join(path_, key), "': expected a list of finite numbers"));
    return false;
  }
  out = std::move(numbers);
  return true;
}

}  // namespace kino::config
