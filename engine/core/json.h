// Reading JSON files a model folder holds: configs of known keys with class defaults, unknown keys
// ignored. Values only.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace kino::engine {

// NOT_FOUND, INVALID_ARGUMENT (not a JSON object, or larger than 64 MB) name the file.
absl::StatusOr<nlohmann::json> ReadJsonFile(const std::string& path);

// The T of the config in this file. Errors are those of ReadJsonFile and T::FromJson.
template <typename T>
absl::StatusOr<T> ReadConfig(const std::string& path) {
  const absl::StatusOr<nlohmann::json> json = ReadJsonFile(path);
  if (!json.ok()) return json.status();
  return T::FromJson(*json, path);
}

// Reads typed keys of a config and remembers the first that has the wrong type, so that a config
// struct is filled in one expression a key. `where` names the file in messages.
class ConfigReader {
 public:
  ConfigReader(const nlohmann::json& json, std::string where)
      : json_(json), where_(std::move(where)) {}

  // The key's value; `fallback` when it is absent or null.
  template <typename T>
  T Get(const char* key, T fallback) {
    const auto it = json_.find(key);
    if (it == json_.end() || it->is_null()) return fallback;
    T value = std::move(fallback);
    if (!Read(*it, value) && status_.ok()) {
      status_ = absl::InvalidArgumentError(
          absl::StrCat(where_, ": '", key, "' is ", Short(*it), ", expected ", TypeName(value)));
    }
    return value;
  }
  // The same of a number that has to be within low and high.
  template <typename T>
  T Within(const char* key, T fallback, T low, T high) {
    const T value = Get(key, fallback);
    if (!(value >= low && value <= high) && status_.ok()) {
      status_ = absl::InvalidArgumentError(
          absl::StrCat(where_, ": '", key, "' is ", value, ", expected ", low, " to ", high));
    }
    return value;
  }
  // Checks a name of which one meaning alone is supported. `known` lists its spellings; an absent
  // key stands for the first of them. UNIMPLEMENTED: another name.
  void Expect(const char* key, const std::vector<std::string>& known);
  // Checks the values that `key` has: each is a multiple of `of`, at least 1 and at most `high`.
  void ExpectMultiples(const char* key, const std::vector<int>& values, int of, int high);
  const absl::Status& status() const { return status_; }

 private:
  static std::string Short(const nlohmann::json& value);
  static bool Read(const nlohmann::json& json, bool& out);
  static bool Read(const nlohmann::json& json, int& out);
  static bool Read(const nlohmann::json& json, double& out);
  static bool Read(const nlohmann::json& json, std::string& out);
  template <typename T>
  static bool Read(const nlohmann::json& json, std::vector<T>& out) {
    if (!json.is_array()) return false;
    out.clear();
    for (const nlohmann::json& item : json) {
      T value{};
      if (!Read(item, value)) return false;
      out.push_back(std::move(value));
    }
    return true;
  }
  static std::string TypeName(bool) { return "true or false"; }
  static std::string TypeName(int) { return "an integer"; }
  static std::string TypeName(double) { return "a number"; }
  static std::string TypeName(const std::string&) { return "a string"; }
  template <typename T>
  static std::string TypeName(const std::vector<T>&) {
    return absl::StrCat("a list, each ", TypeName(T{}));
  }

  const nlohmann::json& json_;
  std::string where_;
  absl::Status status_;
};

}  // namespace kino::engine
