#include "engine/core/gguf.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>
#include <set>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/core/status.h"

namespace kino::engine {
namespace {

// Far above any published checkpoint, far below what would hurt.
constexpr uint64_t kMaxHeaderBytes = 64 << 20;
constexpr uint64_t kMaxTensors = 100'000;
constexpr uint64_t kMaxValues = 100'000;
constexpr uint64_t kMaxNameBytes = 1024;
constexpr int kMaxArrayDepth = 4;
// ggml itself stops at 4; gguf-py writes the five dimensions of video convolutions as they are.
constexpr uint32_t kMaxDimensions = 8;
constexpr uint64_t kDefaultAlignment = 32;
constexpr uint64_t kMaxAlignment = 1 << 20;
constexpr char kAlignmentKey[] = "general.alignment";
constexpr char kSplitCountKey[] = "split.count";

// gguf_type.
enum ValueType : uint32_t {
  kUint8,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kFloat32,
  kBool,
  kString,
  kArray,
  kUint64,
  kInt64,
  kFloat64
};

// Bytes of a scalar; 0 for strings, arrays and what is no type.
uint64_t ScalarBytes(uint32_t type) {
  switch (type) {
    case kUint8:
    case kInt8:
    case kBool:
      return 1;
    case kUint16:
    case kInt16:
      return 2;
    case kUint32:
    case kInt32:
    case kFloat32:
      return 4;
    case kUint64:
    case kInt64:
    case kFloat64:
      return 8;
    default:
      return 0;
  }
}

// ggml_type, with the plain ones Kino reads or else their names for the refusal.
struct StoredType {
  uint32_t number;
  const char* name;
  std::optional<DType> dtype;
  GgmlType block = GgmlType::kNone;
};

const StoredType* FindStoredType(uint32_t number) {
  static const std::vector<StoredType> types = {
      {0, "F32", DType::kF32},
      {1, "F16", DType::kF16},
      {2, "Q4_0", DType::kU8, GgmlType::kQ4_0},
      {3, "Q4_1", DType::kU8, GgmlType::kQ4_1},
      {6, "Q5_0", DType::kU8, GgmlType::kQ5_0},
      {7, "Q5_1", DType::kU8, GgmlType::kQ5_1},
      {8, "Q8_0", DType::kU8, GgmlType::kQ8_0},
      {9, "Q8_1", std::nullopt},
      {10, "Q2_K", DType::kU8, GgmlType::kQ2_K},
      {11, "Q3_K", DType::kU8, GgmlType::kQ3_K},
      {12, "Q4_K", DType::kU8, GgmlType::kQ4_K},
      {13, "Q5_K", DType::kU8, GgmlType::kQ5_K},
      {14, "Q6_K", DType::kU8, GgmlType::kQ6_K},
      {15, "Q8_K", std::nullopt},
      {16, "IQ2_XXS", std::nullopt},
      {17, "IQ2_XS", std::nullopt},
      {18, "IQ3_XXS", std::nullopt},
      {19, "IQ1_S", std::nullopt},
      {20, "IQ4_NL", DType::kU8, GgmlType::kIQ4_NL},
      {21, "IQ3_S", std::nullopt},
      {22, "IQ2_S", std::nullopt},
      {23, "IQ4_XS", DType::kU8, GgmlType::kIQ4_XS},
      {24, "I8", std::nullopt},
      {25, "I16", std::nullopt},
      {26, "I32", std::nullopt},
      {27, "I64", std::nullopt},
      {28, "F64", std::nullopt},
      {29, "IQ1_M", std::nullopt},
      {30, "BF16", DType::kBF16},
      {34, "TQ1_0", std::nullopt},
      {35, "TQ2_0", std::nullopt},
      {39, "MXFP4", std::nullopt},
      {40, "NVFP4", std::nullopt},
      {41, "Q1_0", std::nullopt},
  };
  const auto found = std::find_if(types.begin(), types.end(),
                                  [&](const StoredType& type) { return type.number == number; });
  return found == types.end() ? nullptr : &*found;
}

uint64_t Padded(uint64_t bytes, uint64_t alignment) {
  return (bytes + alignment - 1) / alignment * alignment;
}

// Reads the header from its beginning on; every read is checked against the header's limit.
class Cursor {
 public:
  Cursor(const std::byte* data, uint64_t size) : data_(data), size_(size) {}

  uint64_t position() const { return position_; }
  uint64_t left() const { return size_ - position_; }

