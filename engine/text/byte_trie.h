// A trie over byte strings: all prefixes of a text that are keys, shortest first, and exact lookup.
// Immutable after Build; thread-safe. Owns a compact copy of the keys.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string_view>
#include <vector>

namespace kino::engine {

class ByteTrie {
 public:
  struct Entry {
    std::string_view key;
    uint32_t value;
  };

  // Of entries with the same key the last one counts; empty keys are left out. O(bytes of all keys
  // * log entries).
  static ByteTrie Build(std::vector<Entry> entries);

  // Calls visit(length in bytes, value) for each key that `text` starts with, shortest first.
  template <typename Visit>
  void ForEachPrefix(std::string_view text, Visit&& visit) const {
    uint32_t node = 0;
    for (size_t i = 0; i < text.size(); ++i) {
      node = Child(node, text[i]);
      if (node == 0) return;
      if (nodes_[node].value != kNoValue) visit(i + 1, nodes_[node].value);
    }
  }

  std::optional<uint32_t> Find(std::string_view key) const;

 private:
  static constexpr uint32_t kNoValue = UINT32_MAX;

  // A node's children are neighbours in nodes_ and labels_.
  struct Node {
    uint32_t first_child = 0;
    uint32_t child_count = 0;
    uint32_t value = kNoValue;
  };

  // The root is nobody's child, so 0 means "none".
  uint32_t Child(uint32_t node, char label) const {
    const Node& parent = nodes_[node];
    const char* first = labels_.data() + parent.first_child;
    const void* found = std::memchr(first, label, parent.child_count);
    if (found == nullptr) return 0;
    return parent.first_child + static_cast<uint32_t>(static_cast<const char*>(found) - first);
  }

  std::vector<Node> nodes_ = std::vector<Node>(1);
  std::vector<char> labels_ = std::vector<char>(1);  // by node: the byte that leads to it
};

}  // namespace kino::engine
