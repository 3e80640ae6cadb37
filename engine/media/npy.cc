#include "engine/media/npy.h"

#include <bit>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <limits>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/core/status.h"

namespace kino::engine {
namespace {

static_assert(std::endian::native == std::endian::little, ".npy data is copied as it lies");

constexpr std::string_view kMagic("\x93NUMPY", 6);
constexpr size_t kWrittenHeaderBytes =
    128;  // of our files, magic and length included; numpy aligns to 64
constexpr size_t kMaxHeaderBytes = 4096;
constexpr size_t kMaxRank = 8;

int64_t ElementBytes(NpyType type) { return type == NpyType::kUint8 ? 1 : 4; }

// The header is a Python dict literal of three known keys; this reads that and no more of Python.
class HeaderParser {
 public:
  explicit HeaderParser(std::string_view text) : text_(text) {}

  struct Header {
    std::optional<std::string> descr;
    std::optional<bool> is_fortran_order;
    std::optional<std::vector<int64_t>> shape;
  };

  std::optional<Header> Parse() {
    Header header;
    if (!Take('{')) return std::nullopt;
    while (!Take('}')) {
      const std::optional<std::string> key = String();
      if (!key || !Take(':')) return std::nullopt;
      if (*key == "descr" && !header.descr) {
        header.descr = String();
        if (!header.descr) return std::nullopt;
      } else if (*key == "fortran_order" && !header.is_fortran_order) {
        header.is_fortran_order = Bool();
        if (!header.is_fortran_order) return std::nullopt;
      } else if (*key == "shape" && !header.shape) {
        header.shape = Shape();
        if (!header.shape) return std::nullopt;
      } else {
        return std::nullopt;
      }
      if (!Take(',') && !Peek('}')) return std::nullopt;
    }
    SkipSpace();
    if (!text_.empty() || !header.descr || !header.is_fortran_order || !header.shape) {
      return std::nullopt;
    }
    return header;
  }

 private:
  void SkipSpace() {
    while (!text_.empty() && (text_[0] == ' ' || text_[0] == '\n')) text_.remove_prefix(1);
  }
  bool Peek(char c) {
    SkipSpace();
    return !text_.empty() && text_[0] == c;
  }
  bool Take(char c) {
    if (!Peek(c)) return false;
    text_.remove_prefix(1);
    return true;
  }
  bool TakeWord(std::string_view word) {
    SkipSpace();
    if (text_.substr(0, word.size()) != word) return false;
    text_.remove_prefix(word.size());
    return true;
  }
  std::optional<std::string> String() {
    const char quote = Peek('"') ? '"' : '\'';
    if (!Take(quote)) return std::nullopt;
    const size_t end = text_.find(quote);
    if (end == std::string_view::npos) return std::nullopt;
    std::string value(text_.substr(0, end));
    text_.remove_prefix(end + 1);
    return value;
  }
  std::optional<bool> Bool() {
    if (TakeWord("True")) return true;
    if (TakeWord("False")) return false;
    return std::nullopt;
  }
  std::optional<int64_t> Number() {
    SkipSpace();
    if (text_.empty() || std::isdigit(static_cast<unsigned char>(text_[0])) == 0) {
      return std::nullopt;
    }
    int64_t value = 0;
    while (!text_.empty() && std::isdigit(static_cast<unsigned char>(text_[0])) != 0) {
      if (value > (std::numeric_limits<int64_t>::max() - 9) / 10) return std::nullopt;
      value = value * 10 + (text_[0] - '0');
      text_.remove_prefix(1);
    }
    return value;
  }
  std::optional<std::vector<int64_t>> Shape() {
    if (!Take('(')) return std::nullopt;
    std::vector<int64_t> shape;
    while (!Take(')')) {
      const std::optional<int64_t> side = Number();
      if (!side || shape.size() == kMaxRank) return std::nullopt;
      shape.push_back(*side);
      // A tuple of one needs its comma.
      if (!Take(',') && (shape.size() < 2 || !Peek(')'))) return std::nullopt;
    }
    return shape;
  }