  template <typename T>
  absl::StatusOr<T> Number(const std::string& what) {
    KINO_RETURN_IF_ERROR(Need(sizeof(T), what));
    T value;
    std::memcpy(&value, data_ + position_, sizeof(T));
    position_ += sizeof(T);
    return value;
  }
  absl::Status Skip(uint64_t bytes, const std::string& what) {
    KINO_RETURN_IF_ERROR(Need(bytes, what));
    position_ += bytes;
    return absl::OkStatus();
  }
  absl::StatusOr<std::string_view> String(const std::string& what) {
    KINO_ASSIGN_OR_RETURN(const uint64_t bytes, Number<uint64_t>(what + " (its length)"));
    KINO_RETURN_IF_ERROR(Need(bytes, what));
    const std::string_view text(reinterpret_cast<const char*>(data_ + position_), bytes);
    position_ += bytes;
    return text;
  }
  // A key or a tensor's name: what messages can show.
  absl::StatusOr<std::string> Name(const std::string& what) {
    KINO_ASSIGN_OR_RETURN(const std::string_view text, String(what));
    if (text.empty() || text.size() > kMaxNameBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat(what, " has ", text.size(), " bytes, expected 1 to ", kMaxNameBytes));
    }
    for (const char c : text) {
      if (c < 0x20 || c > 0x7e) {
        return absl::InvalidArgumentError(absl::StrCat(
            what, " has byte ", static_cast<unsigned char>(c), ", expected printable ASCII"));
      }
    }
    return std::string(text);
  }

 private:
  absl::Status Need(uint64_t bytes, const std::string& what) const {
    if (bytes <= left()) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat(what, " takes ", bytes, " bytes at ", position_,
                                                   ", but the header can only have ", left(),
                                                   " more"));
  }

  const std::byte* data_;
  uint64_t size_;
  uint64_t position_ = 0;
};

absl::Status SkipArray(Cursor& cursor, const std::string& what, int depth) {
  if (depth > kMaxArrayDepth)
    return absl::InvalidArgumentError(what + ": arrays nested too deeply");
  KINO_ASSIGN_OR_RETURN(const uint32_t type, cursor.Number<uint32_t>(what));
  KINO_ASSIGN_OR_RETURN(const uint64_t count, cursor.Number<uint64_t>(what));
  const uint64_t scalar = ScalarBytes(type);
  if (scalar == 0 && type != kString && type != kArray) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, " is an array of type ", type, ", which GGUF does not have"));
  }
  // A string takes 8 bytes at least, an array 12.
  const uint64_t least = scalar != 0 ? scalar : 8;
  if (count > cursor.left() / least) {
    return absl::InvalidArgumentError(absl::StrCat(what, " has ", count, " entries, but only ",
                                                   cursor.left(), " bytes are left for them"));
  }
  if (scalar != 0) return cursor.Skip(scalar * count, what);
  for (uint64_t i = 0; i < count; ++i) {
    if (type == kString) {
      KINO_RETURN_IF_ERROR(cursor.String(what).status());
    } else {
      KINO_RETURN_IF_ERROR(SkipArray(cursor, what, depth + 1));
    }
  }
  return absl::OkStatus();
}

template <typename T>
absl::StatusOr<int64_t> Integer(Cursor& cursor, const std::string& what) {
  KINO_ASSIGN_OR_RETURN(const T value, cursor.Number<T>(what));
  return static_cast<int64_t>(value);
}

// An integer value; nothing for what is above int64.
absl::StatusOr<std::optional<int64_t>> ReadScalar(Cursor& cursor, uint32_t type,
                                                  const std::string& what) {
  switch (type) {
    case kUint8:
      return Integer<uint8_t>(cursor, what);
    case kInt8:
      return Integer<int8_t>(cursor, what);
    case kUint16:
      return Integer<uint16_t>(cursor, what);
    case kInt16:
      return Integer<int16_t>(cursor, what);
    case kUint32:
      return Integer<uint32_t>(cursor, what);
    case kInt32:
      return Integer<int32_t>(cursor, what);
    case kInt64:
      return Integer<int64_t>(cursor, what);
    case kUint64: {
      KINO_ASSIGN_OR_RETURN(const uint64_t value, cursor.Number<uint64_t>(what));
      if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
      return static_cast<int64_t>(value);
    }
    case kBool: {
      KINO_ASSIGN_OR_RETURN(const uint8_t value, cursor.Number<uint8_t>(what));
      if (value > 1) {
        return absl::InvalidArgumentError(
            absl::StrCat(what, " is a boolean of value ", value, ", expected 0 or 1"));
      }
      return value;
    }
    default:
      return absl::InternalError(absl::StrCat(what, " is of type ", type, ", which is no integer"));
  }
}

// A tensor's info, before its place is checked.
struct Info {
  TensorEntry entry;
  uint64_t offset = 0;
};

