#include "engine/describe/model_card.h"

#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <sstream>

#include "absl/strings/ascii.h"

namespace kino::engine {
namespace {

// Cards' front matter is some kilobytes with all its tags.
constexpr size_t kMaxBytes = 64 << 10;
constexpr size_t kMaxValueBytes = 512;

bool IsSpace(char c) { return absl::ascii_isspace(static_cast<unsigned char>(c)); }

std::string_view WithoutSpaceBehind(std::string_view text) {
  while (!text.empty() && IsSpace(text.back())) text.remove_suffix(1);
  return text;
}

// The value of a `key: value` in one line, if it is a scalar that stands there whole.
std::optional<std::string> Scalar(std::string_view text) {
  while (!text.empty() && IsSpace(text.front())) text.remove_prefix(1);
  if (text.empty()) return std::nullopt;
  const char first = text.front();
  if (first == '"' || first == '\'') {
    const size_t end = text.find(first, 1);
    if (end == std::string_view::npos) return std::nullopt;
    text = text.substr(1, end - 1);
  } else {
    if (std::string_view("[{|>&*!#%@`").find(first) != std::string_view::npos) return std::nullopt;
    text = WithoutSpaceBehind(text.substr(0, text.find(" #")));
  }
  std::string value;
  for (const char c : text.substr(0, kMaxValueBytes)) {
    if (absl::ascii_isprint(static_cast<unsigned char>(c))) value += c;
  }
  return value;
}

}  // namespace

ModelCard ParseModelCard(std::string_view text) {
  constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  std::istringstream lines{std::string(text.substr(0, kMaxBytes))};
  std::string line;
  std::map<std::string, std::string, std::less<>> values;
  bool is_whole = false;
  for (bool is_first = true; !is_whole && std::getline(lines, line); is_first = false) {
    const std::string_view trimmed = WithoutSpaceBehind(line);
    if (is_first) {
      if (trimmed != "---") return {};
      continue;
    }
    is_whole = trimmed == "---" || trimmed == "...";
    for (const std::string key : {"license", "license_name", "license_link"}) {
      if (!trimmed.starts_with(key + ":")) continue;
      const std::string_view rest = trimmed.substr(key.size() + 1);
      // "key:value" is no pair to YAML.
      if (!rest.empty() && !IsSpace(rest.front())) continue;
      if (std::optional<std::string> value = Scalar(rest)) values.emplace(key, *std::move(value));
    }
  }
  // Text between two rulers without an end is prose.
  if (!is_whole) return {};
  // "other" stands for a licence that has a name of its own.
  ModelCard card{.license = values["license"], .license_link = values["license_link"]};
  if (!values["license_name"].empty() && (card.license.empty() || card.license == "other"))
    card.license = values["license_name"];
  return card;
}

ModelCard ReadModelCard(const std::string& folder) {
  const std::filesystem::path path = std::filesystem::path(folder) / "README.md";
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) return {};
  std::ifstream file(path, std::ios::binary);
  std::string text(kMaxBytes, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  return ParseModelCard(text);
}

}  // namespace kino::engine
