#include "engine/text/unigram.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/text/unicode.h"

namespace kino::engine {
namespace {

// How much worse than the least probable piece a character without a piece is.
constexpr double kUnknownPenalty = 10.0;
constexpr size_t kMaxPieces = size_t{1} << 24;

}  // namespace

absl::StatusOr<Unigram> Unigram::Create(const std::vector<UnigramPiece>& pieces, int32_t unk_id) {
  if (unk_id < 0 || static_cast<size_t>(unk_id) >= pieces.size() || pieces.size() > kMaxPieces) {
    return absl::InvalidArgumentError(absl::StrCat("vocabulary of ", pieces.size(),
                                                   " pieces, expected ", int64_t{unk_id} + 1,
                                                   " (it must hold <unk>) to ", kMaxPieces));
  }
  Unigram model;
  model.unk_id_ = unk_id;
  std::vector<ByteTrie::Entry> entries;
  entries.reserve(pieces.size());
  double min_score = std::numeric_limits<double>::infinity();
  for (size_t id = 0; id < pieces.size(); ++id) {
    const UnigramPiece& piece = pieces[id];
    if (!std::isfinite(piece.score)) {
      return absl::InvalidArgumentError(
          absl::StrCat("piece ", id, ": score ", piece.score, ", expected a finite number"));
    }
    if (Utf8ErrorOffset(piece.text) != piece.text.size()) {
      return absl::InvalidArgumentError(absl::StrCat("piece ", id, ": text is not UTF-8"));
    }
    entries.push_back({piece.text, static_cast<uint32_t>(id)});
    model.scores_.push_back(piece.score);
    min_score = std::min(min_score, piece.score);
  }
  model.unk_score_ = min_score - kUnknownPenalty;
  model.trie_ = ByteTrie::Build(std::move(entries));
  return model;
}

void Unigram::Encode(std::string_view word, std::vector<int64_t>* ids) const {
  // The best way to reach each byte offset. On equal scores the one found first stays.
  constexpr size_t kUnreached = std::numeric_limits<size_t>::max();
  struct Best {
    double score = 0;
    size_t begin = kUnreached;
    int32_t id = 0;
  };
  std::vector<Best> best(word.size() + 1);
  for (size_t begin = 0; begin < word.size();) {
    const size_t char_bytes = Utf8Length(word[begin]);
    const double score_here = best[begin].score;
    bool has_single_char_piece = false;
    const auto offer = [&](size_t length, int32_t id, double score) {
      Best& target = best[begin + length];
      if (target.begin == kUnreached || score_here + score > target.score) {
        target = {score_here + score, begin, id};
      }
    };
    trie_.ForEachPrefix(word.substr(begin), [&](size_t length, uint32_t id) {
      offer(length, static_cast<int32_t>(id), scores_[id]);
      has_single_char_piece |= length == char_bytes;
    });
    if (!has_single_char_piece) offer(char_bytes, unk_id_, unk_score_);
    begin += char_bytes;
  }

  // Walk back; a run of unknowns is one piece, which may even be in the vocabulary (the text
  // "<unk>" is).
  const size_t first = ids->size();
  for (size_t end = word.size(); end > 0;) {
    size_t begin = best[end].begin;
    int32_t id = best[end].id;
    if (id == unk_id_) {
      while (begin > 0 && best[begin].id == unk_id_) begin = best[begin].begin;
      id = Find(word.substr(begin, end - begin)).value_or(unk_id_);
    }
    ids->push_back(id);
    end = begin;
  }
  std::reverse(ids->begin() + static_cast<std::ptrdiff_t>(first), ids->end());
}

std::optional<int32_t> Unigram::Find(std::string_view piece) const {
  const auto id = trie_.Find(piece);
  if (!id) return std::nullopt;
  return static_cast<int32_t>(*id);
}

}  // namespace kino::engine