absl::StatusOr<Info> ReadInfo(Cursor& cursor, const std::string& where, const std::string& path) {
  const auto error = [&](const std::string& what) {
    return absl::InvalidArgumentError(where + what);
  };
  KINO_ASSIGN_OR_RETURN(const uint32_t dimensions,
                        cursor.Number<uint32_t>(where + "number of dimensions"));
  if (dimensions > kMaxDimensions) {
    return error(absl::StrCat(dimensions, " dimensions, at most ", kMaxDimensions, " accepted"));
  }
  std::vector<uint64_t> extents;  // fastest first
  for (uint32_t i = 0; i < dimensions; ++i) {
    KINO_ASSIGN_OR_RETURN(const uint64_t extent, cursor.Number<uint64_t>(where + "shape"));
    extents.push_back(extent);
  }
  KINO_ASSIGN_OR_RETURN(const uint32_t number, cursor.Number<uint32_t>(where + "type"));
  Info info;
  KINO_ASSIGN_OR_RETURN(info.offset, cursor.Number<uint64_t>(where + "offset"));

  const StoredType* type = FindStoredType(number);
  if (type == nullptr || !type->dtype) {
    return absl::UnimplementedError(absl::StrCat(
        where, "type ", type == nullptr ? absl::StrCat(number) : std::string(type->name),
        ", expected F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K to Q6_K, IQ4_NL or IQ4_XS"));
  }
  const std::string shape =
      absl::StrCat("[", absl::StrJoin(extents.rbegin(), extents.rend(), ", "), "]");
  uint64_t elements = 1;
  for (const uint64_t extent : extents) {
    if (extent > INT64_MAX || __builtin_mul_overflow(elements, extent, &elements) ||
        elements > INT64_MAX / 16) {
      return error(absl::StrCat("shape ", shape, " overflows"));
    }
  }
  uint64_t bytes = elements * static_cast<uint64_t>(DTypeSize(*type->dtype));
  if (type->block != GgmlType::kNone) {
    const auto block = static_cast<uint64_t>(GgmlBlockElements(type->block));
    if (extents.empty() || extents[0] % block != 0) {
      return error(absl::StrCat("shape ", shape, " of type ", type->name,
                                ", whose last dimension must be a multiple of ", block));
    }
    bytes = elements / block * static_cast<uint64_t>(GgmlBlockBytes(type->block));
  }
  info.entry = {.dtype = *type->dtype,
                .shape = std::vector<int64_t>(extents.rbegin(), extents.rend()),
                .data = nullptr,
                .bytes = static_cast<int64_t>(bytes),
                .file = path,
                .block = type->block};
  return info;
}

using Strings = std::map<std::string, std::string, std::less<>>;
using Integers = std::map<std::string, int64_t, std::less<>>;
using Floats = std::map<std::string, double, std::less<>>;

absl::StatusOr<double> ReadFloat(Cursor& cursor, uint32_t type, const std::string& what) {
  if (type == kFloat64) return cursor.Number<double>(what);
  KINO_ASSIGN_OR_RETURN(const float value, cursor.Number<float>(what));
  return double{value};
}

