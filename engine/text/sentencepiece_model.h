// Reads a sentencepiece model file (spiece.model): the few protobuf fields a unigram tokenizer
// needs, with a wire parser of its own (libsentencepiece's protobuf cannot live beside ours).
// Values only; thread-safe.
//
// Source: sentencepiece 0.2 sentencepiece_model.proto (ModelProto, TrainerSpec, NormalizerSpec).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace kino::engine {

struct SentencePieceModel {
  enum class PieceType {
    kNormal = 1,
    kUnknown = 2,
    kControl = 3,
    kUserDefined = 4,
    kUnused = 5,
    kByte = 6
  };
  enum class ModelType { kUnigram = 1, kBpe = 2, kWord = 3, kChar = 4 };

  struct Piece {
    std::string text;
    float score = 0;
    PieceType type = PieceType::kNormal;
  };

  std::vector<Piece> pieces;  // the index is the id
  ModelType model_type = ModelType::kUnigram;
  std::string precompiled_charsmap;  // empty: text is taken as it is
};

// INVALID_ARGUMENT names the byte at which the message stops being well-formed, or the field with a
// bad value.
absl::StatusOr<SentencePieceModel> ParseSentencePieceModel(std::string_view bytes);

// The same from a file. NOT_FOUND or INVALID_ARGUMENT (malformed, or larger than 64 MB) name the
// file.
absl::StatusOr<SentencePieceModel> ReadSentencePieceModel(const std::string& path);

}  // namespace kino::engine
