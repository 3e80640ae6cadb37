// Writes safetensors files for tests, well-formed ones; a test that wants a broken one edits the
// header text.
#pragma once

#include <cstdint>
#include <cstring>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace kino::testing {

// Header text and data as a file's bytes.
inline std::string SafetensorsBytes(const std::string& header, const std::string& data) {
  std::string bytes(8, '\0');
  const uint64_t length = header.size();
  std::memcpy(bytes.data(), &length, 8);
  return bytes + header + data;
}

struct FloatTensor {
  std::string name;
  std::vector<int64_t> shape;
  std::vector<float> values;
};

// float32 tensors, laid out in the order given.
inline std::string SafetensorsOf(const std::vector<FloatTensor>& tensors) {
  std::ostringstream header;
  std::string data;
  for (const FloatTensor& tensor : tensors) {
    header << (header.tellp() == 0 ? '{' : ',') << '"' << tensor.name
           << R"(":{"dtype":"F32","shape":[)";
    for (size_t i = 0; i < tensor.shape.size(); ++i)
      header << (i > 0 ? "," : "") << tensor.shape[i];
    const size_t begin = data.size();
    data.append(reinterpret_cast<const char*>(tensor.values.data()),
                tensor.values.size() * sizeof(float));
    header << R"(],"data_offsets":[)" << begin << ',' << data.size() << "]}";
  }
  header << '}';
  // Blanks, as the safetensors library writes them, so that the data is aligned.
  while (header.tellp() % 8 != 0) header << ' ';
  return SafetensorsBytes(header.str(), data);
}

}  // namespace kino::testing
