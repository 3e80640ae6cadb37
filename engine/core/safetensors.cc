#include "engine/core/safetensors.h"

#include <algorithm>
#include <optional>
#include <set>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/core/status.h"
#include "nlohmann/json.hpp"

namespace kino::engine {
namespace {

using Json = nlohmann::json;

// Far above any published checkpoint (a 13B transformer's header is 0.2 MB), far below what would
// hurt.
constexpr uint64_t kMaxHeaderBytes = 16 << 20;
constexpr size_t kMaxTensors = 100'000;
constexpr size_t kMaxDimensions = 16;

// nlohmann keeps the last of two equal keys; a header that says a thing twice is refused instead.
class DuplicateKeys : public nlohmann::json_sax<Json> {
 public:
  std::string duplicate;
  std::string error;

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_object(std::size_t) override {
    // __metadata__ and a tensor's own object are the only nesting; a header of brackets must not
    // use up the stack.
    if (keys_.size() >= 8) return Fail("nested too deeply");
    keys_.emplace_back();
    return true;
  }
  bool end_object() override {
    keys_.pop_back();
    return true;
  }
  bool start_array(std::size_t) override {
    return ++arrays_ > 8 ? Fail("nested too deeply") : true;
  }
  bool end_array() override {
    --arrays_;
    return true;
  }
  bool key(string_t& key) override {
    if (!keys_.back().insert(key).second) {
      duplicate = key;
      return false;
    }
    return true;
  }
  bool parse_error(std::size_t position, const std::string&, const Json::exception&) override {
    return Fail(absl::StrCat("not JSON at byte ", position));
  }

 private:
  bool Fail(std::string what) {
    error = std::move(what);
    return false;
  }
  std::vector<std::set<std::string>> keys_;
  int arrays_ = 0;
};

std::string Where(const std::string& path, const std::string& name) {
  return absl::StrCat("safetensors '", path, "': tensor '", name, "': ");
}

absl::StatusOr<uint64_t> AsUnsigned(const Json& value, const std::string& what) {
  if (!value.is_number_unsigned()) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, " is ", value.dump(-1, ' ', true), ", expected a non-negative integer"));
  }
  return value.get<uint64_t>();
}

}  // namespace

absl::StatusOr<std::unique_ptr<SafetensorsFile>> SafetensorsFile::Open(const std::string& path) {
  KINO_ASSIGN_OR_RETURN(MappedFile map, MappedFile::Open(path, "safetensors"));
  std::unique_ptr<SafetensorsFile> file(new SafetensorsFile(path, std::move(map)));
  KINO_RETURN_IF_ERROR(file->Parse());
  return file;
}

