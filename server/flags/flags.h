// Command-line flags of every Kino program: a table of named values, "--name value" or
// "--name=value". An unknown flag, a value that does not parse, a missing or a superfluous argument
// is INVALID_ARGUMENT naming it. One thread. The variables a flag points to belong to the caller
// and outlive the FlagSet.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"

namespace kino::flags {

class FlagSet {
 public:
  // `usage` is the line after "Usage: "; `text` is printed below it by Help(), `epilogue` at the
  // end.
  FlagSet(std::string usage, std::string text, std::string epilogue = "");

  // `placeholder` names the value in Help(); `help` says what it is for. An empty help hides the
  // flag.
  void Add(const std::string& name, std::string* value, std::string placeholder, std::string help);
  void Add(const std::string& name, std::optional<std::string>* value, std::string placeholder,
           std::string help);
  void Add(const std::string& name, int* value, std::string placeholder, std::string help);
  void Add(const std::string& name, std::optional<int>* value, std::string placeholder,
           std::string help);
  void Add(const std::string& name, std::optional<uint64_t>* value, std::string placeholder,
           std::string help);
  // Finite numbers only.
  void Add(const std::string& name, std::optional<double>* value, std::string placeholder,
           std::string help);
  // Collects every occurrence.
  void Add(const std::string& name, std::vector<std::string>* values, std::string placeholder,
           std::string help);
  // "--name" sets it; it takes no value.
  void AddSwitch(const std::string& name, bool* value, std::string help);
  // `set` is called for each occurrence.
  void AddCustom(const std::string& name, std::function<absl::Status(const std::string&)> set,
                 std::string placeholder, std::string help);
  // Arguments without a name, at most `max_count` of them.
  void AddPositional(std::vector<std::string>* values, size_t max_count);

  // "--name value" that is none of the flags, in the order given; without this it is an error.
  void CollectUnknown(std::vector<std::pair<std::string, std::string>>* values);

  // `arguments` without the program's name. "--" ends the flags. "--help" and "--version" are not
  // special here: add switches for them.
  absl::Status Parse(const std::vector<std::string>& arguments) const;
  std::string Help() const;

 private:
  struct Flag {
    std::string name, placeholder, help;
    bool takes_value = true;
    std::function<absl::Status(const std::string&)> set;
  };
  const Flag* Find(const std::string& name) const;

  std::string usage_, text_, epilogue_;
  std::vector<Flag> flags_;
  std::vector<std::string>* positional_ = nullptr;
  size_t max_positional_ = 0;
  std::vector<std::pair<std::string, std::string>>* unknown_ = nullptr;
};

}  // namespace kino::flags
