#include "engine/text/byte_trie.h"

#include <algorithm>

namespace kino::engine {

ByteTrie ByteTrie::Build(std::vector<Entry> entries) {
  std::erase_if(entries, [](const Entry& e) { return e.key.empty(); });
  std::stable_sort(entries.begin(), entries.end(),
                   [](const Entry& a, const Entry& b) { return a.key < b.key; });

  // Breadth first over ranges of sorted entries that share their first `depth` bytes: so children
  // get neighbouring numbers, and no recursion depends on the length of a key.
  struct Range {
    size_t begin;
    size_t end;
    uint32_t node;
  };
  ByteTrie trie;
  std::vector<Range> level = {{0, entries.size(), 0}};
  for (size_t depth = 0; !level.empty(); ++depth) {
    std::vector<Range> next_level;
    for (Range range : level) {
      // Entries that end here sort first; among equal keys the last one given counts.
      while (range.begin < range.end && entries[range.begin].key.size() == depth) {
        trie.nodes_[range.node].value = entries[range.begin].value;
        ++range.begin;
      }
      trie.nodes_[range.node].first_child = static_cast<uint32_t>(trie.nodes_.size());
      size_t i = range.begin;
      while (i < range.end) {
        const char label = entries[i].key[depth];
        size_t j = i + 1;
        while (j < range.end && entries[j].key[depth] == label) ++j;
        next_level.push_back({i, j, static_cast<uint32_t>(trie.nodes_.size())});
        trie.nodes_.emplace_back();
        trie.labels_.push_back(label);
        ++trie.nodes_[range.node].child_count;
        i = j;
      }
    }
    level = std::move(next_level);
  }
  return trie;
}

std::optional<uint32_t> ByteTrie::Find(std::string_view key) const {
  uint32_t node = 0;
  for (const char label : key) {
    node = Child(node, label);
    if (node == 0) return std::nullopt;
  }
  if (nodes_[node].value == kNoValue) return std::nullopt;
  return nodes_[node].value;
}

}  // namespace kino::engine