absl::Status ReadValues(Cursor& cursor, uint64_t count, Strings& strings, Integers& integers,
                        Floats& floats) {
  std::set<std::string> keys;
  for (uint64_t i = 0; i < count; ++i) {
    KINO_ASSIGN_OR_RETURN(std::string key,
                          cursor.Name(absl::StrCat("the name of key-value pair ", i)));
    const std::string what = absl::StrCat("key '", key, "'");
    if (!keys.insert(key).second) return absl::InvalidArgumentError(what + " stands twice");
    KINO_ASSIGN_OR_RETURN(const uint32_t type, cursor.Number<uint32_t>(what + " (its type)"));
    if (type == kString) {
      KINO_ASSIGN_OR_RETURN(const std::string_view value, cursor.String(what));
      strings.emplace(std::move(key), value);
    } else if (type == kArray) {
      KINO_RETURN_IF_ERROR(SkipArray(cursor, what, 1));
    } else if (type == kFloat32 || type == kFloat64) {
      KINO_ASSIGN_OR_RETURN(const double value, ReadFloat(cursor, type, what));
      floats.emplace(std::move(key), value);
    } else if (ScalarBytes(type) != 0) {
      KINO_ASSIGN_OR_RETURN(const std::optional<int64_t> value, ReadScalar(cursor, type, what));
      if (value) integers.emplace(std::move(key), *value);
    } else {
      return absl::InvalidArgumentError(
          absl::StrCat(what, " is of type ", type, ", which GGUF does not have"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> Alignment(const Integers& integers) {
  const auto found = integers.find(kAlignmentKey);
  if (found == integers.end()) return kDefaultAlignment;
  const int64_t value = found->second;
  if (value < 1 || value > static_cast<int64_t>(kMaxAlignment) || (value & (value - 1)) != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "key '", kAlignmentKey, "' is ", value, ", expected a power of two up to ", kMaxAlignment));
  }
  return static_cast<uint64_t>(value);
}

// Each tensor begins where the one before it ends, aligned: no overlap, no hole, nothing outside.
absl::Status CheckExtents(std::vector<std::pair<uint64_t, const TensorMap::value_type*>> extents,
                          uint64_t alignment, uint64_t data_bytes) {
  std::sort(extents.begin(), extents.end(), [](const auto& a, const auto& b) {
    return std::tie(a.first, a.second->second.bytes) < std::tie(b.first, b.second->second.bytes);
  });
  uint64_t end = 0;
  for (const auto& [offset, tensor] : extents) {
    const std::string where = absl::StrCat("tensor '", tensor->first, "': ");
    const auto bytes = static_cast<uint64_t>(tensor->second.bytes);
    if (offset > data_bytes || bytes > data_bytes - offset) {
      return absl::InvalidArgumentError(absl::StrCat(where, bytes, " bytes at offset ", offset,
                                                     " of ", data_bytes, " bytes of data"));
    }
    if (offset != Padded(end, alignment)) {
      return absl::InvalidArgumentError(
          absl::StrCat(where, "offset ", offset, ", expected ", Padded(end, alignment),
                       ", where the tensor before it ends (aligned to ", alignment, ")"));
    }
    end = offset + bytes;
  }
  if (data_bytes > Padded(end, alignment)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the tensors end at byte ", end, " of ", data_bytes, " bytes of data"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<GgufFile>> GgufFile::Open(const std::string& path) {
  KINO_ASSIGN_OR_RETURN(MappedFile map, MappedFile::Open(path, "GGUF"));
  std::unique_ptr<GgufFile> file(new GgufFile(path, std::move(map)));
  const absl::Status status = file->Parse();
  if (!status.ok()) {
    return absl::Status(status.code(),
                        absl::StrCat("GGUF '", path, "': ", std::string(status.message())));
  }
  return file;
}

absl::Status GgufFile::Parse() {
  const uint64_t size = file_.size();
  Cursor cursor(file_.data(), std::min(size, kMaxHeaderBytes));
  KINO_ASSIGN_OR_RETURN(const uint32_t magic, cursor.Number<uint32_t>("magic"));
  if (magic != 0x46554747) return absl::InvalidArgumentError("does not begin with 'GGUF'");
  KINO_ASSIGN_OR_RETURN(const uint32_t version, cursor.Number<uint32_t>("version"));
  if (version != 2 && version != 3) {
    if ((version & 0xffff) == 0)
      return absl::UnimplementedError("big-endian, expected little-endian");
    return absl::UnimplementedError(absl::StrCat("version ", version, ", expected 2 or 3"));
  }
  KINO_ASSIGN_OR_RETURN(const uint64_t tensor_count, cursor.Number<uint64_t>("tensor count"));
  KINO_ASSIGN_OR_RETURN(const uint64_t value_count, cursor.Number<uint64_t>("key-value count"));
  if (tensor_count > kMaxTensors || value_count > kMaxValues) {
    return absl::InvalidArgumentError(absl::StrCat(tensor_count, " tensors and ", value_count,
                                                   " key-value pairs, at most ", kMaxTensors,
                                                   " and ", kMaxValues, " accepted"));
  }
  KINO_RETURN_IF_ERROR(ReadValues(cursor, value_count, metadata_, integers_, floats_));
  KINO_ASSIGN_OR_RETURN(const uint64_t alignment, Alignment(integers_));
  if (const auto split = integers_.find(kSplitCountKey);
      split != integers_.end() && split->second > 1) {
    return absl::UnimplementedError(
        absl::StrCat("one of ", split->second, " files of a split checkpoint: merge them"));
  }

  std::vector<std::pair<uint64_t, const TensorMap::value_type*>> extents;
  for (uint64_t i = 0; i < tensor_count; ++i) {
    KINO_ASSIGN_OR_RETURN(std::string name, cursor.Name(absl::StrCat("the name of tensor ", i)));
    const std::string where = absl::StrCat("tensor '", name, "': ");
    KINO_ASSIGN_OR_RETURN(Info info, ReadInfo(cursor, where, path_));
    const auto [it, inserted] = tensors_.emplace(std::move(name), std::move(info.entry));
    if (!inserted) return absl::InvalidArgumentError(where + "stands twice");
    extents.emplace_back(info.offset, &*it);
  }
  // A file of no tensors may end with its header.
  const uint64_t data_begin = std::min(Padded(cursor.position(), alignment), size);
  KINO_RETURN_IF_ERROR(CheckExtents(extents, alignment, size - data_begin));
  for (const auto& [offset, tensor] : extents) {
    tensors_.find(tensor->first)->second.data = file_.data() + data_begin + offset;
  }
  return absl::OkStatus();
}

}  // namespace kino::engine