absl::Status SafetensorsFile::Parse() {
  const std::string& path = path_;
  const size_t size = file_.size();
  auto error = [&path](const std::string& what) {
    return absl::InvalidArgumentError(absl::StrCat("safetensors '", path, "': ", what));
  };
  if (size < 10) {
    return error(absl::StrCat(size, " bytes, expected at least 10 (header length and header)"));
  }
  const auto* begin = reinterpret_cast<const unsigned char*>(file_.data());
  uint64_t header_bytes = 0;
  for (int i = 7; i >= 0; --i) header_bytes = header_bytes << 8 | begin[i];
  if (header_bytes < 2 || header_bytes > size - 8) {
    return error(absl::StrCat("header length ", header_bytes, " in a file of ", size, " bytes"));
  }
  if (header_bytes > kMaxHeaderBytes) {
    return error(
        absl::StrCat("header length ", header_bytes, ", at most ", kMaxHeaderBytes, " accepted"));
  }
  const std::string_view text(reinterpret_cast<const char*>(begin + 8), header_bytes);
  if (text[0] != '{') return error("the header does not begin with '{'");
  DuplicateKeys check;
  if (!Json::sax_parse(text, &check)) {
    if (!check.duplicate.empty())
      return error(absl::StrCat("key '", check.duplicate, "' stands twice in the header"));
    return error(
        absl::StrCat("the header is broken: ", check.error.empty() ? "not JSON" : check.error));
  }
  const Json header = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!header.is_object()) return error("the header is not a JSON object");
  if (header.size() > kMaxTensors) {
    return error(absl::StrCat(header.size(), " tensors, at most ", kMaxTensors, " accepted"));
  }

  const uint64_t data_bytes = size - 8 - header_bytes;
  const auto* data = reinterpret_cast<const std::byte*>(begin + 8 + header_bytes);
  struct Extent {
    uint64_t begin, end;
    const std::string* name;
  };
  std::vector<Extent> extents;
  for (const auto& [name, value] : header.items()) {
    if (name == "__metadata__") {
      if (!value.is_object()) return error("__metadata__ is not an object");
      for (const auto& [key, entry] : value.items()) {
        if (!entry.is_string())
          return error(absl::StrCat("__metadata__ '", key, "' is not a string"));
        metadata_[key] = entry.get<std::string>();
      }
      continue;
    }
    const std::string where = Where(path, name);
    if (!value.is_object() || !value.contains("dtype") || !value.contains("shape") ||
        !value.contains("data_offsets")) {
      return absl::InvalidArgumentError(where +
                                        "expected an object with dtype, shape and data_offsets");
    }
    if (!value["dtype"].is_string())
      return absl::InvalidArgumentError(where + "dtype is not a string");
    const std::optional<DType> dtype = DTypeFromName(value["dtype"].get<std::string>());
    if (!dtype) {
      return absl::InvalidArgumentError(
          absl::StrCat(where, "unknown dtype '", value["dtype"].get<std::string>(), "'"));
    }
    const Json& shape = value["shape"];
    if (!shape.is_array() || shape.size() > kMaxDimensions) {
      return absl::InvalidArgumentError(
          absl::StrCat(where, "shape is not an array of at most ", kMaxDimensions, " integers"));
    }
    TensorEntry entry{.dtype = *dtype, .shape = {}, .data = nullptr, .bytes = 0, .file = path};
    uint64_t bytes = static_cast<uint64_t>(DTypeSize(*dtype));
    for (const Json& dimension : shape) {
      KINO_ASSIGN_OR_RETURN(const uint64_t extent, AsUnsigned(dimension, where + "shape"));
      if (extent > INT64_MAX || __builtin_mul_overflow(bytes, extent, &bytes) ||
          bytes > INT64_MAX) {
        return absl::InvalidArgumentError(
            absl::StrCat(where, "shape ", shape.dump(), " overflows"));
      }
      entry.shape.push_back(static_cast<int64_t>(extent));
    }
    const Json& offsets = value["data_offsets"];
    if (!offsets.is_array() || offsets.size() != 2) {
      return absl::InvalidArgumentError(where + "data_offsets is not a pair");
    }
    KINO_ASSIGN_OR_RETURN(const uint64_t from, AsUnsigned(offsets[0], where + "data_offsets"));
    KINO_ASSIGN_OR_RETURN(const uint64_t to, AsUnsigned(offsets[1], where + "data_offsets"));
    if (from > to || to > data_bytes) {
      return absl::InvalidArgumentError(
          absl::StrCat(where, "offsets [", from, ", ", to, ") in ", data_bytes, " bytes of data"));
    }
    if (to - from != bytes) {
      return absl::InvalidArgumentError(absl::StrCat(
          where, "offsets [", from, ", ", to, ") hold ", to - from, " bytes, but ",
          DTypeName(*dtype), " [", absl::StrJoin(entry.shape, ", "), "] takes ", bytes));
    }
    entry.data = data + from;
    entry.bytes = static_cast<int64_t>(bytes);
    const auto [it, inserted] = tensors_.emplace(name, std::move(entry));
    extents.push_back({from, to, &it->first});
  }

  std::sort(extents.begin(), extents.end(), [](const Extent& a, const Extent& b) {
    return std::tie(a.begin, a.end) < std::tie(b.begin, b.end);
  });
  uint64_t end = 0;
  for (const Extent& extent : extents) {
    if (extent.begin != end) {
      return absl::InvalidArgumentError(
          absl::StrCat(Where(path, *extent.name), "offsets [", extent.begin, ", ", extent.end, ") ",
                       extent.begin < end ? "overlap the tensor before, which ends at "
                                          : "leave a hole after byte ",
                       end));
    }
    end = extent.end;
  }
  if (end != data_bytes) {
    return error(
        absl::StrCat("the tensors end at byte ", end, " of ", data_bytes, " bytes of data"));
  }
  return absl::OkStatus();
}

}  // namespace kino::engine
