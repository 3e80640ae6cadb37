// Reads YAML maps into fields and collects what is wrong, each with file:line:column. One thread at
// a time.
//
// A reader that was given no node still visits every key: that is how KnownKeys lists them.
#pragma once

#include <yaml-cpp/yaml.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace kino::config {

// What one load has found, over all of its files.
struct Findings {
  std::vector<std::string> errors;
  // Every key visited, as "models[].name".
  std::set<std::string> keys;
};

// "file:line:column", counted from 1.
std::string Where(const std::string& file, const YAML::Node& node);

class MapReader {
 public:
  // `node` may be undefined or null: every key is absent then. `findings` must outlive the reader.
  MapReader(std::string file, std::string path, const YAML::Node& node, Findings& findings);
  // Reports the keys of the map that nobody asked for, and those given twice.
  ~MapReader();
  MapReader(const MapReader&) = delete;
  MapReader& operator=(const MapReader&) = delete;

  // Each leaves `out` alone when the key is absent, and says so.
  bool String(const std::string& key, std::string& out);
  // `expected` describes what `valid` accepts: "a name of [a-z0-9]...".
  bool String(const std::string& key, std::string& out, const std::string& expected,
              const std::function<bool(const std::string&)>& valid);
  bool Choice(const std::string& key, std::string& out, const std::vector<std::string>& choices);
  bool Bool(const std::string& key, bool& out);
  bool OptionalBool(const std::string& key, std::optional<bool>& out);
  bool Integer(const std::string& key, int64_t& out, int64_t min, int64_t max);
  bool Integer(const std::string& key, int& out, int min, int max);
  bool OptionalInteger(const std::string& key, std::optional<int>& out);
  bool OptionalNumber(const std::string& key, std::optional<double>& out);
  // "10s", "1h30m", "250ms".
  bool Duration(const std::string& key, absl::Duration& out, absl::Duration min,
                absl::Duration max);
  // As command_line::ParseByteSize reads it.
  bool Bytes(const std::string& key, int64_t& out, int64_t min, int64_t max);

  // Calls `read` with the map under `key`, once also when it is absent.
  void Map(const std::string& key, const std::function<void(MapReader&)>& read);
  // Calls `read` with each map of the list under `key`. Lists the keys also when it is absent or
  // empty, by a call on a map without a node (see is_listing).
  void List(const std::string& key, const std::function<void(MapReader&)>& read);
  void Strings(const std::string& key, std::vector<std::string>& out);
  bool Numbers(const std::string& key, std::vector<double>& out);  // finite ones

  // The key's node, for forms that none of the above fits; counts as visited.
  YAML::Node Take(const std::string& key);

  // True while keys are only being listed: what is read has no meaning then.
  bool is_listing() const { return is_listing_; }
  bool Has(const std::string& key) const;
  void Error(const std::string& message) const;
  void ErrorAt(const YAML::Node& node, const std::string& message) const;
  std::string where() const { return Where(file_, node_); }
  const std::string& file() const { return file_; }

 private:
  // The scalar text under `key`; false when absent or not a scalar (reported).
  bool Scalar(const std::string& key, const std::string& expected, std::string& text,
              YAML::Node& node);

  const std::string file_;
  const std::string path_;
  const YAML::Node node_;
  Findings& findings_;
  bool is_listing_ = false;
  std::set<std::string> visited_;
};

}  // namespace kino::config