  std::string_view text_;
};

absl::StatusOr<int64_t> CheckedBytes(const std::vector<int64_t>& shape, NpyType type) {
  int64_t bytes = ElementBytes(type);
  for (const int64_t side : shape) {
    if (__builtin_mul_overflow(bytes, side, &bytes)) {
      return absl::InvalidArgumentError(
          absl::StrCat(".npy: the shape (", absl::StrJoin(shape, ", "), ") is too large"));
    }
  }
  return bytes;
}

}  // namespace

int64_t NpyArray::element_count() const {
  return static_cast<int64_t>(data.size()) / ElementBytes(type);
}

absl::StatusOr<NpyArray> ParseNpy(std::string_view bytes) {
  if (bytes.substr(0, kMagic.size()) != kMagic) {
    return absl::InvalidArgumentError(".npy: the file does not begin with \\x93NUMPY");
  }
  if (bytes.size() < 10) return absl::InvalidArgumentError(".npy: the header is truncated");
  const int version = static_cast<uint8_t>(bytes[6]);
  if ((version != 1 && version != 2) || bytes[7] != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        ".npy: version ", version, ".", static_cast<uint8_t>(bytes[7]), "; expected 1.0 or 2.0"));
  }
  const size_t length_bytes = version == 1 ? 2 : 4;
  size_t header_bytes = 0;
  if (bytes.size() < 8 + length_bytes) {
    return absl::InvalidArgumentError(".npy: the header is truncated");
  }
  std::memcpy(&header_bytes, bytes.data() + 8, length_bytes);
  const size_t data_at = 8 + length_bytes + header_bytes;
  if (header_bytes > kMaxHeaderBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(".npy: the header has ", header_bytes, " bytes; at most ", kMaxHeaderBytes));
  }
  if (bytes.size() < data_at) return absl::InvalidArgumentError(".npy: the header is truncated");
  const auto header = HeaderParser(bytes.substr(8 + length_bytes, header_bytes)).Parse();
  if (!header) {
    return absl::InvalidArgumentError(
        ".npy: the header is not a dict of descr, fortran_order and shape");
  }
  NpyArray array;
  if (*header->descr == "|u1" || *header->descr == "<u1") {
    array.type = NpyType::kUint8;
  } else if (*header->descr == "<f4") {
    array.type = NpyType::kFloat32;
  } else {
    return absl::InvalidArgumentError(absl::StrCat(".npy: the element type is '", *header->descr,
                                                   "'; expected '|u1' (uint8) or '<f4' (float32)"));
  }
  if (*header->is_fortran_order) {
    return absl::InvalidArgumentError(".npy: the array is in Fortran order; expected C order");
  }
  KINO_ASSIGN_OR_RETURN(const int64_t expected, CheckedBytes(*header->shape, array.type));
  const std::string_view data = bytes.substr(data_at);
  if (static_cast<int64_t>(data.size()) != expected) {
    return absl::InvalidArgumentError(
        absl::StrCat(".npy: the shape (", absl::StrJoin(*header->shape, ", "), ") needs ", expected,
                     " bytes of data; the file has ", data.size()));
  }
  array.shape = *header->shape;
  array.data = std::string(data);
  return array;
}

absl::StatusOr<NpyArray> ReadNpy(const std::string& path, int64_t max_bytes) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rbe"),
                                                             &std::fclose);
  if (file == nullptr) {
    return absl::NotFoundError(absl::StrCat("cannot open '", path, "': ", std::strerror(errno)));
  }
  std::string bytes;
  std::vector<char> block(1 << 16);
  for (size_t got; (got = std::fread(block.data(), 1, block.size(), file.get())) > 0;) {
    bytes.append(block.data(), got);
    if (static_cast<int64_t>(bytes.size()) > max_bytes) {
      return absl::ResourceExhaustedError(
          absl::StrCat("'", path, "' has more than ", max_bytes, " bytes"));
    }
  }
  if (std::ferror(file.get()) != 0) {
    return absl::InternalError(absl::StrCat("cannot read '", path, "': ", std::strerror(errno)));
  }
  absl::StatusOr<NpyArray> array = ParseNpy(bytes);
  if (!array.ok()) {
    return absl::Status(array.status().code(),
                        absl::StrCat("'", path, "': ", array.status().message()));
  }
  return array;
}

absl::StatusOr<std::unique_ptr<NpyWriter>> NpyWriter::Create(const std::string& path, int height,
                                                             int width) {
  if (height < 1 || width < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat(".npy: frames of ", width, "x", height, "; sides must be at least 1"));
  }
  std::unique_ptr<std::FILE, CloseFile> file(std::fopen(path.c_str(), "wbe"));
  if (file == nullptr) {
    const std::string message = absl::StrCat("cannot write '", path, "': ", std::strerror(errno));
    if (errno == EACCES || errno == EPERM || errno == EROFS) {
      return absl::PermissionDeniedError(message);
    }
    return absl::NotFoundError(message);
  }
  std::unique_ptr<NpyWriter> writer(new NpyWriter(path, height, width, std::move(file)));
  KINO_RETURN_IF_ERROR(writer->WriteHeader());
  return writer;
}

absl::Status NpyWriter::WriteHeader() {
  std::string header = absl::StrCat("{'descr': '<f4', 'fortran_order': False, 'shape': (",
                                    num_frames_, ", ", height_, ", ", width_, ", 3), }");
  const size_t dict_bytes = kWrittenHeaderBytes - 10;
  header.resize(dict_bytes - 1, ' ');
  const char length[2] = {static_cast<char>(dict_bytes), 0};
  header =
      absl::StrCat(absl::string_view(kMagic.data(), kMagic.size()),
                   absl::string_view("\x01\x00", 2), absl::string_view(length, 2), header, "\n");
  if (std::fwrite(header.data(), 1, header.size(), file_.get()) != header.size()) {
    return WriteError();
  }
  return absl::OkStatus();
}

absl::Status NpyWriter::WriteError() const {
  const std::string message = absl::StrCat("cannot write '", path_, "': ", std::strerror(errno));
  return errno == ENOSPC || errno == EDQUOT ? absl::ResourceExhaustedError(message)
                                            : absl::InternalError(message);
}

absl::Status NpyWriter::AddFrame(const float* frame) {
  const size_t count = 3 * static_cast<size_t>(height_) * width_;
  if (std::fwrite(frame, sizeof(float), count, file_.get()) != count) return WriteError();
  ++num_frames_;
  return absl::OkStatus();
}

absl::Status NpyWriter::Finish() {
  if (std::fseek(file_.get(), 0, SEEK_SET) != 0) return WriteError();
  KINO_RETURN_IF_ERROR(WriteHeader());
  // The last bytes reach the disk's cache only here, so a full disk may show only here.
  if (std::fflush(file_.get()) != 0) return WriteError();
  if (std::fclose(file_.release()) != 0) return WriteError();
  return absl::OkStatus();
}

}  // namespace kino::engine
