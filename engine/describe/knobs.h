// A family's own knobs, each said once: a family has a struct of them and a constexpr table that
// names each member, its range, its default and what it does. Filling, checking, the API's messages
// and the CLI's flags all come from the table. Values; no torch, no protobuf.
//
//   struct MyKnobs { std::optional<int> max_sequence_length; };
//   inline constexpr KnobField<MyKnobs> kMyKnobs[] = {
//       Knob<&MyKnobs::max_sequence_length>("max_sequence_length", 1, 256, 256, "Text tokens.")};
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <type_traits>
#include <variant>
#include <vector>

namespace kino::engine {

enum class Task;
struct FieldViolation;

using KnobValue = std::variant<double, int64_t, std::vector<double>>;

// What a request says of them. `family`: whose they are, empty where it was not said.
struct Knobs {
  std::string family;
  std::map<std::string, KnobValue> values;
  bool operator==(const Knobs&) const = default;
};

enum class KnobType { kNumber, kInteger, kNumbers };

// The tasks that a knob is for: bit i stands for task i.
inline constexpr unsigned kAllTasks = ~0u;
constexpr unsigned OnlyTask(Task task) { return 1u << static_cast<unsigned>(task); }

struct KnobInfo {
  std::string name;
  KnobType type = KnobType::kNumber;
  double low = 0, high = 0;        // of each number
  std::optional<double> fallback;  // absent: none, or the family resolves it
  std::string help;
  unsigned tasks = kAllTasks;
  bool IsOf(Task task) const { return (tasks & OnlyTask(task)) != 0; }
};

// A row of a family's table: the knob, and what puts its value into the family's struct.
template <typename Struct>
struct KnobField {
  const char* name;
  KnobType type;
  double low, high;
  std::optional<double> fallback;
  const char* help;
  unsigned tasks;
  void (*read)(const KnobValue& value, Struct& into);  // nothing where it is of another type
};

// The row of a member, whose type is the knob's: std::optional<double>, std::optional<int> or
// std::vector<double>.
template <auto kMember, typename Struct, typename Member>
constexpr KnobField<Struct> KnobOf(Member Struct::*, const char* name, double low, double high,
                                   std::optional<double> fallback, const char* help,
                                   unsigned tasks) {
  constexpr bool kIsNumber = std::is_same_v<Member, std::optional<double>>;
  constexpr bool kIsInteger = std::is_same_v<Member, std::optional<int>>;
  static_assert(kIsNumber || kIsInteger || std::is_same_v<Member, std::vector<double>>);
  using Held = std::conditional_t<kIsNumber, double,
                                  std::conditional_t<kIsInteger, int64_t, std::vector<double>>>;
  return {name,
          kIsNumber    ? KnobType::kNumber
          : kIsInteger ? KnobType::kInteger
                       : KnobType::kNumbers,
          low,
          high,
          fallback,
          help,
          tasks,
          [](const KnobValue& value, Struct& into) {
            const Held* const held = std::get_if<Held>(&value);
            if (held == nullptr) return;
            if constexpr (kIsInteger) {
              into.*kMember = static_cast<int>(*held);
            } else {
              into.*kMember = *held;
            }
          }};
}
template <auto kMember>
constexpr auto Knob(const char* name, double low, double high, std::optional<double> fallback,
                    const char* help, unsigned tasks = kAllTasks) {
  return KnobOf<kMember>(kMember, name, low, high, fallback, help, tasks);
}

template <typename Struct, size_t N>
std::vector<KnobInfo> KnobInfos(const KnobField<Struct> (&table)[N]) {
  std::vector<KnobInfo> infos;
  for (const KnobField<Struct>& field : table) {
    infos.push_back(
        {field.name, field.type, field.low, field.high, field.fallback, field.help, field.tasks});
  }
  return infos;
}

// The family's struct of a request's knobs; those of another type are left out.
template <typename Struct, size_t N>
Struct ReadKnobs(const KnobField<Struct> (&table)[N], const Knobs& knobs) {
  Struct read;
  for (const KnobField<Struct>& field : table) {
    const auto found = knobs.values.find(field.name);
    if (found != knobs.values.end()) field.read(found->second, read);
  }
  return read;
}

// The defaults of a task.
Knobs DefaultKnobs(const std::vector<KnobInfo>& infos, const std::string& family, Task task);

// Adds to `knobs` what it leaves absent and `from` has, of those that the task knows.
void FillKnobs(const std::vector<KnobInfo>& infos, Task task, Knobs& knobs, const Knobs& from);

// Says what is wrong with a request's knobs for a model of `family`, as "family.name": unknown
// ones, another family's, another task's, values of another type or out of range. Numbers become
// the types of the table, and the knobs this family's.
void CheckKnobs(const std::vector<KnobInfo>& infos, const std::string& family, Task task,
                Knobs& knobs, std::vector<FieldViolation>& violations);

}  // namespace kino::engine
