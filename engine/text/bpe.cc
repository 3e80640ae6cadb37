#include "engine/text/bpe.h"

#include <algorithm>
#include <queue>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/core/status.h"
#include "engine/text/byte_level.h"

namespace kino::engine {
namespace {

uint64_t PairKey(int32_t left, int32_t right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}

// How a token reads in a message: no more than some sixty bytes of it, all of them whole
// characters.
std::string Shown(std::string_view token) {
  size_t end = std::min<size_t>(token.size(), 60);
  while (end < token.size() && (token[end] & 0xC0) == 0x80) ++end;
  return absl::StrCat("'", std::string(token.substr(0, end)), "'");
}

}  // namespace

absl::StatusOr<Bpe> Bpe::Create(BpeModel model) {
  Bpe bpe(std::move(model));
  if (bpe.model_.vocab.empty()) return absl::InvalidArgumentError("vocabulary is empty");
  for (const auto& [token, id] : bpe.model_.vocab) {
    if (id < 0 || id == INT32_MAX) {
      return absl::InvalidArgumentError(
          absl::StrCat("token ", Shown(token), " has the id ", id, ", expected 0 to 2^31 - 2"));
    }
    bpe.id_bound_ = std::max(bpe.id_bound_, id + 1);
  }
  KINO_RETURN_IF_ERROR(bpe.ReadMerges());
  KINO_RETURN_IF_ERROR(bpe.ReadBytes());
  return bpe;
}

absl::Status Bpe::ReadMerges() {
  int32_t rank = 0;
  for (const auto& [left, right] : model_.merges) {
    const std::string made = left + right;
    std::array<int32_t, 3> ids{};
    size_t i = 0;
    for (const std::string* token : {&left, &right, &made}) {
      const auto found = model_.vocab.find(*token);
      if (found == model_.vocab.end()) {
        return absl::InvalidArgumentError(absl::StrCat("merge ", rank, ", ", Shown(left), " and ",
                                                       Shown(right), ": ", Shown(*token),
                                                       " is not in the vocabulary"));
      }
      ids[i++] = found->second;
    }
    // Of a pair that comes twice the last one counts.
    merges_[PairKey(ids[0], ids[1])] = {rank++, ids[2]};
  }
  model_.merges.clear();
  return absl::OkStatus();
}

absl::Status Bpe::ReadBytes() {
  std::string missing;
  for (unsigned byte = 0; byte < 256; ++byte) {
    const std::string_view character = ByteLevelCharacter(static_cast<unsigned char>(byte));
    const std::string last = absl::StrCat(std::string(character), model_.end_of_word_suffix);
    inner_[byte] = Find(character).value_or(kNone);
    last_[byte] = Find(last).value_or(kNone);
    if (missing.empty() && inner_[byte] == kNone) missing = character;
    if (missing.empty() && last_[byte] == kNone) missing = last;
  }
  if (!model_.unk_token) return absl::OkStatus();
  unk_id_ = Find(*model_.unk_token).value_or(kNone);
  if (unk_id_ != kNone || missing.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("unk_token ", Shown(*model_.unk_token),
                                                 " is not in the vocabulary, which lacks ",
                                                 Shown(missing)));
}

std::optional<int32_t> Bpe::Find(std::string_view token) const {
  const auto found = model_.vocab.find(token);
  if (found == model_.vocab.end()) return std::nullopt;
  return found->second;
}

const Bpe::Merge* Bpe::FindMerge(int32_t left, int32_t right) const {
  const auto found = merges_.find(PairKey(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

std::vector<Bpe::Symbol> Bpe::Symbols(std::string_view word) const {
  std::vector<Symbol> symbols;
  symbols.reserve(word.size());
  bool follows_unknown = false;
  for (size_t i = 0; i < word.size(); ++i) {
    const uint8_t byte = static_cast<uint8_t>(word[i]);
    int32_t id = i + 1 == word.size() ? last_[byte] : inner_[byte];
    const bool is_unknown = id == kNone;
    if (is_unknown) {
      if (unk_id_ == kNone || (follows_unknown && model_.fuse_unk)) continue;
      id = unk_id_;
    }
    follows_unknown = is_unknown;
    const int32_t here = static_cast<int32_t>(symbols.size());
    symbols.push_back({id, here - 1, here + 1});
  }
  if (!symbols.empty()) symbols.back().next = kNone;
  return symbols;
}

void Bpe::MergeAll(std::vector<Symbol>& symbols) const {
  struct Candidate {
    int32_t rank, at, id;
    bool operator>(const Candidate& other) const {
      return rank != other.rank ? rank > other.rank : at > other.at;
    }
  };
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto offer = [&](int32_t left) {
    if (left == kNone || symbols[static_cast<size_t>(left)].next == kNone) return;
    const Symbol& symbol = symbols[static_cast<size_t>(left)];
    const Merge* merge = FindMerge(symbol.id, symbols[static_cast<size_t>(symbol.next)].id);
    if (merge != nullptr) queue.push({merge->rank, left, merge->id});
  };
  for (size_t i = 0; i < symbols.size(); ++i) offer(static_cast<int32_t>(i));
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    Symbol& left = symbols[static_cast<size_t>(best.at)];
    if (left.is_merged || left.next == kNone) continue;
    Symbol& right = symbols[static_cast<size_t>(left.next)];
    // Either may have been merged since. As in the reference, the candidate counts where the pair
    // that is there now makes the same token.
    const Merge* merge = FindMerge(left.id, right.id);
    if (merge == nullptr || merge->id != best.id) continue;
    left.id = best.id;
    left.next = right.next;
    right.is_merged = true;
    if (left.next != kNone) symbols[static_cast<size_t>(left.next)].previous = best.at;
    offer(left.previous);
    offer(best.at);
  }
}

void Bpe::Encode(std::string_view word, std::vector<int64_t>* ids) const {
  if (model_.ignore_merges) {
    if (const std::optional<int32_t> whole = Find(ByteLevelSpelling(word))) {
      ids->push_back(*whole);
      return;
    }
  }
  std::vector<Symbol> symbols = Symbols(word);
  MergeAll(symbols);
  for (const Symbol& symbol : symbols) {
    if (!symbol.is_merged) ids->push_back(symbol.id);
  }
}

}  // namespace kino::engine
