// Writes GGUF files for tests; well-formed ones unless a field says otherwise.
#pragma once

#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace kino::testing {

// The types a test names; numbers of gguf_type and ggml_type.
inline constexpr uint32_t kGgufUint32 = 4, kGgufString = 8, kGgufArray = 9, kGgufUint64 = 10;
inline constexpr uint32_t kGgmlF32 = 0, kGgmlF16 = 1, kGgmlQ8_0 = 8, kGgmlQ4_K = 12, kGgmlBF16 = 30;

template <typename T>
std::string GgufNumber(T value) {
  std::string bytes(sizeof value, '\0');
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

inline std::string GgufText(const std::string& text) {
  return GgufNumber(uint64_t{text.size()}) + text;
}

struct GgufTensor {
  std::string name;
  std::vector<uint64_t> extents;  // the fastest first, as GGUF counts them
  uint32_t type = kGgmlF32;
  std::string data = {};
  std::optional<uint64_t> offset = std::nullopt;  // in place of where the data is put
};

struct GgufWriter {
  std::string magic = "GGUF";
  uint32_t version = 3;
  uint64_t alignment = 32;
  std::vector<std::pair<std::string, std::string>> values = {};  // key, type and value as bytes
  std::vector<GgufTensor> tensors = {};
  std::optional<uint64_t> tensor_count = std::nullopt, value_count = std::nullopt;
  std::string tail = {};  // behind the data

  void Add(const std::string& key, uint32_t type, const std::string& value) {
    values.emplace_back(key, GgufNumber(type) + value);
  }

  std::string Bytes() const {
    std::string bytes = magic + GgufNumber(version) +
                        GgufNumber(tensor_count.value_or(tensors.size())) +
                        GgufNumber(value_count.value_or(values.size()));
    for (const auto& [key, value] : values) bytes += GgufText(key) + value;
    std::string data;
    for (const GgufTensor& tensor : tensors) {
      Pad(data);
      bytes += GgufText(tensor.name) + GgufNumber(static_cast<uint32_t>(tensor.extents.size()));
      for (const uint64_t extent : tensor.extents) bytes += GgufNumber(extent);
      bytes += GgufNumber(tensor.type) + GgufNumber(tensor.offset.value_or(data.size()));
      data += tensor.data;
    }
    Pad(bytes);
    return bytes + data + tail;
  }

 private:
  void Pad(std::string& bytes) const {
    while (alignment > 0 && bytes.size() % alignment != 0) bytes.push_back('\0');
  }
};

}  // namespace kino::testing
