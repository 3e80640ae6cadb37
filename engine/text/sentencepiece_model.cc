#include "engine/text/sentencepiece_model.h"

#include <bit>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <system_error>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/core/git_lfs.h"
#include "engine/core/status.h"
#include "engine/text/unicode.h"

namespace kino::engine {
namespace {

constexpr uintmax_t kMaxFileBytes = uintmax_t{64} << 20;

enum WireType : uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

struct Field {
  uint32_t number = 0;
  uint32_t wire_type = 0;
  uint64_t value = 0;      // varint and fixed types
  std::string_view bytes;  // length-delimited type
  size_t offset = 0;       // of the field in the file, for messages
};

// Walks the fields of one message. Every read is checked against the message's end.
class WireReader {
 public:
  // `offset`: where `bytes` starts in the file.
  WireReader(std::string_view bytes, size_t offset) : bytes_(bytes), offset_(offset) {}

  bool done() const { return pos_ == bytes_.size(); }

  absl::StatusOr<Field> Next() {
    Field field;
    field.offset = offset_ + pos_;
    KINO_ASSIGN_OR_RETURN(const uint64_t tag, ReadVarint());
    field.number = static_cast<uint32_t>(tag >> 3);
    field.wire_type = static_cast<uint32_t>(tag & 7);
    if (tag >> 3 == 0 || tag >> 3 >= (1u << 29))
      return Malformed(field.offset, "field number out of range");
    switch (field.wire_type) {
      case kVarint: {
        KINO_ASSIGN_OR_RETURN(field.value, ReadVarint());
        return field;
      }
      case kFixed64:
      case kFixed32: {
        const size_t size = field.wire_type == kFixed64 ? 8 : 4;
        if (bytes_.size() - pos_ < size)
          return Malformed(field.offset, "field runs past its message");
        for (size_t i = size; i > 0; --i) {
          field.value = field.value << 8 | static_cast<uint8_t>(bytes_[pos_ + i - 1]);
        }
        pos_ += size;
        return field;
      }
      case kBytes: {
        KINO_ASSIGN_OR_RETURN(const uint64_t length, ReadVarint());
        if (length > bytes_.size() - pos_) {
          return Malformed(field.offset, absl::StrCat("field of ", length, " bytes, ",
                                                      bytes_.size() - pos_, " left"));
        }
        field.bytes = bytes_.substr(pos_, length);
        pos_ += length;
        return field;
      }
      default:  // groups (3, 4) are not used by this format; 6 and 7 do not exist
        return Malformed(field.offset, absl::StrCat("wire type ", field.wire_type));
    }
  }

  // Where a length-delimited field's content starts in the file. REQUIRES: field is the last one
  // read.
  size_t ContentOffset(const Field& field) const { return offset_ + pos_ - field.bytes.size(); }

 private:
  static absl::Status Malformed(size_t at, const std::string& what) {
    return absl::InvalidArgumentError(
        absl::StrCat("not a sentencepiece model: at byte ", at, ": ", what));
  }

  absl::StatusOr<uint64_t> ReadVarint() {
    uint64_t value = 0;
    const size_t begin = pos_;
    for (int shift = 0; shift < 64; shift += 7) {
      if (pos_ == bytes_.size()) return Malformed(offset_ + begin, "number runs past its message");
      const uint64_t byte = static_cast<uint8_t>(bytes_[pos_++]);
      value |= (byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    return Malformed(offset_ + begin, "number of more than 10 bytes");
  }

  std::string_view bytes_;
  size_t offset_;
  size_t pos_ = 0;
};

absl::Status Expect(const Field& field, uint32_t wire_type, const char* name) {
  if (field.wire_type == wire_type) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("not a sentencepiece model: at byte ",
                                                 field.offset, ": ", name, " has wire type ",
                                                 field.wire_type, ", expected ", wire_type));
}

absl::StatusOr<SentencePieceModel::Piece> ParsePiece(std::string_view bytes, size_t offset,
                                                     size_t id) {
  SentencePieceModel::Piece piece;
  WireReader reader(bytes, offset);
  while (!reader.done()) {
    KINO_ASSIGN_OR_RETURN(const Field field, reader.Next());
    if (field.number == 1) {
      KINO_RETURN_IF_ERROR(Expect(field, kBytes, "piece"));
      piece.text = std::string(field.bytes);
    } else if (field.number == 2) {
      KINO_RETURN_IF_ERROR(Expect(field, kFixed32, "score"));
      piece.score = std::bit_cast<float>(static_cast<uint32_t>(field.value));
    } else if (field.number == 3) {
      KINO_RETURN_IF_ERROR(Expect(field, kVarint, "type"));
      if (field.value < 1 || field.value > 6) {
        return absl::InvalidArgumentError(
            absl::StrCat("piece ", id, ": type ", field.value, ", expected 1 to 6"));
      }
      piece.type = static_cast<SentencePieceModel::PieceType>(field.value);
    }
  }
  if (Utf8ErrorOffset(piece.text) != piece.text.size()) {
    return absl::InvalidArgumentError(absl::StrCat("piece ", id, ": text is not UTF-8"));
  }
  return piece;
}

absl::Status ParseTrainerSpec(std::string_view bytes, size_t offset, SentencePieceModel* model) {
  WireReader reader(bytes, offset);
  while (!reader.done()) {
    KINO_ASSIGN_OR_RETURN(const Field field, reader.Next());
    if (field.number != 3) continue;
    KINO_RETURN_IF_ERROR(Expect(field, kVarint, "trainer_spec.model_type"));
    if (field.value < 1 || field.value > 4) {
      return absl::InvalidArgumentError(
          absl::StrCat("trainer_spec.model_type is ", field.value, ", expected 1 to 4"));
    }
    model->model_type = static_cast<SentencePieceModel::ModelType>(field.value);
  }
  return absl::OkStatus();
}

absl::Status ParseNormalizerSpec(std::string_view bytes, size_t offset, SentencePieceModel* model) {
  WireReader reader(bytes, offset);
  while (!reader.done()) {
    KINO_ASSIGN_OR_RETURN(const Field field, reader.Next());
    if (field.number != 2) continue;
    KINO_RETURN_IF_ERROR(Expect(field, kBytes, "normalizer_spec.precompiled_charsmap"));
    model->precompiled_charsmap = std::string(field.bytes);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<SentencePieceModel> ParseSentencePieceModel(std::string_view bytes) {
  SentencePieceModel model;
  WireReader reader(bytes, 0);
  while (!reader.done()) {
    KINO_ASSIGN_OR_RETURN(const Field field, reader.Next());
    const size_t content = field.wire_type == kBytes ? reader.ContentOffset(field) : 0;
    if (field.number == 1) {
      KINO_RETURN_IF_ERROR(Expect(field, kBytes, "pieces"));
      KINO_ASSIGN_OR_RETURN(auto piece, ParsePiece(field.bytes, content, model.pieces.size()));
      model.pieces.push_back(std::move(piece));
    } else if (field.number == 2) {
      KINO_RETURN_IF_ERROR(Expect(field, kBytes, "trainer_spec"));
      KINO_RETURN_IF_ERROR(ParseTrainerSpec(field.bytes, content, &model));
    } else if (field.number == 3) {
      KINO_RETURN_IF_ERROR(Expect(field, kBytes, "normalizer_spec"));
      KINO_RETURN_IF_ERROR(ParseNormalizerSpec(field.bytes, content, &model));
    }
  }
  if (model.pieces.empty()) {
    return absl::InvalidArgumentError("not a sentencepiece model: it has no pieces");
  }
  return model;
}

absl::StatusOr<SentencePieceModel> ReadSentencePieceModel(const std::string& path) {
  std::error_code error;
  const uintmax_t size = std::filesystem::file_size(path, error);
  if (error) return absl::NotFoundError(absl::StrCat("'", path, "': ", error.message()));
  if (size > kMaxFileBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", path, "': ", size, " bytes, at most ", kMaxFileBytes, " accepted"));
  }
  std::string bytes(size, '\0');
  std::ifstream file(path, std::ios::binary);
  if (!file.read(bytes.data(), static_cast<std::streamsize>(size))) {
    return absl::PermissionDeniedError(absl::StrCat("'", path, "': cannot be read"));
  }
  if (IsGitLfsPointer(bytes)) {
    return absl::InvalidArgumentError(absl::StrCat("'", path, "' ", kGitLfsPointer));
  }
  auto model = ParseSentencePieceModel(bytes);
  if (!model.ok()) {
    return absl::Status(model.status().code(),
                        absl::StrCat("'", path, "': ", model.status().message()));
  }
  return model;
}

}  // namespace kino::engine
